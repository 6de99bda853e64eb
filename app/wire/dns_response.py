"""The responses of the internal DNS: from a query and the present zone to bytes. Uses no sockets.

Opcodes other than QUERY get NOTIMP, malformed queries FORMERR. Other classes, names outside the domain and transfers
are REFUSED. A name that does not exist is NXDOMAIN; one without records of the requested type gets an empty answer
section. Both have the SOA record, so that they can be cached (RFC 2308). An unknown version of EDNS gets BADVERS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from dnslib import AAAA, EDNS0, NS, QTYPE, RD, RR, SOA, SRV, TXT, A, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

from app.domain.dns_zone import DnsBackend, Labels, Node, RandomSource, Zone, nearest
from app.wire.dns_query import HEADER_BYTES, BadQuery, Edns, Query, is_query, opcode, read_query

MAX_DATAGRAM_BYTES: Final = 1232
"""Fits every path unfragmented; also the size that we advertise (DNS flag day 2020)."""

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
BADVERS: Final = 16
RCODES: Final = {
    NOERROR: "NOERROR",
    FORMERR: "FORMERR",
    SERVFAIL: "SERVFAIL",
    NXDOMAIN: "NXDOMAIN",
    NOTIMP: "NOTIMP",
    REFUSED: "REFUSED",
    BADVERS: "BADVERS",
}

_VARIANTS: Final = 8
"""Cached responses per question, with equal backends in different orders; a random one is sent."""
_MAX_CACHED: Final = 1024
"""Questions whose responses are cached, 14 MB at most."""
_IN: Final = 1
_HINFO: Final = 13
_TRANSFERS: Final = (QTYPE.AXFR, QTYPE.IXFR)
_ANY_ANSWER: Final = RD(b"\x07RFC8482\x00")
_RECURSION_DESIRED: Final = 0x01
_LARGEST_SRV_NUMBER: Final = 65535
_LONGEST_STRING: Final = 255
# The SOA's times for secondary servers, of which there are none.
_REFRESH_SECONDS, _RETRY_SECONDS, _EXPIRE_SECONDS = 3600, 1200, 604_800


@dataclass(frozen=True, slots=True)
class Response:
    """The bytes of a response, and its response code."""

    message: bytes
    rcode: int


class Responder:
    """Responds to queries for one domain from the zone that `zone()` returns.

    Making a response takes 100-400 µs, mostly in dnslib. So responses are cached until the zone changes: clients mostly
    repeat the same bytes with another id.
    """

    def __init__(self, domain: str, ttl_seconds: int, zone: Callable[[], Zone], rng: RandomSource) -> None:
        self._domain = tuple(label.encode() for label in domain.split("."))
        self._ttl_seconds = ttl_seconds
        self._zone = zone
        self._rng = rng
        self._cache: dict[bytes, list[Response]] = {}
        self._cached_zone: Zone | None = None

    def respond(self, message: bytes, *, is_datagram: bool) -> Response | None:
        """Return the response to a message, None if it must not get one. By stream, a response may have any size."""
        if not is_query(message):
            return None
        if not is_datagram:
            return self._make(message, None)
        zone = self._zone()
        if zone is not self._cached_zone:
            self._cache, self._cached_zone = {}, zone
        variants = self._cache.get(message[2:], [])
        if len(variants) == _VARIANTS:
            variant = variants[int(self._rng() * _VARIANTS)]
            return Response(message[:2] + variant.message[2:], variant.rcode)
        response = self._make(message, MAX_DATAGRAM_BYTES)
        if response.rcode == NOERROR and (variants or len(self._cache) < _MAX_CACHED):
            self._cache.setdefault(message[2:], variants).append(response)
        return response

    def _make(self, message: bytes, largest: int | None) -> Response:
        if opcode(message) != 0:
            return failure(message, NOTIMP)
        try:
            query = read_query(message)
        except BadQuery:
            return failure(message, FORMERR)
        reply = self._reply(query)
        return Response(reply.pack(None if largest is None else min(query.datagram_bytes, largest)), reply.rcode)

    def _reply(self, query: Query) -> _Reply:
        reply = _Reply(query)
        asked = tuple(label.lower() for label in query.labels)
        own = len(asked) - len(self._domain)
        if query.edns is not None and query.edns.version != 0:
            reply.rcode = BADVERS
        elif query.class_ != _IN or asked[max(own, 0) :] != self._domain or query.type in _TRANSFERS:
            reply.rcode = REFUSED
        else:
            self._look_up(reply, tuple(label.decode("latin-1") for label in asked[:own]), query)
        return reply

    def _look_up(self, reply: _Reply, name: Labels, query: Query) -> None:
        zone, apex = self._zone(), query.labels[len(name) :]
        node = zone.nodes.get(name)
        reply.is_authoritative = True
        if node is None:
            reply.rcode = NXDOMAIN
        else:
            for type_, data in self._records(node, name, apex, query.type, zone):
                reply.answers.append(self._record(query.labels, type_, data))
            if query.type == QTYPE.SRV:
                self._add_addresses(reply, node, apex)
        if not reply.answers:
            reply.authority.append(self._record(apex, QTYPE.SOA, self._soa(apex, zone)))

    def _records(
        self, node: Node, name: Labels, apex: tuple[bytes, ...], type_: int, zone: Zone
    ) -> Iterator[tuple[int, RD]]:
        """Yield the type and data of every record at a node that matches a question of `type_`."""
        if type_ == QTYPE.ANY:  # as little as the standard allows, against amplification attacks (RFC 8482)
            yield _HINFO, _ANY_ANSWER
        elif type_ in (QTYPE.A, QTYPE.AAAA):
            for backend in nearest(node.backends, self._rng):
                yield from (found for found in _address(backend) if found[0] == type_)
        elif type_ == QTYPE.SRV:
            for backend in node.backends:
                if backend.name is not None:
                    yield type_, _srv(backend, backend.name, apex)
        elif type_ == QTYPE.TXT and node.text:
            yield type_, TXT([node.text[at : at + _LONGEST_STRING] for at in range(0, len(node.text), _LONGEST_STRING)])
        elif type_ == QTYPE.SOA and not name:
            yield type_, self._soa(apex, zone)
        elif type_ == QTYPE.NS and not name:
            yield type_, NS(DNSLabel(apex))

    def _add_addresses(self, reply: _Reply, node: Node, apex: tuple[bytes, ...]) -> None:
        """Add the addresses of the targets, which saves the client further queries (RFC 2782)."""
        for backend in node.backends:
            if backend.name is not None:
                for type_, data in _address(backend):
                    reply.additional.append(self._record(_below(backend.name, apex), type_, data))

    def _record(self, name: Iterable[bytes], type_: int, data: RD) -> RR:
        return RR(DNSLabel(tuple(name)), type_, _IN, self._ttl_seconds, data)

    def _soa(self, apex: tuple[bytes, ...], zone: Zone) -> SOA:
        """Return the SOA record. The domain itself is named as its server, as in RFC 6303 section 3."""
        times = (zone.serial, _REFRESH_SECONDS, _RETRY_SECONDS, _EXPIRE_SECONDS, self._ttl_seconds)
        return SOA(DNSLabel(apex), DNSLabel((b"nobody", b"invalid")), times)


def failure(message: bytes, rcode: int) -> Response:
    """Return the response to a message that was not understood: only its header is sent back."""
    flags = 0x80 | message[2] & 0x78 | message[2] & _RECURSION_DESIRED
    return Response(message[:2] + bytes((flags, rcode)) + bytes(HEADER_BYTES - 4), rcode)


def _below(name: Labels, apex: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return (*(label.encode() for label in name), *apex)


def _address(backend: DnsBackend) -> list[tuple[int, RD]]:
    """Return the record of a backend's address; none for a link-local address, which is useless elsewhere."""
    if "%" in backend.address:
        return []
    if ":" in backend.address:
        return [(QTYPE.AAAA, AAAA(tuple(ipaddress.IPv6Address(backend.address).packed)))]
    return [(QTYPE.A, A(backend.address))]


