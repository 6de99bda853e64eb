"""A connection to Redis, through redis-py, without its retries: the pool of the service retries."""

from __future__ import annotations

import math
import socket
import ssl
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.domain.service_calls import CacheDelete, CacheExpire, CacheGet, CacheIncrement, CacheSet, Ping
from app.domain.service_errors import ConnectionLost, OperationRefused
from app.domain.services import ServiceSpec
from app.outbound.service_socket import open_socket
from app.outbound.stale_socket import StaleSocket
from app.outbound.tls_context import tls_context


class _Connection(redis.Connection):
    """Connects with open_socket, because redis-py leaves the socket of a failed attempt open."""

    def __init__(self, context: ssl.SSLContext | None, **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def _connect(self) -> socket.socket:
        sock = open_socket(self.host, self.port, self.socket_connect_timeout or 0.0)
        return sock if self._context is None else self._context.wrap_socket(sock, server_hostname=self.host)


class RedisConnection:
    """A ServiceConnection. Has no timeout of its own; a gevent.Timeout of the caller interrupts it."""

    def __init__(self, spec: ServiceSpec) -> None:
        """Connect and check that the server responds. Raises ConnectionLost."""
        settings = spec.settings
        self._connection: Any = _Connection(
            tls_context(settings["tls"]),
            host=settings["host"],
            port=settings["port"],
            db=settings["database"],
            username=settings["user"],
            password=spec.secret("password"),
            socket_timeout=None,
            socket_connect_timeout=spec.connect_timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            self._connection.connect()
            self._execute("PING")
        except BaseException as error:
            self.close()
            if isinstance(error, redis.RedisError | OSError):
                raise ConnectionLost(str(error)) from None
            raise
        self._end = StaleSocket(_descriptor(self._connection))

    def call(self, operation: object) -> object:
        try:
            return self._carry_out(operation)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise ConnectionLost(str(error)) from None
        except redis.RedisError as error:
            raise OperationRefused(str(error)) from None

    def _carry_out(self, operation: object) -> object:
        match operation:
            case CacheGet(key):
                return self._execute("GET", key)
            case CacheSet(key, value, None):
                self._execute("SET", key, value)
                return None
            case CacheSet(key, value, ttl_seconds):
                self._execute("SET", key, value, "PX", _milliseconds(ttl_seconds))
                return None
            case CacheDelete(key):
                return self._execute("DEL", key) == 1
            case CacheIncrement(key, by):
                return self._execute("INCRBY", key, by)
            case CacheExpire(key, ttl_seconds):
                return self._execute("PEXPIRE", key, _milliseconds(ttl_seconds)) == 1
            case Ping():
                self._execute("PING")
                return None
        raise OperationRefused(f"a cache does not support {type(operation).__name__}")

    def _execute(self, *command: object) -> Any:
        self._connection.send_command(*command)
        return self._connection.read_response()

    def is_stale(self) -> bool:
        return self._connection._sock is None or bool(self._end)

    def close(self) -> None:
        self._connection.disconnect()


def _descriptor(connection: Any) -> int:
    return int(connection._sock.fileno())


def _milliseconds(seconds: float | None) -> int:
    return max(1, math.ceil((seconds or 0.0) * 1000))
