#!/usr/bin/env python3
"""Run the demo backends: an HTTP server for each row of app/data/demo_backends.csv, which returns its identity.

DEMO_BACKENDS names another such CSV file, for other ports.

honcho ends all processes when the first one of the Procfile has ended. Therefore this one never ends by itself (without
DEMO=1 it idles), and after SIGTERM it runs until the edge has drained. A second signal ends it at once.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import socket
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.outbound.honcho_process import is_started_by_honcho
from app.outbound.unix_drain_notice import wait_for_drain

SHIPPED_CSV = ROOT / "app" / "data" / "demo_backends.csv"
CITIES = {"gru": "São Paulo", "nyc": "New York", "cdg": "Paris", "nrt": "Tokyo", "jnb": "Johannesburg"}
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


class City(socketserver.ThreadingTCPServer):
    """One backend, listening on the address of its row."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, row: dict[str, str]) -> None:
        self.identity = {key: row[key] for key in ("id", "app", "region", "country")}
        self.identity["city"] = CITIES.get(row["id"], row["id"])
        self.address_family = socket.AF_INET6 if ":" in row["wg_ip"] else socket.AF_INET
        super().__init__((row["wg_ip"], int(row["port"])), IdentityHandler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore disconnected clients; print the traceback of other errors."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class IdentityHandler(BaseHTTPRequestHandler):
    """Responds to GET and HEAD with the identity of the city, as text or JSON."""

    protocol_version = "HTTP/1.1"
    server_version = "edgeproxy-demo"
    wbufsize = -1  # send header and body together
    disable_nagle_algorithm = True
    server: City

    def do_GET(self) -> None:
        host, port = self.client_address[:2]
        facts = {**self.server.identity, "client": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}
        if forwarded := self.headers.get("X-Forwarded-For"):
            facts["forwarded_for"] = forwarded
        if "application/json" in self.headers.get("Accept", ""):
            content_type, text = "application/json", json.dumps(facts, ensure_ascii=False) + "\n"
        else:
            title = "{id} · {city}, {country} ({region})".format_map(facts)
            content_type = "text/plain; charset=utf-8"
            text = "\n".join([title, *(f"{name}: {value}" for name, value in facts.items()), ""])
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, as the edge writes the access log."""


def report(message: str) -> None:
    print(message, flush=True)  # honcho prepends the time and the name of the process


def start_cities() -> None:
    """Listen for every row, then serve in threads. A port already in use ends the program with one line."""
    path = Path(os.environ.get("DEMO_BACKENDS") or SHIPPED_CSV)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cities = []
    for row in rows:
        try:
            cities.append(City(row))
        except OSError as error:
            where = f"{row['wg_ip']}:{row['port']} (backend {row['id']})"
            if error.errno == errno.EADDRINUSE:
                sys.exit(f"{where} is already in use by another process: is the demo running twice?")
            sys.exit(f"cannot listen on {where}: {error.strerror}")
    for city in cities:
        threading.Thread(target=city.serve_forever, daemon=True).start()
    report("serving " + ", ".join(f"{row['id']} on {row['wg_ip']}:{row['port']}" for row in rows))


def metrics_port() -> int:
    """Return the port of the edge's metrics."""
    port = os.environ.get("EDGEPROXY_METRICS_LISTEN_ADDR", "").strip().rpartition(":")[2]
    return int(port) if port.isdecimal() else 9090


def main() -> None:
    # Blocked in all threads, so that the main thread can wait for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if os.environ.get("DEMO", "").lower() in ("1", "true", "yes"):
        start_cities()
    elif not is_started_by_honcho(os.environ):  # the Procfile starts it on every machine
        report("idle: DEMO is not set; DEMO=1 runs the demo backends")
    signal.sigwait(STOP_SIGNALS)
    wait_for_drain(metrics_port(), lambda seconds: signal.sigtimedwait(STOP_SIGNALS, seconds) is not None)


if __name__ == "__main__":
    main()
