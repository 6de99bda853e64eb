"""The admin API of an edge over HTTP, for commands: a request a call; its JSON, or why there is none."""

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
"""Longer than a service takes that is replaced by one which nobody can reach."""


class ApiError(Exception):
    """The edge refused, failed, or cannot be reached: `status` is None then. `faults` are (where, rule) pairs."""

    def __init__(self, detail: str, status: int | None = None, faults: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.faults = tuple(faults)


class AdminApi:
    """The API at a URL (http or https) to the bearer of a token."""

    def __init__(
        self, url: str, token: str, ca_file: Path | None = None, response_seconds: float = RESPONSE_SECONDS
    ) -> None:
        """`ca_file` (PEM) names the authorities to trust, None the system's.

        Raises ValueError: this is no such URL; OSError: the file is of no use.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("needs http:// or https:// and a host")
        if parts.port == 0:  # reading it raises ValueError for what is no port
            raise ValueError("port 0 is none")
        self.url = url.rstrip("/")
        self._headers = {"Accept": "application/json"}
        self.show(token)
        self._http = urllib3.PoolManager(
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=response_seconds),
            ssl_context=ssl.create_default_context(cafile=ca_file),
        )

    def show(self, token: str) -> None:
        """Be the bearer of this token from now on."""
        self._headers["Authorization"] = f"Bearer {token}"

    def call(
        self, method: str, path: str, body: object = None, query: Mapping[str, object] | None = None
    ) -> dict[str, Any] | None:
        """Carry out a request; returns the JSON object of the answer, None where it has none. Raises ApiError."""
        target = f"{self.url}{path}?{urlencode(query)}" if query else self.url + path
        try:
            response = self._http.request(method, target, json=body, headers=self._headers)
        except (HTTPError, OSError) as error:
            raise ApiError(f"no answer from {self.url}: {_words(error)}") from None
        return self._read(response.status, response.data)

    def _read(self, status: int, data: bytes) -> dict[str, Any] | None:
        if status == 204:
            return None
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict) or (status >= 300 and "detail" not in found):
            raise ApiError(f"{self.url} is no admin API of an edge")
        if status >= 300:
            faults = [(fault["where"], fault["rule"]) for fault in found.get("errors", ())]
            raise ApiError(found["detail"], status, faults)
        return found

    def close(self) -> None:
        self._http.clear()


def is_token(text: str) -> bool:
    """Say whether this can be shown as a token."""
    return text.isascii() and text.isprintable() and bool(text)


def segment(name: object) -> str:
    """Return a name as it stands in a path."""
    return quote(str(name), safe="")


def _words(error: BaseException) -> str:
    """Return what the system said of a failure, rather than the library's account of it."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
