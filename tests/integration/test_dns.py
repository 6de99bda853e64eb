"""The internal DNS of a running edge, queried with dig, kdig and dnsperf."""

from __future__ import annotations

import csv
import random
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
from dnslib import RCODE, DNSRecord

from actors.runtime import Crash, tell
from app.inbound.dns import server as dns_server
from app.inbound.listener import BindError
from app.wire.dns_response import Responder
from tests.edge_in_process import edge_in_process
from tests.harness import ROOT, EdgeProcess, eventually, pool, row, write_backends
from tests.harness import frontend as front
from tests.programs import program
from tests.traffic import ask, named

ROWS = [
    row("gru-1", 8001, app="web", region="sa", country="BR", wg_ip="10.50.1.1"),
    row("gru-2", 8002, app="web", region="sa", country="BR", wg_ip="fd00:50:1::2"),
    row("fra-1", 8003, app="web", region="eu", country="DE", wg_ip="10.50.2.1"),
    row("fra-2", 8004, app="web", region="eu", country="DE", wg_ip="10.50.2.2", healthy=0),
    row("db-1", 5432, app="db", region="eu", country="DE", wg_ip="10.50.2.3"),
]
TTL = 7


class Dns:
    """The DNS of an edge at one of its addresses."""

    def __init__(self, proxy: EdgeProcess, number: int = 0) -> None:
        event = proxy.event("DNS for")
        assert event is not None
        self.proxy = proxy
        self.count = len(event["dns"])
        host, _, port = event["dns"][number].rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)

    def run(self, name: str, package: str, *words: str) -> str:
        """Run a program, which must succeed. Returns its output."""
        command = [program(name, package), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def dig(self, *words: str) -> str:
        printed = self.run("dig", "bind9-dnsutils", f"@{self.host}", "-p", str(self.port), "+tries=1", *words)
        assert "malformed" not in printed and "extra bytes" not in printed, printed
        return printed

    def short(self, *words: str) -> list[str]:
        return self.dig("+short", *words).split("\n")[:-1]

    def udp(self, to: str = "") -> socket.socket:
        """Return a connected socket: an answer from another address does not arrive."""
        sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(10)
        sock.connect((to or self.host, self.port))
        return sock

    def tcp(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), 10)

    def ask(self, name: str, kind: str = "A", to: str = "") -> DNSRecord:
        """Query over UDP, and repeat lost datagrams: on a busy host the kernel drops what does not fit."""
        question = bytes(DNSRecord.question(name, kind).pack())
        with self.udp(to) as sock:
            sock.settimeout(2)
            for _ in range(5):
                sock.send(question)
                with suppress(TimeoutError):
                    return DNSRecord.parse(sock.recv(65535))
        raise TimeoutError(f"{name} {kind}: no answer")

    def addresses(self, name: str, kind: str = "A") -> set[str]:
        return {str(record.rdata) for record in self.ask(name, kind).rr}

    def answers(self, rcode: str) -> float:
        return self.proxy.metrics().get(f'edgeproxy_dns_responses_total{{rcode="{rcode}"}}', 0)


@pytest.fixture
def dns(edge: Callable[..., EdgeProcess]) -> Dns:
    return Dns(edge(ROWS, DNS_LISTEN_ADDR="127.0.0.1:0", DNS_TTL_SECS=TTL, REGION="sa"))


def status(text: str) -> str:
    found = re.search(r"status: (\w+)", text)
    assert found, text
    return found[1]


# The names


