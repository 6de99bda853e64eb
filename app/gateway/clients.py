"""The clients of services, for handlers. Each call is a message to the service's actor, with a future and a deadline.

Every call may raise ServiceDown, ServiceBusy, ServiceTimeout, or their base ServiceError if the service refused the
operation. `timeout` is in seconds, at most the service's own timeout, which is also the default.
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
"""Added to the deadline, so that the service's own timeout error arrives first."""


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
    """An SQL database. Parameter placeholders are the database's own: `?` in SQLite, `%s` in PostgreSQL and MySQL."""

    def query(self, sql: str, *parameters: object, timeout: float | None = None) -> list[dict[str, Any]]:
        """Return the rows as dicts."""
        return cast(list[dict[str, Any]], self._call(Query(sql, parameters), timeout))

    def execute(self, sql: str, *parameters: object, timeout: float | None = None) -> int:
        """Return the number of changed rows."""
        return cast(int, self._call(Execute(sql, parameters), timeout))

    def transaction(self, statements: Iterable[Query | Execute], *, timeout: float | None = None) -> list[Any]:
        """Run several statements, all or none. Returns the result of each: rows or a count."""
        return cast(list[Any], self._call(Transaction(tuple(statements)), timeout))


class Cache(_Client):
    """Keys and values that may be evicted at any time. Text is stored as UTF-8. `ttl` is in seconds, None = none."""

    def get(self, key: str, *, timeout: float | None = None) -> bytes | None:
        return cast(bytes | None, self._call(CacheGet(key), timeout))

    def set(self, key: str, value: bytes | str, ttl: float | None = None, *, timeout: float | None = None) -> None:
        data = value.encode() if isinstance(value, str) else value
        self._call(CacheSet(key, data, ttl), timeout)

    def delete(self, key: str, *, timeout: float | None = None) -> bool:
        """Return whether the key existed."""
        return cast(bool, self._call(CacheDelete(key), timeout))

    def incr(self, key: str, by: int = 1, *, timeout: float | None = None) -> int:
        """Add `by` to a number (0 if absent) and return the sum. In memcached it never falls below 0."""
        return cast(int, self._call(CacheIncrement(key, by), timeout))

    def expire(self, key: str, ttl: float, *, timeout: float | None = None) -> bool:
        """Set the time to live of a key, in seconds from now. Returns whether the key existed."""
        return cast(bool, self._call(CacheExpire(key, ttl), timeout))


class Storage(_Client):
    """Objects in a bucket."""

    def get(self, key: str, *, timeout: float | None = None) -> bytes | None:
        """Return an object, None if there is none. An object larger than max_object_bytes is refused."""
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
        """Return up to `limit` objects in key order, starting after the key `after`."""
        return cast("list[ObjectInfo]", self._call(ListObjects(prefix, limit, after), timeout))

    def head(self, key: str, *, timeout: float | None = None) -> ObjectInfo | None:
        """Return an object's size and other metadata, None if there is none."""
        return cast(ObjectInfo | None, self._call(HeadObject(key), timeout))


class Email(_Client):
    """Sends mail through a mail server."""

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
        """Send a mail. Returns the refused recipients with the server's reasons. Raises if all are refused."""
        recipients = (to,) if isinstance(to, str) else tuple(to)
        mail = SendEmail(recipients, subject, text, html, sender, reply_to)
        return cast(Mapping[str, str], self._call(mail, timeout))


CLIENTS: Final[Mapping[str, type[_Client]]] = {
    "database": Database, "cache": Cache, "storage": Storage, "email": Email,
}  # fmt: skip
"""By kind of service; each is made of name, address and timeout in seconds."""


class ServiceClients:
    """The clients of all services, by kind and name.

    `find(kind, name)` returns the actor's address and the current settings, or raises NoSuchService.
    """

    def __init__(self, find: Callable[[str, str], tuple[Address, ServiceSpec]]) -> None:
        self._find = find

    def get(self, kind: str, name: str) -> Any:
        """Return the client of a service, whether it is up or down. Raises NoSuchService."""
        address, spec = self._find(kind, name)
        return CLIENTS[kind](name, address, spec.timeout_seconds)
