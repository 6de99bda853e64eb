"""A lock is held by one process, names it, and ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from app.outbound.file_lock import FileLock, Held
from tests.harness import ROOT

HOLD = """
import sys, time
from pathlib import Path
from app.outbound.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.take("the first")
print("held", flush=True)
time.sleep(60)
"""


def test_the_second_learns_who_holds_it_until_that_process_ends_however_it_ends(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Held, match="the first"):
            FileLock(path).take("the second")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    second = FileLock(path)
    second.take("the second")
    with pytest.raises(Held, match="the second"):
        FileLock(path).take("a third")
    second.release()
    third = FileLock(path)
    third.take("a third")
    third.release()
