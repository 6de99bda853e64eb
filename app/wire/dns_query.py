"""Parses DNS queries: from bytes to one question and the options of its sender (RFC 1035, EDNS of RFC 6891)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dnslib import RR, DNSRecord

MIN_DATAGRAM_BYTES: Final = 512
"""The size that every client accepts (RFC 1035 section 4.2.1)."""
HEADER_BYTES: Final = 12

_MAX_QUERY_BYTES: Final = 4096
"""Far more than a question and its options need."""
_MAX_RECORDS: Final = 3
"""Besides the question: the client's options, a signature, and the serial of a client that wants a transfer."""
_MAX_LABEL_BYTES: Final = 63
_MAX_NAME_BYTES: Final = 255
_OPT: Final = 41
_IS_RESPONSE: Final = 0x80


class BadQuery(Exception):
    """The message is not a valid query; it gets FORMERR."""


@dataclass(frozen=True, slots=True)
class Edns:
    """The EDNS options of a client. `payload_bytes` is the largest datagram that it accepts."""

    version: int
    payload_bytes: int
    wants_dnssec: bool


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `labels` are those of the name, in the case in which they were sent."""

    id: int
    is_recursion_desired: bool
    labels: tuple[bytes, ...]
    type: int
    class_: int
    edns: Edns | None

    @property
    def datagram_bytes(self) -> int:
        """The largest datagram that the client accepts."""
        return MIN_DATAGRAM_BYTES if self.edns is None else max(self.edns.payload_bytes, MIN_DATAGRAM_BYTES)


def is_query(message: bytes) -> bool:
    """Return whether a message may get a response: it has a header, and is not a response itself."""
    return len(message) >= HEADER_BYTES and not message[2] & _IS_RESPONSE


def opcode(message: bytes) -> int:
    """Return the opcode of a message; 0 is QUERY."""
    return message[2] >> 3 & 0xF


def read_query(message: bytes) -> Query:
    """Read a message of opcode 0. Raises BadQuery."""
    questions, *others = (int.from_bytes(message[at : at + 2], "big") for at in (4, 6, 8, 10))
    # Several questions were never defined, and RFC 9619 forbids them. The bounds make junk cheap to refuse.
    if questions != 1 or sum(others) > _MAX_RECORDS or len(message) > _MAX_QUERY_BYTES:
        raise BadQuery
    try:
        record = DNSRecord.parse(message)
    except Exception as error:  # the parser does not expect malformed messages, which may raise anything
        raise BadQuery from error
    name = record.questions[0].qname.label
    if any(len(label) > _MAX_LABEL_BYTES for label in name) or sum(map(len, name), len(name) + 1) > _MAX_NAME_BYTES:
        raise BadQuery
    return Query(
        record.header.id,
        bool(record.header.rd),
        name,
        record.questions[0].qtype,
        record.questions[0].qclass,
        _edns([extra for extra in record.ar if extra.rtype == _OPT]),
    )


def _edns(options: list[RR]) -> Edns | None:
    """Read the OPT record: at most one is allowed, at the root (RFC 6891 section 6.1.1). Raises BadQuery."""
    if not options:
        return None
    option = options[0]
    if len(options) > 1 or option.rname.label:
        raise BadQuery
    return Edns(option.edns_ver, option.edns_len, bool(option.edns_do))
