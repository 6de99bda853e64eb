"""Reads the PROXY header that a trusted proxy must send first."""

from __future__ import annotations

import _socket
import time
from ipaddress import ip_address
from typing import Final

from app.config import IPNetwork
from app.domain.client import unmapped
from app.domain.errors import DownstreamError
from app.domain.outcome import Refusal, State
from app.inbound.event_loop import READ, wait_for
from app.wire.proxy_protocol import MAX_HEADER, Header, ProxyProtocolError, parse

HEADER_SECONDS: Final = 3.0
"""Deadline for the whole header."""
_CACHED_PEERS: Final = 4096


class TrustedProxies:
    """Tells which peers must send a PROXY header. From any other peer, a PROXY header is payload."""

    def __init__(self, networks: tuple[IPNetwork, ...]) -> None:
        self._networks = networks
        self._known: dict[str, bool] = {}

    def __contains__(self, peer: str) -> bool:
        if not self._networks:
            return False
        is_trusted = self._known.get(peer)
        if is_trusted is None:
            address = ip_address(unmapped(peer.partition("%")[0]))
            is_trusted = any(address in network for network in self._networks)
            if len(self._known) >= _CACHED_PEERS:
                self._known.clear()
            self._known[peer] = is_trusted
        return is_trusted


def read_proxy_header(sock: _socket.socket) -> tuple[Header, bytes]:
    """Return the PROXY header, and the bytes received after it.

    Raises DownstreamError if the header is bad or late, or the peer closes.
    """
    deadline, received = time.monotonic() + HEADER_SECONDS, b""
    while (header := _parse(received)) is None:
        if not wait_for(sock.fileno(), READ, max(0.0, deadline - time.monotonic())):
            raise DownstreamError(State.HEADER_TIMEOUT, Refusal.SLOW_PROXY_HEADER)
        received += _receive(sock)
    return header, received[header.size :]


def _parse(received: bytes) -> Header | None:
    try:
        return parse(received)
    except ProxyProtocolError as error:
        raise DownstreamError(State.HEADER_BAD, error.reason) from None


def _receive(sock: _socket.socket) -> bytes:
    try:
        received = sock.recv(MAX_HEADER)
    except BlockingIOError:
        return b""
    except OSError:
        received = b""
    if not received:
        raise DownstreamError(State.CLIENT_GONE_IN_HEADER, "client_gone")
    return received
