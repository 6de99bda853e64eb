"""What a DNS query says: bytes -> one question and what its sender can take (RFC 1035, EDNS of RFC 6891)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dnslib import RR, DNSRecord

MIN_DATAGRAM_BYTES: Final = 512
"""What everybody takes without saying so (RFC 1035 section 4.2.1)."""
HEADER_BYTES: Final = 12

_LONGEST_QUERY_BYTES: Final = 4096
"""Far more than a question and its options need."""
_MOST_RECORDS: Final = 3
"""Beside the question: the client's options, a signature, and the serial of one who wants a transfer."""
_LONGEST_LABEL: Final = 63
_LONGEST_NAME_BYTES: Final = 255
_OPT: Final = 41
_IS_ANSWER: Final = 0x80


class BadQuery(Exception):
    """Not a query as the standards have it: FORMERR."""


@dataclass(frozen=True, slots=True)
class Edns:
    """What a client said by EDNS. `payload_bytes` is the largest datagram it takes."""

    version: int
    payload_bytes: int
    wants_dnssec: bool


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `labels` are those of the name as they were sent, upper and lower case."""

    id: int
    is_recursion_desired: bool
    labels: tuple[bytes, ...]
    type: int
    class_: int
    edns: Edns | None

    @property
    def datagram_bytes(self) -> int:
        """The largest datagram the client takes."""
        return MIN_DATAGRAM_BYTES if self.edns is None else max(self.edns.payload_bytes, MIN_DATAGRAM_BYTES)


def is_query(message: bytes) -> bool:
    """Say whether a message may be answered at all: it has a header, and is no answer itself."""
    return len(message) >= HEADER_BYTES and not message[2] & _IS_ANSWER


def opcode(message: bytes) -> int:
    """Return what kind of query a message is; 0 is the usual one."""
    return message[2] >> 3 & 0xF


def read_query(message: bytes) -> Query:
    """Read a message of opcode 0. Raises BadQuery."""
    questions, *others = (int.from_bytes(message[at : at + 2], "big") for at in (4, 6, 8, 10))
    # Several questions were never defined, and RFC 9619 forbids them. The bounds keep junk cheap to refuse.
    if questions != 1 or sum(others) > _MOST_RECORDS or len(message) > _LONGEST_QUERY_BYTES:
        raise BadQuery
    try:
        record = DNSRecord.parse(message)
    except Exception as error:  # the parser was written for messages of good faith: junk may break it anywhere
        raise BadQuery from error
    name = record.questions[0].qname.label
    if any(len(label) > _LONGEST_LABEL for label in name) or sum(map(len, name), len(name) + 1) > _LONGEST_NAME_BYTES:
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
    """Read the OPT record, of which there is one at most, and at the root (RFC 6891 section 6.1.1). Raises BadQuery."""
    if not options:
        return None
    option = options[0]
    if len(options) > 1 or option.rname.label:
        raise BadQuery
    return Edns(option.edns_ver, option.edns_len, bool(option.edns_do))
