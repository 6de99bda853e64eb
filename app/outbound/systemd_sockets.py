"""Takes the listening sockets that systemd has opened and passes to this process: sd_listen_fds(3)."""

from __future__ import annotations

import _socket
import os
import re
import socket
from collections.abc import Iterator, MutableMapping
from typing import Final

from app.config import ConfigError, ListenAddress

FIRST_DESCRIPTOR: Final = 3
_NUMBER: Final = re.compile("[1-9][0-9]{0,8}")

PassedSockets = dict[ListenAddress, _socket.socket]
"""Listening TCP sockets by their address."""


class _Unusable(Exception):
    """A descriptor is no socket that the edge can accept from."""


def take_passed_sockets(environment: MutableMapping[str, str]) -> PassedSockets:
    """Return the sockets passed to this process, and remove their variables, so that no child takes them for its own.

    Raises ConfigError naming every descriptor that is no listening TCP socket.
    """
    pid, count, names = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid and not _NUMBER.fullmatch(pid):
        raise ConfigError([f"LISTEN_PID={pid!r}: needs the id of a process"])
    if not count or pid != str(os.getpid()):  # for another process, which has passed its environment on
        return {}
    if not _NUMBER.fullmatch(count):
        raise ConfigError([f"LISTEN_FDS={count!r}: needs the number of sockets passed, 1 or more"])
    faults = []
    passed: PassedSockets = {}
    for number, place in _descriptors(int(count), names.split(":")):
        try:
            address, sock = _listening(number)
            if passed.setdefault(address, sock) is not sock:
                raise _Unusable(f"listens on {address}, as an earlier one does")
        except _Unusable as error:
            faults.append(f"{place}: {error}")
    if faults:
        raise ConfigError(faults)
    return passed


def _descriptors(count: int, names: list[str]) -> Iterator[tuple[int, str]]:
    """Yield each descriptor, with the words for it in a fault; of those not open the first one alone."""
    for index in range(count):
        number = FIRST_DESCRIPTOR + index
        name = f" ({names[index]})" if index < len(names) and names[index] else ""
        yield number, f"LISTEN_FDS={count}: descriptor {number}{name}"
        if not os.path.exists(f"/proc/self/fd/{number}"):
            return


def _listening(descriptor: int) -> tuple[ListenAddress, _socket.socket]:
    """Return a passed socket with its address. Raises _Unusable."""
    try:
        sock = _socket.socket(fileno=descriptor)
    except OSError as error:
        raise _Unusable(error.strerror) from None
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise _Unusable("is no TCP socket: the edge takes those of ListenStream=address:port")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise _Unusable("does not listen: the edge takes those of ListenStream=, with Accept=no")
    host, port = sock.getsockname()[:2]
    address = ListenAddress(host, port)
    if host == "::" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        sock.detach()
        raise _Unusable(f"{address} takes IPv4, too: set BindIPv6Only=ipv6-only, and ListenStream=0.0.0.0:{port}")
    os.set_inheritable(descriptor, False)
    sock.setblocking(False)
    return address, sock
