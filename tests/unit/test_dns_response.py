"""DNS queries and responses as bytes: response codes, EDNS, truncation, and junk, which gets an error or is dropped."""

from __future__ import annotations

import random
from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, TXT, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from app.domain.dns_zone import Zone, make_zone
from app.wire.dns_response import MAX_DATAGRAM_BYTES, RCODES, Responder, Response, failure
from tests.unit.pools import PoolUnderTest, backend

TTL = 5
BACKENDS = [
    backend("gru-1", app="web", host="10.0.1.1", port=8001),
    backend("gru-2", app="web", host="fd00::2", port=8002, weight=70_000),
    backend("fra-1", "DE/eu", app="web", host="10.0.2.1", port=8003),
    backend("link", app="link", host="fe80::1%wg0"),
    backend("ill", app="down", is_healthy=False),
    *(backend(f"{'b' * 50}-{n}", app="many", host=f"fd00::{n:x}") for n in range(1, 17)),
]


def zone_of(*backends: Any) -> Zone:
    pool = PoolUnderTest(backends)
    return make_zone({"default": pool.pool.view(pool.now)}, "sa", 7, random.Random(1).random)


def responder(zone: Zone | None = None, domain: str = "internal") -> Responder:
    known = zone or zone_of(*BACKENDS)
    return Responder(domain, TTL, lambda: known, random.Random(1).random)


RESPONDER = responder()


def query(name: str, kind: str = "A", *options: Any, class_: int = 1, **header: int) -> bytes:
    record = DNSRecord(DNSHeader(id=4711, bitmap=0, **{"rd": 1, **header}))
    record.add_question(DNSQuestion(name, getattr(QTYPE, kind), class_))
    record.add_ar(*options)
    return bytes(record.pack())


def answered(message: bytes, *, by: Responder = RESPONDER, is_datagram: bool = True) -> Response:
    answer = by.respond(message, is_datagram=is_datagram)
    assert answer is not None
    return answer


def ask(name: str, kind: str = "A", *options: Any, by: Responder = RESPONDER, **more: int) -> DNSRecord:
    answer = answered(query(name, kind, *options, **more), by=by)
    reply = DNSRecord.parse(answer.message)
    assert (reply.header.id, reply.header.qr, reply.header.ra) == (4711, 1, 0)
    assert reply.header.rcode == answer.rcode & 0xF
    return reply


def data(records: list[RR]) -> list[str]:
    return [str(record.rdata) for record in records]


def code(reply: DNSRecord) -> str:
    return str(RCODE[reply.header.rcode])


# What stands at a name


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.internal", "A", ["10.0.1.1"]),
        ("web.internal", "AAAA", ["fd00::2"]),
        ("eu.web.internal", "A", ["10.0.2.1"]),
        ("fra-1.web.internal", "A", ["10.0.2.1"]),
        ("eu.backends.internal", "A", ["10.0.2.1"]),
        ("regions.web.internal", "TXT", ['"eu,sa"']),
        ("pops.internal", "TXT", ['"sa,eu"']),
        ("internal", "NS", ["internal."]),
        ("internal", "SOA", ["internal. nobody.invalid. 7 3600 1200 604800 5"]),
        ("web.internal", "ANY", ["\\# 9 075246433834383200"]),
    ],
)
def test_existing_names_get_records(name: str, kind: str, expected: list[str]) -> None:
    reply = ask(name, kind)
    assert (code(reply), data(reply.rr), reply.header.aa) == ("NOERROR", expected, 1)
    assert {(str(record.rname), record.ttl) for record in reply.rr} == {(f"{name}.", TTL)}
    assert not reply.auth


def test_services_come_with_ports_tiers_and_weights_and_their_addresses_with_them() -> None:
    reply = ask("web.internal", "SRV")
    assert set(data(reply.rr)) == {
        "2 1 8001 gru-1.web.internal.",
        "2 65535 8002 gru-2.web.internal.",
        "3 1 8003 fra-1.web.internal.",
    }
    assert {(str(record.rname), str(record.rdata)) for record in reply.ar} == {
        ("gru-1.web.internal.", "10.0.1.1"),
        ("gru-2.web.internal.", "fd00::2"),
        ("fra-1.web.internal.", "10.0.2.1"),
    }


