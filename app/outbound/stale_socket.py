"""Whether the other side has ended a connection that nobody used meanwhile, asked of the kernel alone: 1 µs."""

from __future__ import annotations

from typing import Any

from gevent.monkey import get_original

_poll: Any = get_original("select", "poll")
"""The kernel's own: asked with no time to wait it waits for nothing, and gevent's would take a turn of the loop."""
_READABLE = 1  # POLLIN


class StaleSocket:
    """Watches a connection on which the server says nothing unasked: what there is to read between calls is the end.

    It errs on the safe side: for a server that does speak unasked the connection is opened anew.
    """

    def __init__(self, descriptor: int) -> None:
        self._poll = _poll()
        self._poll.register(descriptor, _READABLE)

    def __bool__(self) -> bool:
        return bool(self._poll.poll(0))
