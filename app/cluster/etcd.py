"""A client of etcd's v3 JSON gateway over HTTP, with failover between endpoints.

A call goes to the endpoint that responded last. If that is silent, unreachable or without a leader, the call moves to
the next one, until its time limit. Writes are conditional (see `write`), so a write that is sent twice, or executed
late by a frozen server, does no harm.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import gevent
import msgspec
import urllib3

from app.cluster.etcd_errors import (
    Compacted,
    EtcdError,
    EtcdUnavailable,
    Silence,
    refusal,
    unavailable,
)
from app.cluster.etcd_responses import (
    AllRead,
    Fault,
    KeptAlive,
    KeyValue,
    Lease,
    Put,
    Range,
    StreamLine,
    Token,
    WatchMessage,
    Written,
)

T = TypeVar("T")

CONNECT_SECONDS: Final = 1.0
RESPONSE_SECONDS: Final = 2.0
"""Time limit for a response of one endpoint, before the next one is tried."""
CALL_SECONDS: Final = 5.0
"""Time limit of a call, over all endpoints."""
ROUND_PAUSE_SECONDS: Final = 0.1
"""Pause after all endpoints have failed. Electing a leader takes about 1 s."""
PAGE_KEYS: Final = 1000
"""Keys per request when reading a snapshot."""
MAX_CONNECTIONS: Final = 64
"""Persistent connections per endpoint: as many as there may be concurrent requests."""
MAX_KEYS: Final = 100
"""Keys per transaction. etcd's default limit is 128."""

_POOL: Final = re.compile(r"^(<[^>]*>|\w+\(host=[^)]*\)): ")
_UNAUTHENTICATED: Final = 16
"""Code in gRPC."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password for etcd."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ***)"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys under a prefix at one revision."""

    cluster_id: int
    revision: int
    items: list[KeyValue]


