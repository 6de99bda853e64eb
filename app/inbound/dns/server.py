"""DNS server on DNS_LISTEN_ADDR: takes queries over UDP and TCP, within limits, and sends the responder's answers."""

from __future__ import annotations

import _socket
import errno
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import gevent
from gevent.pool import Group
from loguru import logger

from app.config import ListenAddress
from app.inbound.event_loop import READ, watcher
from app.inbound.listener import BindError, Listener
from app.wire.dns_response import RCODES, SERVFAIL, Responder, failure

QUERIES_A_TURN: Final = 16
"""Queries answered before yielding to connections: at most 6 ms."""
CLIENTS_AT_ONCE: Final = 64
"""TCP clients, over all addresses together."""
IDLE_SECONDS: Final = 10.0
"""A TCP connection without a query is closed after this time (RFC 7766 section 6.1)."""
MESSAGE_SECONDS: Final = 5.0
"""Limit for receiving the rest of a query, and for sending the answer."""
UNANSWERED: Final = "none"
"""Counted for messages that must not be answered."""

_LARGEST_MESSAGE: Final = 65_535
_LOG_SECONDS: Final = 5.0
_PORT_ATTEMPTS: Final = 20
_IP_PKTINFO: Final = 8
"""ip(7); the socket module names it only from Python 3.14 on."""
_ANCILLARY_BYTES: Final = 64


class DnsServer:
    """Listens on each address over UDP and TCP. `on_error()` is called for unexpected exceptions."""

    def __init__(self, addresses: Iterable[ListenAddress], responder: Responder, on_error: Callable[[], None]) -> None:
        self._wanted = tuple(addresses)
        self._responder = responder
        self._on_error = on_error
        self._logged_at = float("-inf")
        self._listeners: list[_Datagrams | _Streams] = []
        self._clients = Group()
        self.answers: Counter[str] = Counter()
        """By response code, since the start."""

    def prepare(self) -> None:
        """Bind every address, without answering yet. Raises BindError."""
        try:
            for address in self._wanted:
                self._listeners += self._open(address)
        except BindError as error:
            raise BindError(str(error), "dns_listen_addr") from None

    def serve(self) -> None:
        for listener in self._listeners:
            listener.serve()

    def stop(self) -> None:
        """Close; queries in progress are not answered."""
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        self._clients.kill()

    @property
    def addresses(self) -> list[ListenAddress]:
        return [listener.address for listener in self._listeners if isinstance(listener, _Streams)]

    def _open(self, address: ListenAddress) -> list[_Datagrams | _Streams]:
        """Bind both protocols to one port, chosen by the kernel if it is 0. Raises BindError."""
        for attempt in range(_PORT_ATTEMPTS):
            streams = _Streams(address, self._answer, self._clients)
            try:
                return [streams, _Datagrams(streams.address, self._answer)]
            except BindError:
                streams.close()
                if address.port or attempt == _PORT_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _answer(self, message: bytes, is_datagram: bool) -> bytes | None:
        """Return the answer to any message; None if it must not be answered."""
        try:
            answer = self._responder.respond(message, is_datagram=is_datagram)
        except Exception:
            self._log_exception()
            answer = failure(message, SERVFAIL)
        if answer is None:
            self.answers[UNANSWERED] += 1
            return None
        self.answers[RCODES[answer.rcode]] += 1
        return answer.message

    def _log_exception(self) -> None:
        self._on_error()
        if time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = time.monotonic()
            logger.exception("answering a DNS query failed")


Answering = Callable[[bytes, bool], bytes | None]


