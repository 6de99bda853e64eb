"""A program that is run beside this one: it has our output, a process group of its own, and does not outlive us.

Of its own, because a terminal's Ctrl-C goes to a whole group at once: it would end the program before anybody could
drain it. For the same reason whoever kills us kills nobody else, so the kernel is asked to end the program then.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_LIBC: Final = ctypes.CDLL(None)
_PR_SET_PDEATHSIG: Final = 1


class ChildProcess:
    """Signals go to its group: to what it has started too, as long as that has no group of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it. Raises OSError when it cannot be."""
        self._process = subprocess.Popen(command, preexec_fn=_ended_with_us)  # noqa: PLW1509 - no thread runs yet

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if not self.has_ended:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def wait(self) -> int:
        """Return its exit code, 128 and the number of the signal that ended it, as shells do."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code


def _ended_with_us() -> None:
    """Runs in the child."""
    os.setpgid(0, 0)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
