"""A service controlled by the test, behind a pool, an actor and a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from app.domain.service_errors import ConnectionLost, OperationRefused
from app.domain.services import ServiceSpec, parse_service


class FakeServer:
    """Counts connections and calls. It is up until `fall`."""

    def __init__(self) -> None:
        self.down: str | None = None
        self.is_slow_to_connect = False
        self.room = 1000
        """How many connections it takes at once."""
        self.open: list[FakeConnection] = []
        self.closed = 0
        self.attempts = 0
        self.asked: list[object] = []
        self.gate = Event()
        """What `wait` waits for."""

    def connect(self) -> FakeConnection:
        self.attempts += 1
        if self.is_slow_to_connect:
            Event().wait()
        gevent.sleep(0)
        if self.down is not None:
            raise ConnectionLost(self.down)
        if len(self.open) >= self.room:
            raise ConnectionLost("too many connections")
        connection = FakeConnection(self)
        self.open.append(connection)
        return connection

    def connector(self, _spec: ServiceSpec) -> Callable[[], FakeConnection]:
        return self.connect

    def fall(self, reason: str) -> None:
        """Close every connection and refuse new ones."""
        self.down = reason
        for connection in self.open:
            connection.has_ended = True


class FakeConnection:
    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self.has_ended = False

    def call(self, operation: Any) -> object:
        if self.has_ended:
            raise ConnectionLost("reset by peer")
        self._server.asked.append(operation)
        match operation:
            case "wait":
                self._server.gate.wait()
            case "refuse":
                raise OperationRefused("no such thing")
            case "lose":
                raise ConnectionLost("reset by peer")
            case "break":
                raise ZeroDivisionError("a fault of the adapter")
        return operation

    def is_stale(self) -> bool:
        return self.has_ended

    def close(self) -> None:
        self._server.open.remove(self)
        self._server.closed += 1
        if self._server.down == "and it does not close":
            Event().wait()
        raise OSError("closing went wrong, too")


def fake_spec(name: str = "main", **settings: Any) -> ServiceSpec:
    more = {"engine": "redis", "host": "nowhere", "connections": 2, "backlog": 3, "timeout_seconds": 5.0, **settings}
    return parse_service({"name": name, "kind": "cache", "settings": more})
