"""Listening sockets: bind, accept in bounded bursts, and carry on after every error of accept."""

from __future__ import annotations

import _socket
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from loguru import logger

from app.config import ListenAddress
from app.inbound.dialer import set_stream_options
from app.inbound.event_loop import READ, timer, watcher

BACKLOG: Final = 4096
ACCEPTS_A_TURN: Final = 64
"""Connections accepted before yielding to open connections."""
BACKOFF_SECONDS: Final = 0.1
"""Pause after an error of accept, such as EMFILE."""
_LOG_SECONDS: Final = 5.0


class BindError(Exception):
    """A listener could not be opened. `setting` is the field of the configuration that is at fault."""

    def __init__(self, message: str, setting: str = "listen_addr", frontend: str = "") -> None:
        super().__init__(message)
        self.setting = setting
        self.frontend = frontend


OnAccept = Callable[[int, tuple[str, int], str], None]


class Listener:
    """One listening socket. `on_error(errno name)` is called for every error of accept."""

    def __init__(
        self, address: ListenAddress, on_error: Callable[[str], None], passed: _socket.socket | None = None
    ) -> None:
        """Take the socket that was passed, or else bind and listen; without accepting yet. Raises BindError."""
        self.frontend = ""
        self._on_accept: OnAccept | None = None
        self._on_error = on_error
        self._socket = passed or _bind(address)
        set_stream_options(self._socket)  # inherited by the sockets accepted from it
        # socket.accept() would wrap each descriptor in an unneeded Python object.
        self._accept: Any = self._socket._accept  # type: ignore[attr-defined]
        name = self._socket.getsockname()
        self.address = ListenAddress(name[0], name[1])
        self._name = str(self.address)
        self._readable: Any = watcher(self._socket.fileno(), READ)
        self._retry: Any = timer(BACKOFF_SECONDS, repeat_seconds=BACKOFF_SECONDS)
        self._logged_at = float("-inf")

    def serve(self, frontend: str, on_accept: OnAccept) -> None:
        """Start accepting; every connection goes to `on_accept(descriptor, peer, address)`."""
        self.frontend = frontend
        is_new, self._on_accept = self._on_accept is None, on_accept
        if is_new:
            self._readable.start(self._accept_some)

    def stop(self) -> None:
        """Accept the queued connections, which closing would reset, then close."""
        if self._socket.fileno() < 0:
            return
        self._readable.stop()
        self._retry.stop()
        if self._on_accept is not None:
            while self._accept_some():
                pass
        self.close()

    def close(self) -> None:
        """Close without accepting queued connections."""
        self._readable.close()
        self._retry.close()
        self._socket.close()

    def _accept_some(self) -> bool:
        """Accept a burst. Returns whether more may be queued."""
        accept, on_accept, name = self._accept, self._on_accept, self._name
        assert on_accept is not None
        try:
            for _ in range(ACCEPTS_A_TURN):
                descriptor, peer = accept()
                on_accept(descriptor, peer, name)
        except BlockingIOError:
            return False
        except OSError as error:
            return self._accept_failed(error)
        return True

    def _accept_failed(self, error: OSError) -> bool:
        self._on_error(errno.errorcode.get(error.errno or 0, "unknown"))
        now = time.monotonic()
        if now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            logger.error("accept on {} failed, retrying: {}", self._name, os.strerror(error.errno or 0))
        if error.errno == errno.ECONNABORTED:
            return True
        if self._readable.active:  # the socket stays readable: without a pause the loop would spin
            self._readable.stop()
            self._retry.start(self._resume)
        return False

    def _resume(self) -> None:
        self._retry.stop()
        self._readable.start(self._accept_some)


def _bind(address: ListenAddress) -> _socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        sock = _socket.socket(
            family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP
        )
    except OSError as error:
        raise BindError(f"cannot listen on {address}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise BindError(f"cannot listen on {address}: {error.strerror}") from None
    return sock
