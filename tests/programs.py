"""Programs that tests run as peers: looked for, and installed with their Debian packages where that is allowed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import pytest

_INSTALL_SECONDS = 100
_POLICY = Path("/usr/sbin/policy-rc.d")
"""While this exits with 101, Debian's packages do not start their daemons."""


def program(name: str, package: str, folders: str = "") -> str:
    """Return the path of a program, installed with its Debian package when missing and we are root.

    It is looked for in PATH, in /usr/sbin, and in folders that match a pattern. Missing all the same, it is a failure
    under CI and a skip elsewhere.
    """

    def find() -> str | None:
        places = [os.environ["PATH"], "/usr/sbin", *sorted(glob(folders), reverse=True)]
        return shutil.which(name, path=os.pathsep.join(places))

    problem = "" if find() else _install(package)
    path = find()
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name} is missing: {problem}")
    return path


def _install(package: str) -> str:
    """Install a Debian package without starting its daemon; returns what went wrong."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"only root can apt-get install {package}"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with _one_at_a_time(), _no_daemons():
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
            done = subprocess.run(
                ["apt-get", *command],
                check=False,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_INSTALL_SECONDS,
            )
    return done.stderr


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait for other test runs of this machine that install something."""
    with Path(tempfile.gettempdir(), "edgeproxy-tests-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _no_daemons() -> Iterator[None]:
    """Let packages start no daemons meanwhile."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
