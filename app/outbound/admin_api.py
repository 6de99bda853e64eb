"""HTTP client of an edge's admin API, for commands. Each call is one request and returns its JSON."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

DEFAULT_URL: Final = "http://127.0.0.1:8081"
CONNECT_SECONDS: Final = 5.0
RESPONSE_SECONDS: Final = 120.0
"""Longer than replacing a service by an unreachable one takes."""


class ApiError(Exception):
    """The edge refused, failed, or cannot be reached (`status` None). `faults` are (where, rule) pairs."""

    def __init__(self, detail: str, status: int | None = None, faults: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.faults = tuple(faults)


class AdminApi:
    """The admin API at a URL (http or https), called with a bearer token."""

    def __init__(
        self, url: str, token: str, ca_file: Path | None = None, response_seconds: float = RESPONSE_SECONDS
    ) -> None:
        """Trust the authorities in `ca_file` (PEM), or those of the system if None.

        Raises ValueError for an invalid URL, OSError for an unusable file.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("needs http:// or https:// and a host")
        if parts.port == 0:  # reading it raises ValueError for an invalid port
            raise ValueError("port 0 is not a port")
        self.url = url.rstrip("/")
        self._headers = {"Accept": "application/json"}
        self.set_token(token)
        self._http = urllib3.PoolManager(
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=response_seconds),
            ssl_context=ssl.create_default_context(cafile=ca_file),
        )

    def set_token(self, token: str) -> None:
        """Send this token from now on."""
        self._headers["Authorization"] = f"Bearer {token}"

    def call(
        self, method: str, path: str, body: object = None, query: Mapping[str, object] | None = None
    ) -> dict[str, Any] | None:
        """Send a request. Returns the JSON object of the response, or None if it has no body. Raises ApiError."""
        target = f"{self.url}{path}?{urlencode(query)}" if query else self.url + path
        try:
            response = self._http.request(method, target, json=body, headers=self._headers)
        except (HTTPError, OSError) as error:
            raise ApiError(f"no response from {self.url}: {_reason(error)}") from None
        return self._read(response.status, response.data)

    def _read(self, status: int, data: bytes) -> dict[str, Any] | None:
        if status == 204:
            return None
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict) or (status >= 300 and "detail" not in found):
            raise ApiError(f"{self.url} is not the admin API of an edge")
        if status >= 300:
            faults = [(fault["where"], fault["rule"]) for fault in found.get("errors", ())]
            raise ApiError(found["detail"], status, faults)
        return found

    def close(self) -> None:
        self._http.clear()


def is_token(text: str) -> bool:
    """Return whether a text can be sent as a token."""
    return text.isascii() and text.isprintable() and bool(text)


def segment(name: object) -> str:
    """Return a name quoted as a segment of a path. A client would resolve `.` and `..` (RFC 3986 5.2.4)."""
    quoted = quote(str(name), safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def _reason(error: BaseException) -> str:
    """Return the operating system's message of a failure instead of the library's."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