class _Datagrams:
    """One UDP socket. Queries are answered in the event loop's own greenlet, since an answer never waits."""

    def __init__(self, address: ListenAddress, answer: Answering) -> None:
        """Bind. Raises BindError."""
        self._answer = answer
        self._socket = _bind(address)
        name = self._socket.getsockname()
        self.address = ListenAddress(name[0], name[1])
        self._readable: Any = watcher(self._socket.fileno(), READ)

    def serve(self) -> None:
        self._readable.start(self._answer_some)

    def close(self) -> None:
        self._readable.close()
        self._socket.close()

    def _answer_some(self) -> None:
        receive, send, answer = self._socket.recvmsg, self._socket.sendmsg, self._answer
        for _ in range(QUERIES_A_TURN):
            try:
                message, ancillary, _flags, client = receive(_LARGEST_MESSAGE, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for an answer sent earlier
                continue
            reply = answer(message, True)
            if reply is not None:
                try:
                    send([reply], [_answered_from(one) for one in ancillary], 0, client)
                except OSError:  # an unreachable client, or a full queue: the client asks again
                    continue


def _answered_from(ancillary: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    """Send an answer from the address that was asked: on a wildcard socket the kernel might choose another."""
    level, kind, data = ancillary
    if level == socket.IPPROTO_IP:  # struct in_pktinfo: interface, local address, destination of the header
        _interface, _local, destination = struct.unpack("I4s4s", data)
        return level, kind, struct.pack("I4s4s", 0, destination, bytes(4))
    return level, kind, data


class _Streams:
    """One TCP listener; each of its `clients` is a greenlet that answers one query after another."""

    def __init__(self, address: ListenAddress, answer: Answering, clients: Group) -> None:
        """Bind. Raises BindError."""
        self._answer = answer
        self._listener = Listener(address, on_error=lambda _code: None)
        self.address = self._listener.address
        self._clients = clients
        self._idle: dict[gevent.Greenlet, None] = {}
        """Clients that wait with their next query, the one idle longest first."""

    def serve(self) -> None:
        self._listener.serve("dns", self._accept)

    def close(self) -> None:
        self._listener.close()

    def _accept(self, descriptor: int, _peer: tuple[str, int], _name: str) -> None:
        if len(self._clients) >= CLIENTS_AT_ONCE:
            idlest = next(iter(self._idle), None)
            if idlest is None:
                os.close(descriptor)
                return
            del self._idle[idlest]
            idlest.kill(block=False)  # rather than refuse the new one (RFC 7766, section 6.2.3)
        self._clients.spawn(self._converse, descriptor)

    def _converse(self, descriptor: int) -> None:
        with socket.socket(fileno=descriptor) as client:
            try:
                while (message := self._next_message(client)) is not None:
                    reply = self._answer(message, False)
                    if reply is None:
                        return
                    with gevent.Timeout(MESSAGE_SECONDS, TimeoutError()):
                        client.sendall(len(reply).to_bytes(2, "big") + reply)
                    gevent.sleep()  # yields to others: with queries buffered, neither recv nor send would wait
            except OSError:  # the client is gone or too slow
                return

    def _next_message(self, client: socket.socket) -> bytes | None:
        """Return the next message, None at the end. Raises OSError, including TimeoutError."""
        me = gevent.getcurrent()
        self._idle[me] = None
        try:
            with gevent.Timeout(IDLE_SECONDS, TimeoutError()):
                first = client.recv(1)
        finally:
            self._idle.pop(me, None)
        return _read_message(client, first) if first else None


def _read_message(client: socket.socket, first: bytes) -> bytes:
    """Return the rest of a message after its first byte. Raises OSError, including TimeoutError."""
    with gevent.Timeout(MESSAGE_SECONDS, TimeoutError()):
        length = first + _exactly(client, 1)
        return _exactly(client, int.from_bytes(length, "big"))


def _exactly(client: socket.socket, size: int) -> bytes:
    """Read `size` bytes. Raises OSError, also if the client closes before that."""
    data = bytearray()
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            raise ConnectionError("closed within a message")
        data += piece
    return bytes(data)


def _bind(address: ListenAddress) -> _socket.socket:
    """Return a bound UDP socket that reports the address each query was sent to. Raises BindError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = _socket.socket(family, kind, socket.IPPROTO_UDP)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        reason = os.strerror(error.errno or errno.EADDRNOTAVAIL)
        raise BindError(f"cannot listen on {address} (DNS over UDP): {reason}") from None
    return sock
