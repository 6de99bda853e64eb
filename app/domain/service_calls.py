"""What a service can be asked to do: the operations of databases, caches, storage and email, and what they answer.

Named tuples, because they are made for every call and a frozen dataclass takes three times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Row = Mapping[str, object]
"""A row of a database, by column."""


class Ping(NamedTuple):
    """Ask whether the service answers. Every kind understands it; answers None."""


# Databases


class Query(NamedTuple):
    """A statement that answers rows: list[dict]. Marks of parameters are the database's own: ? in SQLite, else %s."""

    sql: str
    parameters: tuple[object, ...] = ()


class Execute(NamedTuple):
    """A statement that answers how many rows it changed (0 for one that changes none)."""

    sql: str
    parameters: tuple[object, ...] = ()


class Transaction(NamedTuple):
    """Several statements, all or none. Answers a list: what each of them alone would."""

    statements: tuple[Query | Execute, ...]


# Caches


class CacheGet(NamedTuple):
    """Answers bytes, None for a key that is not there."""

    key: str


class CacheSet(NamedTuple):
    """Answers None. Without `ttl_seconds` the value stays until the cache needs the room."""

    key: str
    value: bytes
    ttl_seconds: float | None = None


class CacheDelete(NamedTuple):
    """Answers whether the key was there."""

    key: str


class CacheIncrement(NamedTuple):
    """Answers the number after adding `by`, which may be negative; an absent key counts as 0.

    memcached knows no numbers below 0: it stops there.
    """

    key: str
    by: int = 1


class CacheExpire(NamedTuple):
    """Let a key live for so long from now. Answers whether the key was there."""

    key: str
    ttl_seconds: float


# Storage


class GetObject(NamedTuple):
    """Answers bytes, None for a key that is not there."""

    key: str


class PutObject(NamedTuple):
    """Answers None."""

    key: str
    data: bytes
    content_type: str = "application/octet-stream"


class DeleteObject(NamedTuple):
    """Answers None, whether or not the key was there: S3 does not say."""

    key: str


class ListObjects(NamedTuple):
    """Answers list[ObjectInfo], by key, at most `limit`; `after` is the last key of the page before."""

    prefix: str = ""
    limit: int = 1000
    after: str = ""


class HeadObject(NamedTuple):
    """Answers ObjectInfo, None for a key that is not there."""

    key: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What storage knows of an object. `modified_at` is seconds since 1970; a listing says no content type."""

    key: str
    size_bytes: int
    etag: str
    modified_at: float
    content_type: str | None = None


# Email


class SendEmail(NamedTuple):
    """Answers a mapping of the recipients that the server refused, with its words; raises when it refused all."""

    recipients: tuple[str, ...]
    subject: str
    text: str
    html: str | None = None
    sender: str | None = None
    """None = the one of the service's settings."""
    reply_to: str | None = None
