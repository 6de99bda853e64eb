"""The connections of one service, each with its own greenlet, and their bounded backlog.

A call carries its future and its deadline. A failed connection is replaced, with back-off. If there is no connection
and none can be opened, the service is down: calls fail at once with the reason, and one greenlet retries for all.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.hub import Waiter, get_hub
from gevent.lock import BoundedSemaphore
from loguru import logger

from actors.runtime import GeventFuture
from app.domain.service_calls import Ping
from app.domain.service_errors import (
    ConnectionLost,
    OperationRefused,
    ServiceBusy,
    ServiceDown,
    ServiceError,
    ServiceTimeout,
)
from app.domain.services import ServiceCounts, ServiceSpec
from app.domain.words import counted
from app.ports import ServiceConnection

FIRST_BACKOFF_SECONDS: Final = 0.1
"""Delay after the first failure to connect; doubles with each further one."""
LONGEST_BACKOFF_SECONDS: Final = 5.0
JITTER: Final = 0.2
"""Fraction of the back-off, either way: edges that lost the same server must not reconnect in step."""
IDLE_SECONDS: Final = 1.0
"""Interval between checks whether the service has closed an idle connection."""
CLOSE_SECONDS: Final = 1.0
"""Limit for closing one connection."""
MOST_UNANSWERED: Final = 3
"""Calls that time out in a row, none of any caller between them with a response, until the service counts as down."""


class _Call:
    """An operation with its deadline and future."""

    __slots__ = ("deadline", "future", "operation")

    def __init__(self, operation: object, deadline: float) -> None:
        self.operation = operation
        self.deadline = deadline
        self.future: GeventFuture[Any] = GeventFuture()

    def fail(self, error: ServiceError) -> None:
        self.future.set_exception((type(error), error, None))


class ServicePool:
    """Runs calls on a service's connections. `connect` opens one or raises ConnectionLost; the caller limits its time.

    It does nothing before `start`. It survives a restart of the service's actor.
    """

    def __init__(self, spec: ServiceSpec, connect: Callable[[], ServiceConnection]) -> None:
        self.spec = spec
        self._name = spec.name
        self._connect = connect
        self._timeout_seconds = spec.timeout_seconds
        self._capacity = spec.connections + spec.backlog
        self._waiting: deque[_Call] = deque()
        self._idle: list[Any] = []
        """Waiters of the greenlets that have a connection and no call. The last one is used first: its connection, and
        the process behind it, are still warm, which saves 15 µs of a small PostgreSQL query."""
        self._workers: list[gevent.Greenlet] = []
        self._retrying = BoundedSemaphore(1)
        self._is_known = Event()
        self._is_idle = Event()
        self._is_idle.set()
        self._closed = False
        self._down: str | None = None
        """Why the service is down; None while it is up or not yet known."""
        self._failures = 0
        """Failed attempts to connect since the service went down; the first attempts of all greenlets count as one."""
        self._pending = 0
        """Calls accepted and not yet completed."""
        self._connected = self._in_use = 0
        self._served = self._errors = self._timeouts = self._busy = self._lost = self._opened = 0
        self._lost_last = ""
        """Why the server was lost last; empty once it has been heard of since."""
        self._unanswered = 0
        """Calls that timed out since the last response."""

    def start(self) -> None:
        """Start connecting, without waiting."""
        self._workers = [gevent.spawn(self._work_forever) for _ in range(self.spec.connections)]
        self._workers.append(gevent.spawn(self._wake_the_idle))

    def wait(self, timeout_s: float) -> str | None:
        """Wait until the service is known to be up or down. Returns the reason if it is down, None if it is up."""
        if not self._is_known.wait(timeout_s):
            return f"no connection within {timeout_s:g} s"
        return self._down

    def submit(self, operation: object, deadline: float) -> GeventFuture[Any]:
        """Queue a call and return its future, which gets the result or a ServiceError. Never waits."""
        call = _Call(operation, min(deadline, time.monotonic() + self._timeout_seconds))
        if self._down is not None or self._closed:
            self._lost += 1
            call.fail(ServiceDown(self._name, self._down or "it is being closed"))
        elif self._pending >= self._capacity:
            self._busy += 1
            call.fail(
                ServiceBusy(self._name, f"its {counted(self.spec.connections, 'connection')} and the backlog are full")
            )
        else:
            self._pending += 1
            self._is_idle.clear()
            self._waiting.append(call)
            if self._idle:
                get_hub().loop.run_callback(self._idle.pop().switch, None)
        return call.future

    def test(self) -> float:
        """Open a separate connection and ping. Returns the seconds that took. Raises ServiceDown."""
        began = time.monotonic()
        timeout = gevent.Timeout(self.spec.connect_timeout_seconds + self._timeout_seconds)
        timeout.start()
        connection = None
        try:
            connection = self._connect()
            connection.call(Ping())
        except gevent.Timeout as expired:
            if expired is not timeout:
                raise
            raise ServiceDown(self._name, f"no response within {timeout.seconds:g} s") from None
        except (ConnectionLost, OperationRefused) as error:
            raise ServiceDown(self._name, str(error)) from None
        except Exception as error:
            logger.exception("service {}: its test failed unexpectedly", self._name)
            raise ServiceDown(self._name, f"the test failed unexpectedly: {error!r}") from None
        finally:
            timeout.close()
            if connection is not None:
                self._close_connection(connection)
        self._heard()
        return time.monotonic() - began

    def _heard(self) -> None:
        """Note that the server has responded."""
        self._lost_last, self._unanswered = "", 0

    def counts(self) -> ServiceCounts:
        return ServiceCounts(
            is_up=self._down is None and self._connected > 0 and not self._lost_last,
            reason=self._down or self._lost_last or ("" if self._connected else "not connected yet"),
            connected=self._connected,
            in_use=self._in_use,
            depth=self._pending - self._in_use,
            served=self._served,
            errors=self._errors,
            timeouts=self._timeouts,
            busy=self._busy,
            down=self._lost,
            opened=self._opened,
        )

    def close(self, within_seconds: float) -> None:
        """Refuse new calls, wait up to `within_seconds` for accepted ones, close the connections. May be repeated."""
        self._closed = True
        self._is_idle.wait(within_seconds)
        gevent.killall(self._workers, timeout=CLOSE_SECONDS * 2)
        self._fail_waiting("it is being closed")

    # The greenlet of one connection

    def _work_forever(self) -> None:
        while True:
            try:
                self._work()
            except Exception:
                logger.exception("a greenlet of service {} failed unexpectedly and is restarted", self._name)
                gevent.sleep(FIRST_BACKOFF_SECONDS)

    def _work(self) -> None:
        connection: ServiceConnection | None = None
        try:
            while True:
                if connection is None:
                    connection = self._open_with_retries()
                call = self._next_call()
                if call is None:
                    connection = self._dropped(connection) if connection.is_stale() else connection
                    continue
                self._in_use += 1
                try:
                    connection = self._run(connection, call)
                finally:
                    self._in_use -= 1
                    self._pending -= 1
                    if self._pending == 0:
                        self._is_idle.set()
        finally:
            if connection is not None:
                self._discard(connection)

    def _next_call(self) -> _Call | None:
        """Wait for a call. Returns None if woken without one."""
        if not self._waiting:
            waiter = Waiter()
            self._idle.append(waiter)
            try:
                waiter.get()
            except BaseException:  # killed
                if waiter in self._idle:
                    self._idle.remove(waiter)
                raise
        return self._waiting.popleft() if self._waiting else None

    def _wake_the_idle(self) -> None:
        """Wake the idle greenlets every IDLE_SECONDS, so that they check their connections."""
        while True:
            gevent.sleep(IDLE_SECONDS)
            idle, self._idle = self._idle, []
            for waiter in idle:
                get_hub().loop.run_callback(waiter.switch, None)

    def _run(self, connection: ServiceConnection, call: _Call) -> ServiceConnection | None:
        """Run a call. Returns the connection for the next one, None if a new one must be opened."""
        remaining = call.deadline - time.monotonic()
        if remaining <= 0:
            self._timeouts += 1
            call.fail(ServiceTimeout(self._name, "the deadline passed before a connection was free"))
            return connection
        usable: ServiceConnection | None = connection
        timeout = gevent.Timeout(remaining)
        timeout.start()
        try:
            if connection.is_stale():
                usable = None
                connection = usable = self._reopen(connection)
            result = connection.call(call.operation)
        except gevent.Timeout:
            self._timeouts += 1
            self._unanswered += 1
            if self._unanswered >= MOST_UNANSWERED:
                self._lost_last = f"no response to the last {self._unanswered} calls"
            began = usable is not None
            call.fail(
                ServiceTimeout(self._name, f"no response within {round(remaining, 2):g} s", may_have_happened=began)
            )
            usable = self._dropped(usable)
        except OperationRefused as error:
            self._errors += 1
            self._heard()
            call.fail(ServiceError(self._name, str(error)))
        except ConnectionLost as error:
            self._lost += 1
            self._lost_last = str(error)
            call.fail(ServiceDown(self._name, str(error), may_have_happened=usable is not None))
            usable = self._dropped(usable)
        except Exception as error:
            logger.exception("service {}: {} failed unexpectedly", self._name, type(call.operation).__name__)
            self._errors += 1
            call.fail(ServiceError(self._name, f"{type(call.operation).__name__} failed unexpectedly: {error!r}"))
            usable = self._dropped(usable)
        except BaseException:  # killed: the pool is closing
            call.fail(ServiceDown(self._name, "it was closed", may_have_happened=usable is not None))
            self._dropped(usable)
            raise
        else:
            self._served += 1
            self._heard()
            call.future.set(result)
        finally:
            timeout.close()
        return usable

    def _dropped(self, connection: ServiceConnection | None) -> ServiceConnection | None:
        """Discard a connection, if there is one. Returns None."""
        if connection is not None:
            self._discard(connection)
        return None

    def _discard(self, connection: ServiceConnection) -> None:
        self._connected -= 1
        self._close_connection(connection)

    def _close_connection(self, connection: ServiceConnection) -> None:
        """Close a connection within CLOSE_SECONDS."""
        with gevent.Timeout(CLOSE_SECONDS, False):
            try:
                connection.close()
            except Exception as error:
                logger.debug("closing a connection of service {} failed: {!r}", self._name, error)

    # Opening

    def _open_with_retries(self) -> ServiceConnection:
        """Open a connection, retrying until one is open."""
        failures = 0
        while True:
            if self._down is None:
                connection = self._open(self.spec.connect_timeout_seconds)
            else:
                with self._retrying:
                    connection = self._retry() if self._down is not None else None
            if connection is not None:
                return connection
            if self._down is None:  # others are connected: the server may be full
                failures += 1
                gevent.sleep(_backoff(failures))

    def _retry(self) -> ServiceConnection | None:
        gevent.sleep(_backoff(self._failures))
        self._failures += 1
        return self._open(self.spec.connect_timeout_seconds)

    def _open(self, within_seconds: float) -> ServiceConnection | None:
        try:
            return self._open_or_fail(within_seconds)
        except ConnectionLost:
            return None

    def _open_or_fail(self, within_seconds: float) -> ServiceConnection:
        """Open a connection and record the result. Raises ConnectionLost."""
        timeout = gevent.Timeout(within_seconds)
        timeout.start()
        try:
            connection = self._connect()
        except gevent.Timeout:
            reason = f"no connection within {within_seconds:g} s"
        except ConnectionLost as error:
            reason = str(error)
        except Exception as error:
            reason = f"opening a connection failed unexpectedly: {error!r}"
            if reason != self._down:  # logged once
                logger.exception("service {}: opening a connection failed unexpectedly", self._name)
        else:
            self._opened_one()
            return connection
        finally:
            timeout.close()
        self._failed_to_open(reason)
        raise ConnectionLost(reason)

    def _reopen(self, stale: ServiceConnection) -> ServiceConnection:
        """Replace a connection that the service has closed by a new one. Raises ConnectionLost."""
        self._discard(stale)
        return self._open_or_fail(self.spec.connect_timeout_seconds)

    def _opened_one(self) -> None:
        self._connected += 1
        self._opened += 1
        if self._unanswered < MOST_UNANSWERED:  # else the calls say more: a server may accept and not respond
            self._lost_last = ""
        if self._down is not None:
            self._down = None
            self._heard()
            logger.info("service {} is up again", self._name)
        self._is_known.set()

    def _failed_to_open(self, reason: str) -> None:
        if self._connected > 0:
            logger.warning(
                "service {}: cannot open one of {}: {}",
                self._name,
                counted(self.spec.connections, "connection"),
                reason,
            )
            return
        if self._down is None:
            logger.warning("service {} is down: {}", self._name, reason)
            self._failures = 1
        self._down = reason
        self._is_known.set()
        self._fail_waiting(reason)

    def _fail_waiting(self, reason: str) -> None:
        while self._waiting:
            self._pending -= 1
            self._lost += 1
            self._waiting.popleft().fail(ServiceDown(self._name, reason))
        if self._pending == 0:
            self._is_idle.set()


def _backoff(failures: int) -> float:
    """Return the seconds to wait after `failures` (at least 1) consecutive failures."""
    wait = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 30), LONGEST_BACKOFF_SECONDS)
    return wait * random.uniform(1 - JITTER, 1 + JITTER)
