"""Maps engines to adapters. An adapter's library is imported by the first service that needs it, as some are large."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Final

from app.domain.services import ServiceSpec
from app.ports import ServiceConnection

_ADAPTERS: Final = {
    "sqlite": ("peewee_database", "SqliteConnection"),
    "postgresql": ("peewee_database", "PostgresqlConnection"),
    "mysql": ("peewee_database", "MysqlConnection"),
    "redis": ("redis_cache", "RedisConnection"),
    "memcached": ("memcached_cache", "MemcachedConnection"),
    "s3": ("s3_storage", "S3Connection"),
    "smtp": ("smtp_email", "SmtpConnection"),
}


def connector(spec: ServiceSpec) -> Callable[[], ServiceConnection]:
    """Return a function that opens a connection to a service. The function raises ConnectionLost."""
    module, name = _ADAPTERS[spec.engine]
    adapter = getattr(import_module(f"{__package__}.{module}"), name)
    return partial(adapter, spec)
