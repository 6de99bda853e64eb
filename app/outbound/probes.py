"""Asks a backend whether it is well, as its check says: a TCP connection, or a GET that must be answered rightly.

A probe has one deadline, a connection of its own, and bounds on what it reads. What went wrong is one of these words,
for a metric's label as much as for the log:

=============== ======================================================================================
connect_refused nobody listens
connect_timeout no connection in time, by our clock or the kernel's
connect_failed  no route, or an address that cannot be used
timeout         connected, but not done in time
bad_response      closed or reset too early, not HTTP, or a head that has no end
status          another status than expected
body            the text is not in the first 64 KiB of the body
no_resources    this machine is out of descriptors, memory or ports: says nothing of the backend
internal_error  a fault of ours, logged with its traceback: says nothing of the backend
=============== ======================================================================================
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Final

import gevent
from loguru import logger

from app.domain.model import Backend
from app.domain.probe import Target
from app.wire.http1 import ResponseHead, parse_response
from app.wire.http1_chunks import ChunkScanner
from app.wire.http1_faults import BadMessage
from app.wire.http1_framing import Framing

MAX_HEAD_BYTES: Final = 65536
"""Of all heads of an answer together: interim ones (1xx) come before the final one."""
MAX_BODY_BYTES: Final = 65536
"""As sent: the framing of chunks counts."""

_PIECE_BYTES: Final = 8192
_OUR_WANT: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))


class _Failed(Exception):
    """The backend is not well; says why in one of the words above."""


def probe(target: Target) -> str | None:
    """Run a target's check; returns None when it passed, else the word for what went wrong.

    Lets nothing through but what is thrown into the greenlet, a Timeout of the caller's included.
    """
    backend, spec = target.backend, target.spec
    is_connected = False
    deadline = gevent.Timeout(spec.timeout_seconds)
    deadline.start()
    try:
        with socket.socket(socket.AF_INET6 if ":" in backend.host else socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.connect((backend.host, backend.port))
            is_connected = True
            if spec.kind == "http":
                _get(sock, target)
        return None
    except gevent.Timeout as expired:
        if expired is not deadline:
            raise
        return "timeout" if is_connected else "connect_timeout"
    except (_Failed, BadMessage, OSError) as error:
        logger.debug("the probe of backend {} of pool {} failed: {!r}", backend.id, target.pool, error)
        return _word(error, is_connected)
    except Exception:
        logger.exception("the probe of backend {} of pool {} broke", backend.id, target.pool)
        return "internal_error"
    finally:
        deadline.close()


def _word(error: _Failed | BadMessage | OSError, is_connected: bool) -> str:
    match error:
        case _Failed():
            return str(error.args[0])
        case OSError(errno=code) if code in _OUR_WANT:
            return "no_resources"
        case OSError() if is_connected:
            return "bad_response"
        case ConnectionRefusedError():
            return "connect_refused"
        case TimeoutError():
            return "connect_timeout"
        case OSError():
            return "connect_failed"
        case _:
            return "bad_response"


def _get(sock: socket.socket, target: Target) -> None:
    """Ask for the check's path and judge the answer. Raises _Failed, BadMessage, OSError."""
    spec = target.spec
    sock.sendall(_request(target.backend, spec.path))
    head, rest = _read_head(sock)
    if head.status not in spec.expected_statuses:
        raise _Failed("status", head.status)
    if spec.body is None:
        return
    wanted, seen = spec.body.encode(), b""
    for piece in _read_body(sock, head, rest):
        seen += piece
        if wanted in seen:
            return
    raise _Failed("body")


def _request(backend: Backend, path: str) -> bytes:
    host = (
        backend.host_name or backend.host.partition("%")[0]
    )  # a zone means nothing to anybody else (RFC 6874 section 1)
    name = f"[{host}]" if ":" in host else host
    return (
        f"GET {path} HTTP/1.1\r\n"
        f"Host: {name}:{backend.port}\r\n"
        "User-Agent: edgeproxy-probe\r\n"
        "Connection: close\r\n"
        "\r\n"
    ).encode()


def _read_head(sock: socket.socket) -> tuple[ResponseHead, bytes]:
    """Return the final head and what came with it of the body. Raises _Failed, BadMessage, OSError."""
    data, start = b"", 0
    while True:
        end = data.find(b"\r\n\r\n", start) + 4
        if end > 3:
            head = parse_response(data[start:end], b"GET")
            start = end
            if head.status >= 200:
                return head, data[end:]
        elif len(data) > MAX_HEAD_BYTES:
            raise _Failed("bad_response", "head without end")
        else:
            piece = sock.recv(_PIECE_BYTES)
            if not piece:
                raise _Failed("bad_response", "closed before the end of the head")
            data += piece


def _read_body(sock: socket.socket, head: ResponseHead, data: bytes) -> Iterator[bytes]:
    """Yield what the body carries as it comes: to its end, the connection's, or MAX_BODY_BYTES.

    Raises BadMessage, OSError.
    """
    chunks = ChunkScanner() if head.framing is Framing.CHUNKED else None
    allowed = MAX_BODY_BYTES
    if head.framing in (Framing.NONE, Framing.LENGTH):
        allowed = min(head.content_length, allowed)
    while True:
        data = data[:allowed]
        allowed -= len(data)
        if chunks is None:
            yield data
        else:
            payload: list[bytes | memoryview] = []
            chunks.scan(data, payload)
            yield b"".join(payload)
        if not allowed or (chunks is not None and chunks.is_complete):
            return
        data = sock.recv(_PIECE_BYTES)
        if not data:
            return
