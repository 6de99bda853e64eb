"""An edge in the test's own process, for tests that must reach inside: to crash an actor, to count its leases."""

from __future__ import annotations

import gc
import http.client
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loguru import logger

from actors.messages import DescribePool
from actors.runtime import Address, ask
from app.config import load
from app.edge.edge import Edge
from app.edge.readiness import readiness
from app.outbound.json_log import JsonLog
from tests.harness import PATIENCE_SECONDS, eventually, write_backends

POOL = "default"
"""The one pool there is without a configuration file."""


class EdgeInside:
    """The edge with the eyes of a test. `edge` is the thing itself."""

    def __init__(self, edge: Edge, log: JsonLog, log_path: Path) -> None:
        self.edge = edge
        self.parts = edge.parts
        self.log = log
        self._log_path = log_path
        (addresses,) = edge.listeners.addresses.values()
        self.address = (addresses[0].host, addresses[0].port)

    def actor(self, name: str) -> Address:
        """Return the address of `registry`, `bindings`, `metrics` or `health`."""
        return getattr(self.parts.actors, name)

    def connect(self, source: str = "", timeout: float = PATIENCE_SECONDS) -> socket.socket:
        return socket.create_connection(self.address, timeout, (source, 0) if source else None)

    def leases(self) -> int:
        """Return how many connections the registry counts on all backends together."""
        described = ask(self.parts.actors.registry, DescribePool(POOL), timeout_s=PATIENCE_SECONDS)
        return sum(view.connections for view in described)

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics as written there."""
        status = self.edge.status.address
        connection = http.client.HTTPConnection(status.host, status.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}

    def logged(self) -> list[dict[str, Any]]:
        """Return every line of the log so far."""
        self.log.flush()
        return [json.loads(line) for line in self._log_path.read_text().split("\n")[:-1]]


@contextmanager
def edge_in_process(folder: Path, rows: list[dict[str, Any]], **variables: object) -> Iterator[EdgeInside]:
    """Run an edge for the block, on a port the kernel chooses, configured as by the environment."""
    database, log_path = folder / "inside.db", folder / "inside.jsonl"
    write_backends(database, rows)
    settings = {
        "LISTEN_ADDR": "127.0.0.1:0",
        "METRICS_LISTEN_ADDR": "127.0.0.1:0",
        "ADMIN_LISTEN_ADDR": "",
        "DB_PATH": database,
        "GEOIP_PATH": "off",
        "DRAIN_TIMEOUT_SECS": 0,
        **variables,
    }
    log = JsonLog(log_path)
    sink = logger.add(log.write_event, level="INFO", format="{message}", catch=False)
    switch_interval = sys.getswitchinterval()
    edge = Edge(load({f"EDGEPROXY_{name}": str(value) for name, value in settings.items()}), log)
    try:
        edge.start()
        inside = EdgeInside(edge, log, log_path)
        eventually(lambda: readiness(edge.parts)[0] or not rows, what="the edge is ready")
        yield inside
    finally:
        edge.stop()
        logger.remove(sink)
        log.stop()
        sys.setswitchinterval(switch_interval)
        gc.unfreeze()
