"""Probes the health of a backend: a TCP connect, or a GET with checks of status and body.

A probe has one deadline, its own connection, and limits on what it reads. A failure is one of these words, which label
the metric and appear in the log:

================ ===================================================================================
connect_refused  the port is closed
connect_timeout  no connection within the time limit, ours or the kernel's
connect_failed   no route to the host, or an unusable address
timeout          connected, but no complete response within the time limit
bad_response     closed or reset too early, not HTTP, or a head that is too large
status           unexpected status code
body             the text is not in the first 64 KiB of the body
no_resources     this machine is out of descriptors, memory or ports: no verdict on the backend
internal_error   a bug of the edge, logged with its traceback: no verdict on the backend
================ ===================================================================================
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
from app.wire.proxy_protocol import LOCAL_HEADERS

MAX_HEAD_BYTES: Final = 65536
"""All heads of a response together, including interim ones (1xx)."""
MAX_BODY_BYTES: Final = 65536
"""As sent, including the framing of chunks."""

_PIECE_BYTES: Final = 8192
_LOCAL_ERRORS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))


class _Failed(Exception):
    """The backend failed the probe. The first argument is one of the words above."""


def probe(target: Target) -> str | None:
    """Probe a target. Returns None on success, otherwise the word for the failure.

    Raises only exceptions thrown into the greenlet, including a Timeout of the caller.
    """
    backend, spec = target.backend, target.spec
    is_connected = False
    deadline = gevent.Timeout(spec.timeout_seconds)
    deadline.start()
    try:
        with socket.socket(socket.AF_INET6 if ":" in backend.host else socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.connect((backend.host, backend.port))
            is_connected = True
            if spec.proxy_header != "off":
                sock.sendall(LOCAL_HEADERS[spec.proxy_header])
            if spec.kind == "http":
                _get(sock, target)
        return None
    except gevent.Timeout as expired:
        if expired is not deadline:
            raise
        return "timeout" if is_connected else "connect_timeout"
    except (_Failed, BadMessage, OSError) as error:
        logger.debug("the probe of backend {} of pool {} failed: {!r}", backend.id, target.pool, error)
        return _failure_of(error, is_connected)
    except Exception:
        logger.exception("the probe of backend {} of pool {} raised an exception", backend.id, target.pool)
        return "internal_error"
    finally:
        deadline.close()


def _failure_of(error: _Failed | BadMessage | OSError, is_connected: bool) -> str:
    match error:
        case _Failed():
            return str(error.args[0])
        case OSError(errno=code) if code in _LOCAL_ERRORS:
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
    """Request the path and check the response. Raises _Failed, BadMessage, OSError."""
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
    # A zone has no meaning on other machines (RFC 6874, section 1).
    host = backend.host_name or backend.host.partition("%")[0]
    name = f"[{host}]" if ":" in host else host
    return (
        f"GET {path} HTTP/1.1\r\n"
        f"Host: {name}:{backend.port}\r\n"
        "User-Agent: edgeproxy-probe\r\n"
        "Connection: close\r\n"
        "\r\n"
    ).encode()


def _read_head(sock: socket.socket) -> tuple[ResponseHead, bytes]:
    """Return the final head and the bytes of the body received with it. Raises _Failed, BadMessage, OSError."""
    data, start, searched = b"", 0, 0
    while True:
        end = data.find(b"\r\n\r\n", max(start, searched - 3)) + 4
        if end > 3:
            head = parse_response(data[start:end], b"GET")
            start = end
            if head.status >= 200:
                return head, data[end:]
        elif len(data) > MAX_HEAD_BYTES:
            raise _Failed("bad_response", "head too large")
        else:
            piece = sock.recv(_PIECE_BYTES)
            if not piece:
                raise _Failed("bad_response", "closed before the end of the head")
            searched = len(data)
            data += piece


def _read_body(sock: socket.socket, head: ResponseHead, data: bytes) -> Iterator[bytes]:
    """Yield the body as it arrives, until its end, the end of the connection, or MAX_BODY_BYTES.

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