class EtcdClient:
    """A client for one etcd cluster. Calls block the greenlet, not the event loop; greenlets may call concurrently."""

    def __init__(
        self, endpoints: Sequence[str], credentials: Credentials | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """`endpoints` are URLs without a path; `tls` verifies those that begin with https."""
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._current = 0
        self._credentials = credentials
        self._token: str | None = None
        self._pool = urllib3.PoolManager(
            num_pools=len(endpoints), maxsize=MAX_CONNECTIONS, retries=False, ssl_context=tls
        )

    @property
    def endpoint(self) -> str:
        """The endpoint that is tried first."""
        return self._endpoints[self._current]

    def fail_over(self, endpoint: str) -> None:
        """Try the next endpoint first from now on, unless `endpoint` is no longer the first."""
        if endpoint == self.endpoint:
            self._current = (self._current + 1) % len(self._endpoints)

    # Keys

    def get(self, keys: Iterable[str]) -> dict[str, KeyValue | None]:
        """Read up to MAX_KEYS keys, linearizably and at one revision; None for absent keys."""
        wanted = list(keys)
        reads = [{"request_range": {"key": _raw(key)}} for key in wanted]
        found = [one.response_range.kvs for one in self._call("/v3/kv/txn", {"success": reads}, AllRead).responses]
        return {key: kvs[0] if kvs else None for key, kvs in zip(wanted, found, strict=True)}

    def snapshot(self, prefix: str) -> Snapshot:
        """Read all keys under a prefix, linearizably and at one revision."""
        start, end = prefix.encode(), prefix_end(prefix)
        body: dict[str, Any] = {"key": start, "range_end": end, "limit": PAGE_KEYS}
        page = self._call("/v3/kv/range", body, Range)
        header, items = page.header, page.kvs
        while page.more:
            body |= {"key": items[-1].key + b"\0", "revision": header.revision}
            page = self._call("/v3/kv/range", body, Range)
            items += page.kvs
        return Snapshot(header.cluster_id, header.revision, items)

    def write(
        self, expected: Mapping[str, int], puts: Iterable[tuple[str, bytes, int]] = (), deletions: Iterable[str] = ()
    ) -> int | None:
        """Put (key, value, lease) and delete, all or none, if each key has the expected mod_revision (0: absent).

        At most MAX_KEYS keys. Returns the revision of the write, or None if a key was not as expected. That is also the
        case if this write was executed but its response was lost, so read again before concluding that another client
        changed the key.
        """
        compare = [
            {"key": _raw(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision}
            for key, revision in expected.items()
        ]
        success: list[dict[str, Any]] = [
            {"request_put": {"key": _raw(key), "value": value, "lease": lease}} for key, value, lease in puts
        ]
        success += [{"request_delete_range": {"key": _raw(key)}} for key in deletions]
        done = self._call("/v3/kv/txn", {"compare": compare, "success": success}, Written)
        return done.header.revision if done.succeeded else None

    def put(self, key: str, value: bytes) -> None:
        """Put a key unconditionally."""
        self._call("/v3/kv/put", {"key": key.encode(), "value": value}, Put)

    # Leases

    def grant(self, ttl_seconds: int) -> tuple[int, int]:
        """Grant a lease. Returns its id and its TTL in seconds, which may be longer than requested."""
        lease = self._call("/v3/lease/grant", {"TTL": ttl_seconds}, Lease)
        return lease.ID, lease.TTL

    def keep_alive(self, lease: int) -> int:
        """Renew a lease. Returns its TTL in seconds, 0 or less if it no longer exists."""
        return self._call("/v3/lease/keepalive", {"ID": lease}, KeptAlive).result.TTL

    def revoke(self, lease: int) -> None:
        """Revoke a lease, which deletes its keys."""
        self._call("/v3/lease/revoke", {"ID": lease}, Lease)

    # Watching

    @contextmanager
    def watch(self, prefix: str, revision: int, silence_seconds: float) -> Generator[Iterator[WatchMessage]]:
        """Watch the keys under a prefix from a revision on, at the endpoint that is tried first.

        The iterator raises Silence if nothing arrives for `silence_seconds`, Compacted if the revision was compacted,
        and what every call raises.
        """
        endpoint = self.endpoint
        body = {"key": prefix.encode(), "range_end": prefix_end(prefix), "start_revision": revision}
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=silence_seconds)
        try:
            response = self._send(endpoint, "/v3/watch", {"create_request": body}, timeout, is_stream=True)
        except EtcdUnavailable:
            self.fail_over(endpoint)
            raise
        try:
            yield self._messages(endpoint, response)
        finally:
            response.close()

    def _messages(self, endpoint: str, response: urllib3.BaseHTTPResponse) -> Iterator[WatchMessage]:
        try:
            for line in _lines(response):
                parsed = _decoded(endpoint, line, StreamLine)
                if parsed.result is None:
                    text = parsed.error.message if parsed.error is not None else "no result"
                    raise EtcdUnavailable(f"{endpoint}: {text}")
                message = parsed.result
                if message.compact_revision:
                    raise Compacted(f"{endpoint}: compacted at {message.compact_revision}")
                if message.canceled:
                    raise self._cancelled(endpoint, message.cancel_reason)
                yield message
            raise EtcdUnavailable(f"{endpoint}: the watch ended")
        except urllib3.exceptions.HTTPError as error:
            self.fail_over(endpoint)
            kind = Silence if isinstance(error, urllib3.exceptions.ReadTimeoutError) else EtcdUnavailable
            raise kind(f"{endpoint}: {_message(error)}") from None
        except EtcdUnavailable:
            self.fail_over(endpoint)
            raise

    def _cancelled(self, endpoint: str, reason: str) -> EtcdError:
        """Return the error for a watch that etcd cancelled. An expired token is reported only in this way."""
        is_about_token = self._token is not None and "auth token" in reason
        self._token = None if is_about_token else self._token
        if is_about_token:
            return EtcdUnavailable(f"{endpoint}: {reason}")
        return refusal(endpoint, 400, reason or "the watch was cancelled")

    # Sending

    def _call(self, path: str, body: object, response: type[T]) -> T:
        """Try the endpoints in turn until one responds. Raises EtcdUnavailable, EtcdRefused, Compacted."""
        give_up_at = time.monotonic() + CALL_SECONDS
        failures, may_have_happened = 0, False
        while True:
            endpoint = self.endpoint
            try:
                return self._attempt(endpoint, path, body, response, give_up_at)
            except EtcdError as error:
                error.may_have_happened = may_have_happened = may_have_happened or error.may_have_happened
                if not isinstance(error, EtcdUnavailable):
                    raise
                failures += 1
                self.fail_over(endpoint)
                if failures % len(self._endpoints) == 0:
                    gevent.sleep(ROUND_PAUSE_SECONDS)
                if time.monotonic() >= give_up_at:
                    raise

    def _attempt(self, endpoint: str, path: str, body: object, response: type[T], give_up_at: float) -> T:
        left = max(0.1, give_up_at - time.monotonic())
        timeout = urllib3.Timeout(connect=min(CONNECT_SECONDS, left), read=min(RESPONSE_SECONDS, left))
        return _decoded(endpoint, self._send(endpoint, path, body, timeout).data, response)

    def _send(
        self, endpoint: str, path: str, body: object, timeout: urllib3.Timeout, *, is_stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        """Send a request with a token, renewed if it is no longer valid. Returns a response with status 200."""
        for is_last in (False, True):
            if self._credentials is not None and self._token is None:
                self._token = self._authenticate(endpoint, self._credentials, timeout)
            response = self._post(endpoint, path, body, timeout, is_stream)
            if response.status == 200:
                return response
            fault = _fault(response)
            if self._credentials is not None and not is_last and _is_about_token(fault):
                self._token = None
                continue
            raise refusal(endpoint, response.status, fault.error or fault.message)
        raise AssertionError("unreachable")

    def _authenticate(self, endpoint: str, credentials: Credentials, timeout: urllib3.Timeout) -> str:
        body = {"name": credentials.user, "password": credentials.password}
        response = self._post(endpoint, "/v3/auth/authenticate", body, timeout, False)
        if response.status == 200:
            return _decoded(endpoint, response.data, Token).token
        fault = _fault(response)
        error = refusal(endpoint, response.status, fault.error or fault.message)
        error.may_have_happened = False  # the request itself was not sent
        raise error

    def _post(
        self, endpoint: str, path: str, body: object, timeout: urllib3.Timeout, is_stream: bool
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = self._token
        try:
            return self._pool.request(
                "POST",
                endpoint + path,
                body=msgspec.json.encode(body),
                headers=headers,
                timeout=timeout,
                preload_content=not is_stream,
            )
        except urllib3.exceptions.HTTPError as error:
            raise unavailable(endpoint, _message(error), error) from None


def _raw(key: str) -> bytes:
    """Return a key as etcd has it. Bytes that are not UTF-8 are lone surrogates in the text (PEP 383)."""
    return key.encode(errors="surrogateescape")


def prefix_end(prefix: str) -> bytes:
    """Return the first key after all that begin with a prefix."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


def _decoded(endpoint: str, data: bytes, kind: type[T]) -> T:
    """Decode a response, in which 64-bit numbers are strings. Raises EtcdUnavailable if it is not etcd's."""
    try:
        return msgspec.json.decode(data, type=kind, strict=False)
    except msgspec.MsgspecError as error:
        raise EtcdUnavailable(f"{endpoint}: not a response of etcd: {error}", may_have_happened=True) from None


def _fault(response: urllib3.BaseHTTPResponse) -> Fault:
    try:
        return msgspec.json.decode(response.data, type=Fault, strict=False)
    except (msgspec.MsgspecError, urllib3.exceptions.HTTPError):
        return Fault()


def _is_about_token(fault: Fault) -> bool:
    """Return whether a token is the problem. It expires unused after 5 minutes, at a restart, and when users change."""
    return fault.code == _UNAUTHENTICATED or "auth store is old" in fault.error or "user name is empty" in fault.error


def _message(error: Exception) -> str:
    """Return urllib3's error message without the repr of the pool before it."""
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError) and len(error.args) > 1:
        return str(error.args[1])
    return _POOL.sub("", str(error)) or type(error).__name__


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.read_chunked():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
