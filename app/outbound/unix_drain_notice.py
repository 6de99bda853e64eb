"""Tells the processes beside an edge that it drains: by a Unix socket, which the kernel closes when the edge has ended.

honcho signals all processes again when the first one has ended, and kills them five seconds later. So the processes
beside the edge must end after it. The socket's name is abstract (unix(7)): there is no file to leave behind, and each
network namespace has its own.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

NOTICE_SECONDS: Final = 0.5
"""Time for an edge that got the same signal to begin its drain."""
_POLL_SECONDS: Final = 0.1


@contextlib.contextmanager
def notice_of_drain(metrics_port: int) -> Iterator[None]:
    """Show, for the block, that the edge with this metrics port drains. Does nothing if another one shows that."""
    with socket.socket(socket.AF_UNIX) as notice:
        with contextlib.suppress(OSError):
            notice.bind(_name(metrics_port))
            notice.listen()
        yield


def wait_for_drain(metrics_port: int, pause: Callable[[float], bool]) -> None:
    """Wait until the edge with this metrics port has drained; NOTICE_SECONDS if it does not drain.

    `pause(seconds)` waits, and returns whether to wait no longer.
    """
    deadline = time.monotonic() + NOTICE_SECONDS
    with socket.socket(socket.AF_UNIX) as edge:
        edge.setblocking(False)
        while edge.connect_ex(_name(metrics_port)):
            if time.monotonic() > deadline or pause(_POLL_SECONDS):
                return
        while not _has_ended(edge) and not pause(_POLL_SECONDS):
            pass


def _has_ended(edge: socket.socket) -> bool:
    try:
        return not edge.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _name(metrics_port: int) -> str:
    return f"\0edgeproxy drains, metrics port {metrics_port}"
