"""The operations of services (databases, caches, storage, email) and their results.

They are named tuples, because one is made for every call and a frozen dataclass takes three times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Row = Mapping[str, object]
"""A row of a database, by column."""


class Ping(NamedTuple):
    """Check that the service responds. Every kind supports it. Returns None."""


# Databases


class Query(NamedTuple):
    """A statement that returns rows: list[dict]. Placeholders are the database's own: ? in SQLite, else %s."""

    sql: str
    parameters: tuple[object, ...] = ()


class Execute(NamedTuple):
    """A statement that returns the number of rows it changed (0 if it changes none)."""

    sql: str
    parameters: tuple[object, ...] = ()


class Transaction(NamedTuple):
    """Several statements, all or none. Returns the list of their results."""

    statements: tuple[Query | Execute, ...]


# Caches


class CacheGet(NamedTuple):
    """Returns bytes, None if the key does not exist."""

    key: str


class CacheSet(NamedTuple):
    """Returns None. Without `ttl_seconds` the value stays until the cache needs the space."""

    key: str
    value: bytes
    ttl_seconds: float | None = None


class CacheDelete(NamedTuple):
    """Returns whether the key existed."""

    key: str


class CacheIncrement(NamedTuple):
    """Returns the number after adding `by`, which may be negative; an absent key counts as 0.

    memcached has no numbers below 0: it stops there.
    """

    key: str
    by: int = 1


class CacheExpire(NamedTuple):
    """Expire a key `ttl_seconds` from now. Returns whether the key existed."""

    key: str
    ttl_seconds: float


# Storage


class GetObject(NamedTuple):
    """Returns bytes, None if the key does not exist."""

    key: str


class PutObject(NamedTuple):
    """Returns None."""

    key: str
    data: bytes
    content_type: str = "application/octet-stream"


class DeleteObject(NamedTuple):
    """Returns None, whether or not the key existed: S3 does not tell."""

    key: str


class ListObjects(NamedTuple):
    """Returns list[ObjectInfo], sorted by key, at most `limit`; `after` is the last key of the previous page."""

    prefix: str = ""
    limit: int = 1000
    after: str = ""


class HeadObject(NamedTuple):
    """Returns ObjectInfo, None if the key does not exist."""

    key: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The metadata of an object. `modified_at` is Unix seconds; a listing has no content type."""

    key: str
    size_bytes: int
    etag: str
    modified_at: float
    content_type: str | None = None


# Email


class SendEmail(NamedTuple):
    """Returns the refused recipients with the server's reason for each; raises if it refused all."""

    recipients: tuple[str, ...]
    subject: str
    text: str
    html: str | None = None
    sender: str | None = None
    """None = the sender in the service's settings."""
    reply_to: str | None = None