def test_dig_finds_every_kind_of_name(dns: Dns) -> None:
    assert dns.short("web.internal", "A") == ["10.50.1.1"]
    assert dns.short("web.internal", "AAAA") == ["fd00:50:1::2"]
    assert dns.short("eu.web.internal") == ["10.50.2.1"]
    assert dns.short("fra-2.web.internal") == ["10.50.2.2"], "by its own name whatever its health"
    assert sorted(dns.short("eu.backends.internal")) == ["10.50.2.1", "10.50.2.3"]
    assert dns.short("db.internal") == ["10.50.2.3"]
    assert dns.short("regions.web.internal", "TXT") == ['"eu,sa"']
    assert dns.short("pops.internal", "TXT") == ['"sa,eu"']
    answer = dns.dig("web.internal", "SRV")
    assert "flags: qr aa rd;" in answer
    services = {line.split()[-1]: line.split()[1:-1] for line in answer.splitlines() if "\tSRV\t" in line}
    assert services == {
        "gru-1.web.internal.": [str(TTL), "IN", "SRV", "2", "1", "8001"],
        "gru-2.web.internal.": [str(TTL), "IN", "SRV", "2", "1", "8002"],
        "fra-1.web.internal.": [str(TTL), "IN", "SRV", "3", "1", "8003"],
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nobody.internal"], "NXDOMAIN"),
        (["web.internal", "MX"], "NOERROR"),
        (["example.com"], "REFUSED"),
        (["CH", "TXT", "version.bind"], "REFUSED"),
        (["+opcode=notify", "web.internal"], "NOTIMP"),
        (["+edns=1", "+noednsnegotiation", "web.internal"], "BADVERS"),
        (["+header-only"], "FORMERR"),
    ],
)
def test_dig_gets_errors_by_both_protocols(dns: Dns, words: list[str], expected: str) -> None:
    for protocol in ("+notcp", "+tcp"):
        answer = dns.dig(protocol, *words)
        assert status(answer) == expected
        assert "ANSWER: 0" in answer
        assert ("\tSOA\t" in answer) == (expected in ("NXDOMAIN", "NOERROR"))
    assert eventually(lambda: dns.answers(expected)) == 2


def test_a_transfer_is_refused(dns: Dns) -> None:
    assert "Transfer failed" in dns.dig("internal", "AXFR")


def test_kdig_agrees_and_both_take_a_truncated_answer_for_a_reason_to_use_tcp(edge: Callable[..., EdgeProcess]) -> None:
    rows = [row(f"{'b' * 50}-{n}", 80, app="many", wg_ip=f"fd00::{n:x}") for n in range(1, 21)]
    dns = Dns(edge(rows, DNS_LISTEN_ADDR="127.0.0.1:0"))
    for words in (["+bufsize=4096"], ["+noedns"]):
        printed = dns.dig(*words, "+ignore", "many.internal", "SRV")
        assert "flags: qr aa tc rd;" in printed and "ANSWER: 0" in printed
        assert "flags: qr aa rd;" in dns.dig(*words, "many.internal", "SRV")
    at = [f"@{dns.host}", "-p", str(dns.port)]
    printed = dns.run("kdig", "knot-dnsutils", *at, "+edns", "many.internal", "SRV")
    assert "(TCP)" in printed and "ANSWER: 16;" in printed
    printed = dns.run("kdig", "knot-dnsutils", *at, "many.internal", "AAAA")
    assert "(UDP)" in printed and "ANSWER: 16;" in printed
    printed = dns.run("kdig", "knot-dnsutils", *at, "+tcp", "+keepopen", "many.internal", "A", "no.internal", "A")
    assert printed.count("(TCP)") == 2 and "NXDOMAIN" in printed


def test_dnsperf_gets_every_answer(dns: Dns, tmp_path: Path) -> None:
    queries = tmp_path / "queries"
    queries.write_text("web.internal A\nweb.internal SRV\nnobody.internal A\nregions.web.internal TXT\n")
    for mode in ("udp", "tcp"):
        at = ["-s", dns.host, "-p", str(dns.port), "-m", mode, "-d", str(queries)]
        printed = dns.run("dnsperf", "dnsperf", *at, "-l", "1", "-c", "8", "-q", "50")
        assert re.search(r"Queries lost: +0 ", printed), printed
        assert set(re.findall(r"[A-Z]{5,}(?= \d)", printed.partition("Response codes:")[2])) == {"NOERROR", "NXDOMAIN"}


def test_the_documented_questions_have_answers(edge: Callable[..., EdgeProcess]) -> None:
    demo = (ROOT / "app/data/demo_backends.csv").read_text()
    rows = [{**one, "port": int(one["port"])} for one in csv.DictReader(demo.splitlines())]
    dns = Dns(edge(rows, DNS_LISTEN_ADDR="127.0.0.1:0", REGION="af"))
    text = (ROOT / "docs/how-to/dns.md").read_text()
    questions = re.findall(r"^    dig @127\.0\.0\.1 -p 5353 ([^#\n]+)", text, re.MULTILINE)
    assert len(questions) > 6
    for question in questions:
        assert dns.short(*question.split()), question


