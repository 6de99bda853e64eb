"""What a handler holds of a service: small typed clients whose every call is a message with a future and a deadline.

Each call may raise ServiceDown, ServiceBusy, ServiceTimeout, or the ServiceError that they are kinds of, when the
service refused. `timeout` is in seconds; None is the service's own, which also bounds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from actors.runtime import Address, AskTimeoutError, InvariantBrokenError, ask
from actors.services.messages import CallService
from app.domain.service_calls import (
    CacheDelete,
    CacheExpire,
    CacheGet,
    CacheIncrement,
    CacheSet,
    DeleteObject,
    Execute,
    GetObject,
    HeadObject,
    ListObjects,
    ObjectInfo,
    PutObject,
    Query,
    SendEmail,
    Transaction,
)
from app.domain.service_errors import ServiceBusy, ServiceDown, ServiceError, ServiceTimeout
from app.domain.services import ServiceSpec

__all__ = [
    "CLIENTS", "Cache", "Database", "Email", "Execute", "ObjectInfo", "Query", "ServiceBusy", "ServiceClients",
    "ServiceDown", "ServiceError", "ServiceTimeout", "Storage",
]  # fmt: skip

_GRACE_SECONDS: Final = 0.5
"""Over the deadline, for the service's own words about it to arrive."""


class _Client:
    def __init__(self, name: str, address: Address, timeout_seconds: float) -> None:
        self._name = name
        self._address = address
        self._timeout_seconds = timeout_seconds

    def _call(self, operation: object, timeout: float | None) -> Any:
        seconds = self._timeout_seconds if timeout is None else min(timeout, self._timeout_seconds)
        message = CallService(operation, time.monotonic() + seconds)
        try:
            return ask(self._address, message, timeout_s=seconds + _GRACE_SECONDS)
        except AskTimeoutError as error:
            raise ServiceTimeout(self._name, str(error), may_have_happened=True) from None
        except InvariantBrokenError as error:
            raise ServiceDown(self._name, str(error), may_have_happened=True) from None


class Database(_Client):
    """An SQL database. Marks of parameters are its own: `?` in SQLite, `%s` in PostgreSQL and MySQL."""

    def query(self, sql: str, *parameters: object, timeout: float | None = None) -> list[dict[str, Any]]:
        """Return the rows as dicts."""
        return cast(list[dict[str, Any]], self._call(Query(sql, parameters), timeout))

    def execute(self, sql: str, *parameters: object, timeout: float | None = None) -> int:
        """Return how many rows were changed."""
        return cast(int, self._call(Execute(sql, parameters), timeout))

    def transaction(self, statements: Iterable[Query | Execute], *, timeout: float | None = None) -> list[Any]:
        """Run several statements, all or none; returns what each of them alone would: rows or a count."""
        return cast(list[Any], self._call(Transaction(tuple(statements)), timeout))


class Cache(_Client):
    """Keys and values that may vanish at any time. A text is stored as UTF-8; `ttl` is in seconds, None = for good."""

    def get(self, key: str, *, timeout: float | None = None) -> bytes | None:
        return cast(bytes | None, self._call(CacheGet(key), timeout))

    def set(self, key: str, value: bytes | str, ttl: float | None = None, *, timeout: float | None = None) -> None:
        data = value.encode() if isinstance(value, str) else value
        self._call(CacheSet(key, data, ttl), timeout)

    def delete(self, key: str, *, timeout: float | None = None) -> bool:
        """Say whether the key was there."""
        return cast(bool, self._call(CacheDelete(key), timeout))

    def incr(self, key: str, by: int = 1, *, timeout: float | None = None) -> int:
        """Add to a number, 0 when absent, and return it. memcached's never falls below 0."""
        return cast(int, self._call(CacheIncrement(key, by), timeout))

    def expire(self, key: str, ttl: float, *, timeout: float | None = None) -> bool:
        """Let a key live for so long from now; say whether it was there."""
        return cast(bool, self._call(CacheExpire(key, ttl), timeout))


class Storage(_Client):
    """Objects in a bucket."""

    def get(self, key: str, *, timeout: float | None = None) -> bytes | None:
        """Return an object whole, None when there is none. One over max_object_bytes is refused."""
        return cast(bytes | None, self._call(GetObject(key), timeout))

    def put(
        self,
        key: str,
        data: bytes | str,
        content_type: str = "application/octet-stream",
        *,
        timeout: float | None = None,
    ) -> None:
        self._call(PutObject(key, data.encode() if isinstance(data, str) else data, content_type), timeout)

    def delete(self, key: str, *, timeout: float | None = None) -> None:
        self._call(DeleteObject(key), timeout)

    def list(
        self, prefix: str = "", *, limit: int = 1000, after: str = "", timeout: float | None = None
    ) -> list[ObjectInfo]:
        """Return a page by key; the next one begins after the last key of this one."""
        return cast("list[ObjectInfo]", self._call(ListObjects(prefix, limit, after), timeout))

    def head(self, key: str, *, timeout: float | None = None) -> ObjectInfo | None:
        """Return what is known of an object, None when there is none."""
        return cast(ObjectInfo | None, self._call(HeadObject(key), timeout))


class Email(_Client):
    """Mail on its way to a server that delivers it."""

    def send(
        self,
        to: str | Iterable[str],
        subject: str,
        text: str,
        html: str | None = None,
        *,
        sender: str | None = None,
        reply_to: str | None = None,
        timeout: float | None = None,
    ) -> Mapping[str, str]:
        """Hand a mail over; returns the recipients that the server refused, with its words. All refused: an error."""
        recipients = (to,) if isinstance(to, str) else tuple(to)
        mail = SendEmail(recipients, subject, text, html, sender, reply_to)
        return cast(Mapping[str, str], self._call(mail, timeout))


CLIENTS: Final[Mapping[str, type[_Client]]] = {
    "database": Database, "cache": Cache, "storage": Storage, "email": Email,
}  # fmt: skip
"""By kind of service; each is made of name, address and timeout in seconds."""


class ServiceClients:
    """The clients of all services, by kind and name.

    `find` returns whom to ask and the settings of the moment; it raises NoSuchService.
    """

    def __init__(self, find: Callable[[str, str], tuple[Address, ServiceSpec]]) -> None:
        self._find = find

    def get(self, kind: str, name: str) -> Any:
        """Return the client of a service, whatever state that is in. Raises NoSuchService."""
        address, spec = self._find(kind, name)
        return CLIENTS[kind](name, address, spec.timeout_seconds)
