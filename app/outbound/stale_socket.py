"""Detects that the peer has closed an idle connection, with one system call (1 µs)."""

from __future__ import annotations

from typing import Any

from gevent.monkey import get_original

_poll: Any = get_original("select", "poll")
"""The unpatched poll. With timeout 0 it does not block, whereas gevent's takes a turn of the event loop."""
_READABLE = 1  # POLLIN


class StaleSocket:
    """True when an idle connection is readable: the peer has closed it, as servers send nothing unrequested.

    If a server does send something, the connection is merely reopened.
    """

    def __init__(self, descriptor: int) -> None:
        self._poll = _poll()
        self._poll.register(descriptor, _READABLE)

    def __bool__(self) -> bool:
        return bool(self._poll.poll(0))
