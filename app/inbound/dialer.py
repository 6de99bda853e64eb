"""Connects to a backend, with a timeout that does not stay on the socket: an idle upstream is not a dead one."""

from __future__ import annotations

import _socket
import errno
import os
import socket
from typing import Final

from gevent import Timeout
from gevent.hub import get_hub

from app.domain.errors import DialError
from app.domain.outcome import State

_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_WRITE: Final = 2

KEEPALIVE_IDLE_SECONDS: Final = 60
KEEPALIVE_INTERVAL_SECONDS: Final = 15
KEEPALIVE_PROBES: Final = 4


def set_stream_options(sock: _socket.socket) -> None:
    """Send small segments at once, and notice within two minutes that a peer has vanished."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def dial(host: str, port: int, timeout_seconds: float) -> _socket.socket:
    """Return a connected non-blocking socket to an IP address.

    Raises DialError: refused, unreachable or timed out.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Type and protocol are given so that CPython asks the kernel for neither.
        sock = _socket.socket(family, _STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise DialError(State.CONNECT_REFUSED, _reason(error.errno)) from None
    try:
        set_stream_options(sock)
        code = sock.connect_ex((host, port))
        if code == errno.EINPROGRESS:
            _wait_writable(sock, timeout_seconds)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            state = State.CONNECT_TIMEOUT if code == errno.ETIMEDOUT else State.CONNECT_REFUSED
            raise DialError(state, _reason(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _wait_writable(sock: _socket.socket, timeout_seconds: float) -> None:
    hub = get_hub()
    watcher = hub.loop.io(sock.fileno(), _WRITE)
    timeout = Timeout.start_new(timeout_seconds)
    try:
        hub.wait(watcher)
    except Timeout as fired:
        if fired is not timeout:
            raise
        raise DialError(State.CONNECT_TIMEOUT, "connect_timeout") from None
    finally:
        timeout.close()
        watcher.close()


def _reason(code: int | None) -> str:
    """Name an errno in lower case, as logs and metrics do."""
    return errno.errorcode.get(code or 0, os.strerror(code or 0)).lower()
