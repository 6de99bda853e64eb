"""HTTP server on METRICS_LISTEN_ADDR: /metrics for Prometheus, /live and /ready for load balancers."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

import gevent
import msgspec
from gevent import pywsgi
from loguru import logger

from app.config import ListenAddress
from app.inbound.idle_clients import ClientPool
from app.inbound.listener import BindError

Readiness = tuple[bool, dict[str, object]]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]

JSON = "application/json"

CLIENTS_AT_ONCE: Final = 64
ACCEPTED_AT_ONCE: Final = 1
"""The pool is asked for a place only when a client has come."""
SILENCE_SECONDS: Final = 2.0
"""A client silent for this long is disconnected: a full server would look like a dead edge."""
HEADER_SECONDS: Final = 5.0
"""Limit for receiving the head of a request."""
RESPONSE_SECONDS: Final = 30.0
"""Limit for sending a response."""


class StatusServer:
    """Serves three routes. `metrics()` returns (content type, text).

    `readiness(frontend)` returns (is ready, details), of the whole edge for None.
    """

    def __init__(
        self,
        address: ListenAddress,
        readiness: Callable[[str | None], Readiness],
        metrics: Callable[[], tuple[str, bytes]],
    ) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._server = pywsgi.WSGIServer(
            (address.host, address.port),
            self._respond,
            log=None,
            error_log=ErrorLog("metrics"),
            spawn=ClientPool(CLIENTS_AT_ONCE),
            handler_class=ImpatientHandler,
            environ={"SERVER_NAME": address.host},  # avoids a reverse DNS lookup
        )
        self._server.max_accept = ACCEPTED_AT_ONCE
        self._wanted = address

    def start(self) -> None:
        """Listen. Raises BindError."""
        try:
            self._server.start()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise BindError(f"cannot listen on {self._wanted} (metrics): {reason}", "metrics_listen_addr") from None

    def close(self) -> None:
        """Close the listener; requests in progress go on."""
        self._server.close()

    def stop(self) -> None:
        """Close the listener; requests in progress get one second."""
        self._server.stop(timeout=1)

    @property
    def address(self) -> ListenAddress:
        return ListenAddress(self._server.server_host, self._server.server_port)

    def _respond(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]
        status, content_type, body = self._route(method, path, query)
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        if status.startswith("405"):
            headers.append(("Allow", "GET, HEAD"))
        start_response(status, headers)
        return [b"" if method == "HEAD" else body]

    def _route(self, method: str, path: str, query: str) -> tuple[str, str, bytes]:
        routes: dict[str, Callable[[], tuple[str, str, bytes]]] = {
            "/metrics": self._get_metrics,
            "/live": lambda: ("200 OK", JSON, b'{"live":true}\n'),
            "/ready": lambda: self._get_ready(dict(parse_qsl(query)).get("frontend")),
        }
        handler = routes.get(path)
        if handler is None:
            return "404 Not Found", JSON, _json({"error": "not found", "routes": list(routes)})
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", JSON, _json({"error": "method not allowed"})
        return handler()

    def _get_metrics(self) -> tuple[str, str, bytes]:
        content_type, text = self._metrics()
        return "200 OK", content_type, text

    def _get_ready(self, frontend: str | None) -> tuple[str, str, bytes]:
        is_ready, details = self._readiness(frontend)
        return "200 OK" if is_ready else "503 Service Unavailable", JSON, _json(details)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


class ImpatientHandler(pywsgi.WSGIHandler):  # type: ignore[misc]
    """Serves one client of a server with a ClientPool; closes an idle or slow connection."""

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        # pywsgi sends head and body separately; without this the body would wait 40 ms for the head's ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, address, server)

    def read_requestline(self) -> object:
        self.socket.settimeout(SILENCE_SECONDS)
        self.server.pool.begin_waiting()
        return super().read_requestline()

    def read_request(self, raw_requestline: str) -> object:
        try:
            with gevent.Timeout(HEADER_SECONDS, TimeoutError()):
                is_valid = super().read_request(raw_requestline)
        except TimeoutError:  # for any other exception pywsgi prints a traceback
            raise ValueError("the request head was not received in time") from None
        self.socket.settimeout(RESPONSE_SECONDS)
        self.server.pool.end_waiting()
        return is_valid


class ErrorLog:
    """Receives pywsgi's error messages and logs them."""

    def __init__(self, server: str) -> None:
        self._server = server

    def write(self, text: str) -> None:
        if text.strip():
            logger.warning("{} server: {}", self._server, text.strip())

    def flush(self) -> None:
        pass