def _srv(backend: DnsBackend, name: Labels, apex: tuple[bytes, ...]) -> SRV:
    weight = min(backend.weight, _LARGEST_SRV_NUMBER)
    return SRV(backend.tier, weight, backend.port, DNSLabel(_below(name, apex)))


class _Reply:
    """A response while it is built."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self.rcode = NOERROR
        self.is_authoritative = False
        self.answers: list[RR] = []
        self.authority: list[RR] = []
        self.additional: list[RR] = []

    def pack(self, largest: int | None) -> bytes:
        """Return the bytes of the message, at most `largest`.

        If it is too long, the additional addresses are left out. If that is not enough, it is sent empty and marked as
        truncated, so that the client asks again by TCP (RFC 2181 section 9).
        """
        message = self._pack(self.answers, self.additional)
        if largest is not None and len(message) > largest and self.additional:
            message = self._pack(self.answers, [])
        if largest is not None and len(message) > largest:
            message = self._pack([], [], is_truncated=True)
        return message

    def _pack(self, answers: list[RR], additional: list[RR], *, is_truncated: bool = False) -> bytes:
        query = self._query
        header = DNSHeader(
            id=query.id,
            bitmap=0,
            qr=1,
            aa=int(self.is_authoritative),
            tc=int(is_truncated),
            rd=int(query.is_recursion_desired),
            rcode=self.rcode & 0xF,
        )
        question = DNSQuestion(DNSLabel(query.labels), query.type, query.class_)
        options = [] if query.edns is None else [self._options(query.edns)]
        record = DNSRecord(header, questions=[question], rr=answers, auth=self.authority, ar=[*additional, *options])
        return bytes(record.pack())

    def _options(self, edns: Edns) -> EDNS0:
        flags = "do" if edns.wants_dnssec else ""
        return EDNS0(udp_len=MAX_DATAGRAM_BYTES, ext_rcode=self.rcode >> 4, flags=flags)
