"""The internal DNS of a running edge, asked by the programs that people ask with: dig, kdig, dnsperf."""

from __future__ import annotations

import re
import socket
import subprocess
from typing import Any

import pytest
from dnslib import DNSRecord

from tests.harness import EdgeProcess, row
from tests.integration.http_peers import program

ROWS = [
    row("gru-1", 8001, app="web", region="sa", country="BR", wg_ip="10.50.1.1"),
    row("gru-2", 8002, app="web", region="sa", country="BR", wg_ip="fd00:50:1::2"),
    row("fra-1", 8003, app="web", region="eu", country="DE", wg_ip="10.50.2.1"),
    row("fra-2", 8004, app="web", region="eu", country="DE", wg_ip="10.50.2.2", healthy=0),
    row("db-1", 5432, app="db", region="eu", country="DE", wg_ip="10.50.2.3"),
]
TTL = 7


class Dns:
    """An edge's DNS and its clients."""

    def __init__(self, proxy: EdgeProcess) -> None:
        event = proxy.event("DNS for")
        assert event is not None
        self.proxy = proxy
        self.addresses = [(host.strip("[]"), int(port)) for host, _, port in (a.rpartition(":") for a in event["dns"])]
        self.host, self.port = self.addresses[0]

    def dig(self, *words: str) -> str:
        """Return what dig prints; it fails when it gets no answer or a malformed one."""
        command = [program("dig", "bind9-dnsutils"), f"@{self.host}", "-p", str(self.port), "+tries=1", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert "malformed" not in done.stdout, done.stdout
        return done.stdout

    def short(self, *words: str) -> list[str]:
        return self.dig("+short", *words).split("\n")[:-1]

    def send(self, message: bytes, *, bytes_at_most: int = 65535) -> bytes:
        """Ask by UDP."""
        with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.connect((self.host, self.port))
            sock.send(message)
            return sock.recv(bytes_at_most)

    def ask(self, name: str, kind: str = "A") -> DNSRecord:
        return DNSRecord.parse(self.send(bytes(DNSRecord.question(name, kind).pack())))


@pytest.fixture
def dns(edge: Any) -> Dns:
    return Dns(edge(ROWS, DNS_LISTEN_ADDR="127.0.0.1:0", DNS_TTL_SECS=TTL, REGION="sa"))


def status(text: str) -> str:
    found = re.search(r"status: (\w+)", text)
    assert found, text
    return found[1]


def test_an_app_is_its_nearest_healthy_backends(dns: Dns) -> None:
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
