"""Tells systemd how this process does, by datagrams to the socket that NOTIFY_SOCKET names: sd_notify(3)."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import MutableMapping
from typing import Final

from loguru import logger

from app.config import ConfigError

_MICROSECONDS: Final = re.compile("[1-9][0-9]{0,18}")
_SEND_SECONDS: Final = 1.0
"""For room in systemd's queue."""


class Notifier:
    """Sends states to the socket at `address`; without one it does nothing.

    `watchdog_seconds` is the longest time between two WATCHDOG=1, 0 if systemd expects none.
    """

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        self.is_heard: Final = bool(address)
        self.watchdog_seconds: Final = watchdog_seconds if address else 0.0
        self._address = address
        self._has_failed = False

    def send(self, *states: str) -> None:
        """Send states such as READY=1 in one datagram. Waits up to 1 s. Logs the first failure, raises none."""
        if not self.is_heard:
            return
        try:
            self._send("\n".join(states).encode())
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                logger.error("systemd not reached at NOTIFY_SOCKET={!r}: {}", self._address, error.strerror or error)

    def _send(self, datagram: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_SEND_SECONDS)
            # Connected: only then does the kernel say when a full queue has room again.
            sock.connect(f"\0{self._address[1:]}" if self._address.startswith("@") else self._address)
            sock.send(datagram)


def take_notifier(environment: MutableMapping[str, str]) -> Notifier:
    """Return what tells the systemd that started this process, and remove the variables of it from the environment.

    A child that found them would speak for this process. Raises ConfigError.
    """
    address, text, pid = (environment.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
    if not text or pid not in ("", str(os.getpid())):
        return Notifier(address)
    if not _MICROSECONDS.fullmatch(text):
        raise ConfigError([f"WATCHDOG_USEC={text!r}: needs a number of microseconds, 1 or more"])
    return Notifier(address, int(text) / 1e6)
