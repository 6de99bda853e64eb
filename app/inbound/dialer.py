"""Connects to a backend within a timeout. The timeout ends with the connect: an idle backend is not a dead one."""

from __future__ import annotations

import _socket
import errno
import os
import socket
from typing import Final

from app.domain.errors import DialError, UpstreamError
from app.domain.outcome import State
from app.inbound.event_loop import WRITE, wait_for

_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC

KEEPALIVE_IDLE_SECONDS: Final = 60
KEEPALIVE_INTERVAL_SECONDS: Final = 15
KEEPALIVE_PROBES: Final = 4


def set_stream_options(sock: _socket.socket) -> None:
    """Send small segments at once, and detect a vanished peer within two minutes."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    set_keepalive(sock)


def set_keepalive(sock: _socket.socket) -> None:
    """Let the kernel probe the peer of an idle connection (tcp(7))."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


_LOCAL_SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
"""Errors that say nothing about the backend: this host is out of descriptors, memory or ports."""


def dial(host: str, port: int, timeout_seconds: float) -> _socket.socket:
    """Return a connected non-blocking socket to an IP address.

    Raises DialError if refused, unreachable or timed out, UpstreamError if this host is out of resources.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # With type and protocol given, CPython does not ask the kernel for them.
        sock = _socket.socket(family, _STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise _failure(error.errno or 0) from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            code = sock.connect_ex((host, port))
        except OSError:  # an unusable address, such as one with the scope of a missing interface
            raise DialError(State.CONNECT_REFUSED, "unusable_address") from None
        if code == errno.EINPROGRESS:
            # A backend on this host or a fast network is often connected by now: asking again costs one system call,
            # waiting costs a watcher, a timer and a turn of the loop.
            code = sock.connect_ex((host, port))
            if code in (errno.EALREADY, errno.EINPROGRESS):
                if not wait_for(sock.fileno(), WRITE, timeout_seconds):
                    raise DialError(State.CONNECT_TIMEOUT, "connect_timeout")
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code and code != errno.EISCONN:
            raise _failure(code)
    except BaseException:
        sock.close()
        raise
    return sock


def _failure(code: int) -> UpstreamError:
    """Return the error for an errno; its lower-case name is the reason in logs and metrics."""
    reason = errno.errorcode.get(code, os.strerror(code)).lower()
    if code in _LOCAL_SHORTAGES:
        return UpstreamError(State.OUT_OF_RESOURCES, reason)
    return DialError(State.CONNECT_TIMEOUT if code == errno.ETIMEDOUT else State.CONNECT_REFUSED, reason)