def test_a_text_of_any_length_is_sent_in_pieces() -> None:
    zone = zone_of(*(backend(f"b{n}", f"/region-number-{n:03}", app="web") for n in range(40)))
    (record,) = ask("regions.web.internal", "TXT", EDNS0(udp_len=1232), by=responder(zone)).rr
    assert b"".join(record.rdata.data).decode() == ",".join(f"region-number-{n:03}" for n in range(40))
    assert len(record.rdata.data) > 1


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("nobody.internal", "A", "NXDOMAIN"),
        ("x.gru-1.web.internal", "A", "NXDOMAIN"),
        ("nobody.internal", "ANY", "NXDOMAIN"),
        ("internal", "A", "NOERROR"),
        ("web.internal", "MX", "NOERROR"),
        ("web.internal", "TXT", "NOERROR"),
        ("gru-1.web.internal", "AAAA", "NOERROR"),
        ("down.internal", "A", "NOERROR"),
        ("link.internal", "AAAA", "NOERROR"),
        ("backends.internal", "A", "NOERROR"),
    ],
)
def test_negative_responses_have_the_soa_record(name: str, kind: str, rcode: str) -> None:
    reply = ask(name, kind)
    assert (code(reply), reply.rr, reply.header.aa) == (rcode, [], 1)
    (soa,) = reply.auth
    assert (str(soa.rname), QTYPE[soa.rtype], soa.ttl, soa.rdata.times[-1]) == ("internal.", "SOA", TTL, TTL)


@pytest.mark.parametrize(
    ("name", "kind", "class_"),
    [
        ("example.com", "A", 1),
        ("internal.example", "A", 1),
        ("notinternal", "A", 1),
        (".", "NS", 1),
        ("web.internal", "A", 3),
        ("web.internal", "A", 255),
        ("internal", "AXFR", 1),
        ("internal", "IXFR", 1),
    ],
)
def test_queries_outside_the_domain_are_refused(name: str, kind: str, class_: int) -> None:
    reply = ask(name, kind, class_=class_)
    assert (code(reply), reply.rr, reply.auth, reply.header.aa) == ("REFUSED", [], [], 0)


def test_a_domain_may_have_several_labels() -> None:
    by = responder(domain="edge.example")
    assert data(ask("web.edge.example", by=by).rr) == ["10.0.1.1"]
    assert code(ask("web.example", by=by)) == code(ask("example", by=by)) == "REFUSED"


def test_upper_and_lower_case_come_back_as_they_were_sent() -> None:
    message = query("wEb.InTeRnAl")
    reply = answered(message)
    assert message[12:] in reply.message
    assert {str(record.rname) for record in DNSRecord.parse(reply.message).rr} == {"wEb.InTeRnAl."}
    absent = DNSRecord.parse(answered(query("Nobody.InTeRnAl")).message)
    assert str(absent.auth[0].rname) == "InTeRnAl."


def test_whether_recursion_was_wished_for_comes_back() -> None:
    assert ask("web.internal", rd=1).header.rd == 1
    assert ask("web.internal", rd=0).header.rd == 0


def test_equals_take_turns_even_in_cached_responses() -> None:
    zone = zone_of(*(backend(f"b{n}", app="web", host=f"10.0.0.{n}") for n in range(1, 5)))
    by, message = responder(zone), query("web.internal")
    first = {data(DNSRecord.parse(answered(message, by=by).message).rr)[0] for _ in range(200)}
    assert first == {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}


def test_a_cached_response_has_the_id_of_each_query_and_expires_with_the_zone() -> None:
    zones = [zone_of(backend("a", app="web", host="10.0.0.1"))]
    by = Responder("internal", TTL, lambda: zones[-1], random.random)
    for number in range(20):
        reply = DNSRecord.parse(answered(number.to_bytes(2, "big") + query("web.internal")[2:], by=by).message)
        assert (reply.header.id, data(reply.rr)) == (number, ["10.0.0.1"])
    zones.append(zone_of(backend("a", app="web", host="10.0.0.2")))
    assert data(ask("web.internal", by=by).rr) == ["10.0.0.2"]


# EDNS and size


def test_a_query_without_options_gets_none() -> None:
    assert ask("web.internal").ar == []


@pytest.mark.parametrize("flags", ["", "do"])
def test_options_in_a_query_get_options_in_the_response(flags: str) -> None:
    (option,) = ask("web.internal", "A", EDNS0(udp_len=4096, flags=flags)).ar
    assert (option.rtype, option.edns_len, option.edns_ver, option.edns_rcode) == (QTYPE.OPT, MAX_DATAGRAM_BYTES, 0, 0)
    assert option.edns_do == (flags == "do")


def test_another_version_is_bad_whatever_is_asked() -> None:
    for name in ("web.internal", "example.com"):
        answer = answered(query(name, "A", EDNS0(version=1, udp_len=1232)))
        reply = DNSRecord.parse(answer.message)
        (option,) = reply.ar
        assert (RCODES[answer.rcode], reply.header.rcode, option.edns_rcode, option.edns_ver) == ("BADVERS", 0, 1, 0)
        assert reply.rr == []


@pytest.mark.parametrize("options", [(EDNS0(), EDNS0()), (EDNS0("somewhere"),)])
def test_options_given_twice_or_for_a_name_are_malformed(options: tuple[Any, ...]) -> None:
    assert RCODES[answered(query("web.internal", "A", *options)).rcode] == "FORMERR"