def test_an_edge_with_a_configuration_file_names_its_pools(edge: Callable[..., EdgeProcess]) -> None:
    config = {
        "frontends": [front("a", "shop"), front("b", "rows", algorithm="geo")],
        "backends": [pool("shop", 8001), {"name": "rows", "app": "web"}],
    }
    proxy = edge(ROWS, config=config, DNS_LISTEN_ADDR="127.0.0.1:0", DNS_DOMAIN="Edge.Example", REGION="sa")
    dns = Dns(proxy)
    assert dns.addresses("shop.edge.example") == dns.addresses("127-0-0-1-8001.shop.edge.example") == {"127.0.0.1"}
    assert dns.addresses("web.edge.example") == {"10.50.1.1"}
    assert dns.ask("db.edge.example").header.rcode == RCODE.NXDOMAIN, "no pool of this edge has that app"
    assert dns.ask("web.internal").header.rcode == RCODE.REFUSED


# Where it listens


@pytest.mark.parametrize(("listen", "hosts"), [("[::1]:0", ["::1"]), ("*:0", ["127.0.0.1", "::1"])])
def test_it_listens_by_both_families(edge: Callable[..., EdgeProcess], listen: str, hosts: list[str]) -> None:
    proxy = edge(ROWS, DNS_LISTEN_ADDR=listen, REGION="sa")
    assert Dns(proxy).count == len(hosts)
    for number, host in enumerate(hosts):
        dns = Dns(proxy, number)
        dns.host = host
        assert dns.short("web.internal") == dns.short("+tcp", "web.internal") == ["10.50.1.1"]


def test_an_answer_comes_from_the_address_that_was_asked(edge: Callable[..., EdgeProcess]) -> None:
    dns = Dns(edge(ROWS, DNS_LISTEN_ADDR="0.0.0.0:0"))
    for host in ("127.0.0.1", "127.0.0.2", "127.9.8.7"):
        assert dns.ask("db.internal", to=host).rr


