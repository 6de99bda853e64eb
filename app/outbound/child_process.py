"""Runs a program as a child that shares our output, has its own process group, and does not outlive us.

Its own group, because Ctrl-C in a terminal signals a whole group and would end the program before it is drained. As a
kill of our group does not reach the child either, the kernel is asked to end it when we die.
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
    """A child process. Signals go to its group, and so to its own children, unless they have left the group."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start the program. Raises OSError if that fails."""
        self._process = subprocess.Popen(command, preexec_fn=_end_with_parent)  # noqa: PLW1509 - no thread runs yet

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if not self.has_ended:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def wait(self) -> int:
        """Wait for the end and return the exit code: 128 + number if a signal ended it, as in shells."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code


def _end_with_parent() -> None:
    """Runs in the child."""
    os.setpgid(0, 0)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
