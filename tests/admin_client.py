"""A client of the admin API, as a script would be: a token, JSON, and a new connection for each request."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import PATIENCE_SECONDS, EdgeProcess, eventually, write_backends

SCOPES = ("read", "operate", "deploy")


@dataclass(frozen=True)
class AdminResponse:
    """A response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> dict[str, Any]:
        """Check the fields that every problem has (RFC 9457) and return the problem details."""
        assert self.headers["content-type"] == "application/problem+json", self
        details = self.json
        assert details["type"] == "about:blank"
        assert details["status"] == self.status
        assert details["title"] == http.client.responses[self.status]
        assert details["detail"]
        return dict(details)


class Admin:
    """The admin API of an edge, called with `token` from the address `source`."""

    def __init__(self, address: tuple[str, int], token: str | None, source: str = "") -> None:
        self.address = address
        self.token = token
        self._source = (source, 0) if source else None

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, PATIENCE_SECONDS)

    def call(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None, **headers: str
    ) -> AdminResponse:
        """Send a request; `body` goes as JSON, `raw` as it is. Headers are named with underscores."""
        sent = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            raw, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        sent |= {name.replace("_", "-"): text for name, text in headers.items()}
        connection = http.client.HTTPConnection(*self.address, PATIENCE_SECONDS, self._source)
        try:
            connection.request(method, path, raw, sent)
            response = connection.getresponse()
            names = {name.lower(): text for name, text in response.getheaders()}
            return AdminResponse(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Return the JSON of a GET, which must succeed."""
        response = self.call("GET", path)
        assert response.status == 200, response
        return response.json

    def bearer(self, name: str, *scopes: str) -> Admin:
        """Create a token with these scopes and return a client with it."""
        made = self.call("POST", "/api/tokens", {"name": name, "scopes": list(scopes)})
        assert made.status == 201, made
        return Admin(self.address, made.json["token"])


def admin_of(proxy: EdgeProcess, folder: Path) -> Admin:
    """Return a client with the first token, for an edge started with `admin_variables(folder)`."""
    head = eventually(lambda: proxy.event("listening on"))
    host, _, port = head["admin"].rpartition(":")
    return Admin((host.strip("[]"), int(port)), (folder / "admin.token").read_text().strip())


@contextmanager
def edge_with_admin(folder: Path, rows: list[dict[str, Any]]) -> Iterator[tuple[EdgeProcess, Admin]]:
    """Run an edge with an admin API and these backends, as one that several tests share."""
    write_backends(folder / "routing.db", rows)
    variables = {name: str(value) for name, value in admin_variables(folder).items()}
    proxy = EdgeProcess(folder, folder / "routing.db", "127.0.0.1:0", variables)
    try:
        proxy.wait_for_backends(len([one for one in rows if one["weight"]]))
        yield proxy, admin_of(proxy, folder)
    finally:
        proxy.kill()


def admin_variables(folder: Path) -> dict[str, object]:
    """Return the variables of an edge with an admin API."""
    return {
        "ADMIN_LISTEN_ADDR": "127.0.0.1:0",
        "ADMIN_TOKEN_FILE": folder / "admin.token",
        "GATEWAY_DB_PATH": folder / "gateway.db",
        "GEOIP_PATH": "off",
    }