@pytest.mark.parametrize(
    ("kind", "takes", "fits", "has_addresses"),
    [
        ("AAAA", None, True, False),
        ("SRV", None, False, False),
        ("SRV", 100, False, False),
        ("SRV", 512, False, False),
        ("SRV", 1232, False, False),
        ("SRV", 65535, False, False),
    ],
)
def test_a_response_that_does_not_fit_is_truncated(
    kind: str, takes: int | None, fits: bool, has_addresses: bool
) -> None:
    options = () if takes is None else (EDNS0(udp_len=takes),)
    message = query("many.internal", kind, *options)
    answer = answered(message)
    reply = DNSRecord.parse(answer.message)
    assert len(answer.message) <= min(max(takes or 512, 512), MAX_DATAGRAM_BYTES)
    assert (bool(reply.header.tc), bool(reply.rr)) == (not fits, fits)
    assert len(reply.ar) == len(options)
    whole = DNSRecord.parse(answered(message, is_datagram=False).message)
    assert (whole.header.tc, len(whole.rr)) == (0, 16)
    assert len(whole.ar) - len(options) == (16 if kind == "SRV" else 0)


def test_addresses_that_were_not_asked_for_are_left_out_first() -> None:
    zone = zone_of(*(backend(f"{'b' * 30}-{n}", app="web", host=f"fd00::{n:x}") for n in range(1, 6)))
    reply = DNSRecord.parse(answered(query("web.internal", "SRV"), by=responder(zone)).message)
    assert (reply.header.tc, len(reply.rr), reply.ar) == (0, 5, [])


def test_a_query_for_any_gets_a_minimal_response() -> None:
    assert len(answered(query("many.internal", "ANY")).message) < 2 * len(query("many.internal", "ANY"))


# What is no query


def test_responses_and_fragments_get_no_response() -> None:
    for message in (b"", b"x" * 11, query("web.internal", qr=1), answered(query("web.internal")).message):
        assert RESPONDER.respond(message, is_datagram=True) is None


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6, 15])
def test_other_opcodes_are_not_implemented(opcode: int) -> None:
    answer = answered(query("web.internal", opcode=opcode))
    reply = DNSRecord.parse(answer.message)
    assert (code(reply), reply.header.id, reply.header.opcode, len(answer.message)) == ("NOTIMP", 4711, opcode, 12)


def several(count: int) -> bytes:
    record = DNSRecord(DNSHeader(id=4711))
    for _ in range(count):
        record.add_question(DNSQuestion("web.internal"))
    return bytes(record.pack())


def with_records(count: int) -> bytes:
    record = DNSRecord.parse(query("web.internal"))
    for _ in range(count):
        record.add_ar(RR("x", QTYPE.TXT, rdata=TXT("x")))
    return bytes(record.pack())


HEADER = query("web.internal")[:12]
MALFORMED = {
    "no question": several(0),
    "two questions": several(2),
    "more records than a query has": with_records(4),
    "cut off in the name": query("web.internal")[:-8],
    "cut off in the type": query("web.internal")[:-3],
    "a label of 64 bytes": HEADER + b"\x40" + b"a" * 64 + b"\x08internal\0\0\1\0\1",
    "a name of 256 bytes": HEADER + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
    "a name that points at itself": HEADER + b"\xc0\x0c\0\1\0\1",
    "a name that points forward": HEADER + b"\xc0\xff\0\1\0\1",
    "too long": query("web.internal") + bytes(4096),
    "a record without an end": HEADER[:10] + b"\0\1" + query("web.internal")[12:] + b"\0\0\x29\xff",
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_query_gets_formerr(message: bytes) -> None:
    answer = answered(message)
    assert (RCODES[answer.rcode], answer.message[:2], len(answer.message)) == ("FORMERR", message[:2], 12)


def test_a_failure_of_ours_is_one_of_the_server() -> None:
    reply = DNSRecord.parse(failure(query("web.internal"), 2).message)
    assert (code(reply), reply.header.id, reply.header.qr, reply.header.rd) == ("SERVFAIL", 4711, 1, 1)


@given(st.binary(max_size=600), st.booleans())
def test_junk_gets_an_error_response_or_is_dropped(junk: bytes, is_datagram: bool) -> None:
    answer = RESPONDER.respond(junk, is_datagram=is_datagram)
    if answer is not None:
        assert answer.message[:2] == junk[:2]
        assert answer.message[2] & 0x80


@given(st.data())
def test_a_query_with_changed_bytes_gets_a_response_or_is_dropped(chosen: st.DataObject) -> None:
    message = bytearray(query("gru-1.web.internal", "SRV", EDNS0(udp_len=1232)))
    for _ in range(chosen.draw(st.integers(1, 4))):
        message[chosen.draw(st.integers(0, len(message) - 1))] = chosen.draw(st.integers(0, 255))
    cut = chosen.draw(st.integers(0, len(message)))
    answer = RESPONDER.respond(bytes(message[:cut]), is_datagram=True)
    if answer is not None:
        assert len(answer.message) <= MAX_DATAGRAM_BYTES
        assert answer.rcode in RCODES
