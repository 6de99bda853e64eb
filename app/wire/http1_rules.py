"""Decisions about an HTTP/1.1 request and its response: may it be retried, switched, kept; how is the response framed.

Pure functions of the two heads and of how far the exchange has come.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from app.wire.http1 import RequestHead, ResponseHead
from app.wire.http1_framing import Framing

SWITCHING_PROTOCOLS: Final = 101
COUNTED_METHODS: Final = frozenset((b"TRACE", b"OPTIONS"))
"""Methods whose Max-Forwards counts (RFC 9110, section 7.6.2)."""
_MOST_DIGITS: Final = 10
_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""


def may_send_again(method: bytes, *, bytes_sent: int, is_whole: bool, is_reused: bool, has_heard: bool) -> bool:
    """Say whether a request whose upstream connection was lost may go to a fresh connection (RFC 9112, section 9.3.1).

    Only a reused connection can end before it saw the request, so only there is a retry due. `is_whole`: the edge
    still has all of the request. `has_heard`: the backend has sent a byte.
    """
    return is_reused and is_whole and not has_heard and (bytes_sent == 0 or method in _IDEMPOTENT)


def is_final(status: int) -> bool:
    """Say whether no other response to the same request follows (RFC 9110, section 15.2)."""
    return status >= 200 or status == SWITCHING_PROTOCOLS


def hops_left(head: RequestHead) -> int | None:
    """Return how often a TRACE or OPTIONS may still be forwarded, or None for no limit (RFC 9110, section 7.6.2)."""
    if head.method in COUNTED_METHODS:
        for name, value in head.headers:
            if name.lower() == b"max-forwards" and value.isdigit() and len(value) < _MOST_DIGITS:
                return int(value)
    return None


def takes_trailers(head: RequestHead) -> bool:
    """Say whether a client takes trailers, which the edge passes on (RFC 9110, sections 6.5.1 and 10.1.4)."""
    return b"te" in head.connection_tokens and any(
        name.lower() == b"te" and b"trailers" in [one.strip() for one in value.lower().split(b",")]
        for name, value in head.headers
    )


def may_upgrade(head: RequestHead) -> bool:
    """Say whether a request asks for another protocol that is passed on.

    An upgrade to HTTP/2 in the clear is not: its requests could not be checked, and RFC 9113 has removed it.
    """
    return head.upgrade is not None and b"h2c" not in _protocols(head.upgrade)


def _protocols(upgrade: bytes | None) -> list[bytes]:
    return [name.strip() for name in upgrade.split(b",")] if upgrade is not None else []


def switch_fault(head: RequestHead, response: ResponseHead, *, is_request_read: bool) -> str | None:
    """Return what is wrong with a 101 in response to this request, as a short word, or None.

    Each protocol switched to must be one that the client asked for (RFC 9110, section 7.8).
    """
    if not may_upgrade(head) or not set(_protocols(response.upgrade)) <= set(_protocols(head.upgrade)):
        return "switching_without_upgrade"
    if not is_request_read:  # the new protocol begins after the request's last byte (RFC 9110, section 7.8)
        return "switching_within_request"
    return None


def may_keep(head: RequestHead, *, is_request_read: bool, is_closing: bool) -> bool:
    """Say whether the client's connection may bring another request after a response of the edge's own."""
    return head.version == b"1.1" and head.is_persistent and is_request_read and not is_closing


class Delivery(NamedTuple):
    """How a backend's response goes to the client."""

    keeps: bool
    """The client's connection may bring another request."""
    connection_option: bytes
    """For the Connection header: close, keep-alive or empty."""
    is_chunked: bool
    """The client gets the body in chunks."""
    is_unwrapped: bool
    """The backend's chunks are taken off for a client of HTTP/1.0; the end of the connection ends the body."""


def delivery_of(request: RequestHead, response: ResponseHead, *, is_request_read: bool, is_closing: bool) -> Delivery:
    """Decide how a response goes to the client (RFC 9112, sections 6.3 and 9.3)."""
    is_http_1_0 = request.version == b"1.0"
    is_chunked = response.framing is Framing.CHUNKED
    is_unwrapped = is_chunked and is_http_1_0
    keeps = (
        request.is_persistent
        and is_request_read
        and not is_closing
        and response.framing is not Framing.UNTIL_CLOSE
        and not is_unwrapped
    )
    option = (b"keep-alive" if is_http_1_0 else b"") if keeps else b"close"
    return Delivery(keeps, option, is_chunked and not is_unwrapped, is_unwrapped)
