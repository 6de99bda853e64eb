"""A connection to memcached, through pymemcache."""

from __future__ import annotations

import math
import time
from typing import Final

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError

from app.domain.service_calls import CacheDelete, CacheExpire, CacheGet, CacheIncrement, CacheSet, Ping
from app.domain.service_errors import ConnectionLost, OperationRefused
from app.domain.services import ServiceSpec
from app.outbound.stale_socket import StaleSocket

_MAX_RELATIVE_SECONDS: Final = 30 * 24 * 3600
"""memcached reads a longer time as Unix seconds."""
_ATTEMPTS: Final = 10
"""Attempts to increment a key that others delete and create meanwhile."""


class MemcachedConnection:
    """A ServiceConnection. Has no timeout of its own; a gevent.Timeout of the caller interrupts it."""

    def __init__(self, spec: ServiceSpec) -> None:
        """Connect and check that the server responds. Raises ConnectionLost."""
        self._client = Client(
            (spec.settings["host"], spec.settings["port"]),
            connect_timeout=spec.connect_timeout_seconds,
            timeout=None,
            no_delay=True,  # without it a response takes 40 ms: small writes wait for ACKs
            default_noreply=False,
            allow_unicode_keys=True,
        )
        try:
            self._client.version()
        except BaseException as error:
            self.close()
            if isinstance(error, MemcacheError | OSError):
                raise ConnectionLost(str(error) or repr(error)) from None
            raise
        self._end = StaleSocket(self._client.sock.fileno())

    def call(self, operation: object) -> object:
        try:
            return self._carry_out(operation)
        except (MemcacheUnexpectedCloseError, OSError) as error:
            raise ConnectionLost(str(error) or repr(error)) from None
        except MemcacheError as error:
            raise OperationRefused(_reason(error)) from None

    def _carry_out(self, operation: object) -> object:
        match operation:
            case CacheGet(key):
                return self._client.get(key)
            case CacheSet(key, value, ttl_seconds):
                self._client.set(key, value, 0 if ttl_seconds is None else _expiry(ttl_seconds))
                return None
            case CacheDelete(key):
                return self._client.delete(key)
            case CacheIncrement(key, by):
                return self._increment(key, by)
            case CacheExpire(key, ttl_seconds):
                return self._client.touch(key, _expiry(ttl_seconds))
            case Ping():
                self._client.version()
                return None
        raise OperationRefused(f"a cache does not support {type(operation).__name__}")

    def _increment(self, key: str, by: int) -> int:
        """Increment a key, creating it if absent, which memcached's incr does not do."""
        for _ in range(_ATTEMPTS):
            number = self._client.incr(key, by) if by >= 0 else self._client.decr(key, -by)
            if number is not None:
                return int(number)
            if self._client.add(key, b"%d" % max(0, by)):
                return max(0, by)
        raise OperationRefused(f"{key} is being created and deleted concurrently: try again")

    def is_stale(self) -> bool:
        return self._client.sock is None or bool(self._end)

    def close(self) -> None:
        self._client.close()


def _expiry(ttl_seconds: float) -> int:
    """Return the expiry as memcached reads it: whole seconds, rounded up."""
    seconds = max(1, math.ceil(ttl_seconds))
    return seconds if seconds <= _MAX_RELATIVE_SECONDS else math.ceil(time.time()) + seconds


def _reason(error: MemcacheError) -> str:
    first = error.args[0] if error.args else repr(error)
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)
