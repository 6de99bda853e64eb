"""Reads how the body of an HTTP/1.1 message ends and whether its connection persists (RFC 9112 6.3, 9.3).

`known` are header lines by name in lower case, collected by add_field. It must contain at least those read here.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from app.wire.http1_faults import TOKEN, refused


class Framing(Enum):
    """How the end of the body is determined (RFC 9112 6.3)."""

    NONE = auto()  # no body: nothing follows the head, whatever the headers say
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()  # in responses only


NO_BODY: Final = (Framing.NONE, 0)
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_KEEP_ALIVE: Final = frozenset((b"keep-alive",))


def add_field(known: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """Add a header line. A repeated one extends the list of the first (RFC 9110 5.3) if the field may be a list."""
    if name not in known:
        known[name] = value
    elif name == b"host":
        raise refused("host_repeated")
    elif name == b"content-length":
        raise refused("content_length_repeated")
    else:
        known[name] += b", " + value


def framing_of(known: dict[bytes, bytes], version: bytes) -> tuple[Framing, int]:
    """Return the framing of the body and its length, from the two framing headers (RFC 9112 6.3). Raises BadMessage."""
    coding = known.get(b"transfer-encoding")
    length = known.get(b"content-length")
    if coding is None:
        count = 0 if length is None else _content_length(length)
        return (Framing.LENGTH, count) if count else NO_BODY
    if length is not None:
        raise refused("content_length_and_transfer_encoding")
    if version == b"1.0":
        raise refused("transfer_encoding_in_http_1_0")
    if coding.lower() != b"chunked":
        codings = [one.strip(b" \t") for one in coding.lower().split(b",")]
        names = [one.partition(b";")[0].rstrip(b" \t") for one in codings]
        is_list = all(TOKEN.fullmatch(name) for name in names)
        if not is_list or b"chunked" in names[:-1] or codings[-1].startswith(b"chunked;"):
            raise refused("transfer_encoding")
        raise refused("unknown_transfer_coding")
    return Framing.CHUNKED, 0


def _content_length(value: bytes) -> int:
    # 63 bits: the parser accepts 64, but an origin with signed integers would read the upper half as negative. The
    # number of digits is checked first because int() of a long text is slow or raises.
    if not value.isdigit() or len(value) > 19 or (count := int(value)) >= 1 << 63:
        raise refused("content_length")
    return count


def connection_of(value: bytes | None, version: bytes) -> tuple[bool, frozenset[bytes]]:
    """Return whether the connection persists (RFC 9112 9.3), and the options in Connection, in lower case."""
    if value is None:
        return version == b"1.1", _NO_OPTIONS
    if value == b"keep-alive":  # what most servers send
        return True, _KEEP_ALIVE
    options = frozenset(option.strip(b" \t") for option in value.lower().split(b","))
    if b"close" in options:
        return False, options
    return version == b"1.1" or b"keep-alive" in options, options


def upgrade_of(known: dict[bytes, bytes], options: frozenset[bytes], version: bytes) -> bytes | None:
    if b"upgrade" not in options or version != b"1.1":
        return None
    return known.get(b"upgrade", b"").lower() or None