def test_without_an_address_dns_is_off(edge: Callable[..., EdgeProcess]) -> None:
    assert edge(ROWS).event("DNS for") is None


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_is_taken_stops_the_start_with_one_clear_line(tmp_path: Path, kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        fault = pytest.raises(BindError, match=f"cannot listen on 127.0.0.1:{port}.*in use")
        with fault, edge_in_process(tmp_path, [], DNS_LISTEN_ADDR=f"127.0.0.1:{port}"):
            pass


# The DNS and the rest of the edge


def test_it_follows_rows_health_and_load(edge: Callable[..., EdgeProcess], routing_db: Path, origin: Any) -> None:
    def backend(name: str, host: str, **more: Any) -> dict[str, Any]:
        return row(name, origin(named(name), host=host), app="web", wg_ip=host, soft_limit=10, **more)

    rows = [backend("a", "127.0.0.1"), backend("b", "127.0.0.2")]
    checked = {"HEALTH_CHECK": "tcp", "HEALTH_CHECK_INTERVAL_SECS": 0.1}
    proxy = edge(rows, DNS_LISTEN_ADDR="127.0.0.1:0", DNS_TTL_SECS=1, APP="web", **checked)
    proxy.wait_for_backends(2)
    dns = Dns(proxy)
    assert eventually(lambda: dns.addresses("web.internal") == {"127.0.0.1", "127.0.0.2"})
    with proxy.connect() as held:
        busy = {"a": "127.0.0.1", "b": "127.0.0.2"}[ask(held)]
        eventually(lambda: {str(dns.ask("web.internal").rr[-1].rdata) for _ in range(20)} == {busy})
    write_backends(routing_db, [rows[0], {**rows[1], "port": 1}])
    eventually(lambda: dns.addresses("web.internal") == {"127.0.0.1"}, what="the one that fails its probes is left out")
    assert dns.addresses("b.web.internal") == {"127.0.0.2"}
    write_backends(routing_db, rows[:1])
    eventually(lambda: dns.ask("b.web.internal").header.rcode == RCODE.NXDOMAIN)


def test_it_makes_no_binding_and_no_lease(dns: Dns) -> None:
    before = dns.proxy.metrics()
    for _ in range(50):
        assert dns.addresses("web.internal")
    after = dns.proxy.metrics()
    kinds = ("edgeproxy_leases", "edgeproxy_bindings", "edgeproxy_backend_connections", "edgeproxy_connections")
    assert {name: value for name, value in after.items() if name.startswith(kinds)} == {
        name: value for name, value in before.items() if name.startswith(kinds)
    }
    assert after['edgeproxy_dns_responses_total{rcode="NOERROR"}'] == 50


def test_it_answers_while_the_edge_withdraws_and_leaves_its_address_to_the_next_one(
    edge: Callable[..., EdgeProcess], origin: Any
) -> None:
    rows = [row("a", origin(named("a")), app="web")]
    dns = Dns(edge(rows, DNS_LISTEN_ADDR="127.0.0.1:0", DRAIN_WITHDRAW_SECS=2, DRAIN_TIMEOUT_SECS=30))
    with dns.proxy.connect() as held:
        assert ask(held) == "a"
        dns.proxy.process.send_signal(signal.SIGTERM)
        eventually(lambda: dns.proxy.event("draining"))
        assert dns.addresses("web.internal") == {"127.0.0.1"}
        with dns.tcp():
            assert ask(held) == "a"

        def is_refused() -> bool:
            with suppress(TimeoutError), dns.udp() as sock:
                sock.settimeout(0.2)
                try:
                    sock.send(b"x" * 12)
                    sock.recv(1)
                except ConnectionRefusedError:
                    return True
            return False

        eventually(is_refused, what="its address is free")
        assert ask(held) == "a"
    assert dns.proxy.wait() == 0


def test_it_survives_a_crash_of_the_registry(tmp_path: Path) -> None:
    with edge_in_process(tmp_path, ROWS, DNS_LISTEN_ADDR="127.0.0.1:0", REGION="sa") as inside:
        (address,) = inside.parts.dns.server.addresses

        def found() -> set[str]:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.connect((address.host, address.port))
                sock.send(bytes(DNSRecord.question("web.internal").pack()))
                return {str(record.rdata) for record in DNSRecord.parse(sock.recv(65535)).rr}

        assert found() == {"10.50.1.1"}
        tell(inside.actor("registry"), Crash())
        assert found() == {"10.50.1.1"}
        write_backends(tmp_path / "inside.db", [{**ROWS[0], "wg_ip": "10.50.1.9"}])
        eventually(lambda: found() == {"10.50.1.9"})


# Clients


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def read(sock: socket.socket) -> DNSRecord:
    stream = sock.makefile("rb")
    return DNSRecord.parse(stream.read(int.from_bytes(stream.read(2), "big")))


def test_a_tcp_client_may_send_in_any_pieces_and_several_at_once(dns: Dns) -> None:
    names = ["web.internal", "db.internal", "nobody.internal"]
    sent = b"".join(framed(bytes(DNSRecord.question(name).pack())) for name in names)
    with dns.tcp() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(sent), 5):
            sock.sendall(sent[at : at + 5])
            gevent.sleep(0.001)
        stream = sock.makefile("rb")
        answers = [DNSRecord.parse(stream.read(int.from_bytes(stream.read(2), "big"))) for _ in names]
        assert [str(answer.q.qname).rstrip(".") for answer in answers] == names
        sock.shutdown(socket.SHUT_WR)
        assert stream.read() == b""


def test_silent_and_slow_tcp_clients_are_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(dns_server, "MESSAGE_SECONDS", 0.2)
    monkeypatch.setattr(dns_server, "CLIENTS_AT_ONCE", 2)
    with edge_in_process(tmp_path, ROWS, DNS_LISTEN_ADDR="127.0.0.1:0") as inside:
        (address,) = inside.parts.dns.server.addresses

        def connect() -> socket.socket:
            return socket.create_connection((address.host, address.port), 10)

        with connect() as silent, connect() as slow:
            slow.sendall(b"\0")
            assert silent.recv(1) == b""
            assert slow.recv(1) == b""
        with connect() as sock:
            sock.sendall(framed(bytes(DNSRecord.question("db.internal").pack())))
            assert read(sock).rr


def test_a_newcomer_to_a_full_table_takes_the_place_of_the_client_idle_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 7766, section 6.2.3."""
    monkeypatch.setattr(dns_server, "CLIENTS_AT_ONCE", 3)
    query = framed(bytes(DNSRecord.question("db.internal").pack()))
    with edge_in_process(tmp_path, ROWS, DNS_LISTEN_ADDR="127.0.0.1:0") as inside:
        (address,) = inside.parts.dns.server.addresses

        def connect() -> socket.socket:
            return socket.create_connection((address.host, address.port), 10)

        with connect() as first, connect() as second, connect() as busy:
            for sock in (first, second, first):  # so that the second is idle longest
                sock.sendall(query)
                assert read(sock).rr
            busy.sendall(query[:5])
            with connect() as newcomer:
                newcomer.sendall(query)
                assert read(newcomer).rr
                assert second.recv(1) == b""
                for sock, rest in ((first, query), (busy, query[5:])):
                    sock.sendall(rest)
                    assert read(sock).rr


def test_a_tcp_client_with_many_queries_shares_turns_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[bytes] = []
    answer = Responder.respond

    def noted(self: Responder, message: bytes, *, is_datagram: bool) -> Any:
        answered.append(message[:2])
        return answer(self, message, is_datagram=is_datagram)

    monkeypatch.setattr(Responder, "respond", noted)
    with edge_in_process(tmp_path, ROWS, DNS_LISTEN_ADDR="127.0.0.1:0") as inside:
        (address,) = inside.parts.dns.server.addresses
        clients = [socket.create_connection((address.host, address.port), 10) for _ in range(2)]
        for client, number in zip(clients, (b"\0\1", b"\0\2"), strict=True):
            query = number + bytes(DNSRecord.question("web.internal").pack())[2:]
            client.sendall(framed(query) * 500)  # nothing has been read yet: this sends without waiting
        for client in clients:
            with client, client.makefile("rb") as stream:
                for _ in range(500):
                    assert DNSRecord.parse(stream.read(int.from_bytes(stream.read(2), "big"))).rr
    assert len(set(answered[:500])) == 2, "each is answered while the other has queries left"


def test_junk_by_both_protocols_changes_nothing(dns: Dns) -> None:
    chance = random.Random(1)
    with dns.udp() as sock:
        for _ in range(2000):
            sock.send(chance.randbytes(chance.choice((0, 1, 11, 12, 20, 40, 512, 9000))))
    for _ in range(50):
        with dns.tcp() as sock, suppress(ConnectionError):
            sock.sendall(chance.randbytes(chance.choice((1, 2, 3, 40, 512, 70_000))))
    assert dns.addresses("web.internal") == {"10.50.1.1"}
    assert dns.short("+tcp", "web.internal") == ["10.50.1.1"]
    assert dns.answers("FORMERR") > 0 and dns.answers("NOTIMP") > 0 and dns.answers("none") > 0
    assert dns.answers("SERVFAIL") == 0
    assert not [line for line in dns.proxy.log() if line.get("level") in ("ERROR", "CRITICAL")]


def test_an_internal_error_is_logged_once_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_keywords: object) -> None:
        raise RuntimeError("a bug")

    with edge_in_process(tmp_path, ROWS, DNS_LISTEN_ADDR="127.0.0.1:0") as inside:
        monkeypatch.setattr(Responder, "respond", broken)
        (address,) = inside.parts.dns.server.addresses
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.connect((address.host, address.port))
            for _ in range(3):
                sock.send(bytes(DNSRecord.question("web.internal").pack()))
                assert DNSRecord.parse(sock.recv(512)).header.rcode == RCODE.SERVFAIL
        metrics = inside.metrics()
        assert metrics['edgeproxy_internal_errors_total{where="dns"}'] == 3
        assert metrics['edgeproxy_dns_responses_total{rcode="SERVFAIL"}'] == 3
        assert len([line for line in inside.logged() if "answering a DNS query failed" in line["event"]]) == 1
