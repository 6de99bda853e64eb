"""A name server for tests, by UDP on a port the kernel chooses: it knows what a test tells it, and may fall silent."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, A, DNSRecord
from gevent.server import DatagramServer

from app.outbound.name_lookup import NameLookup


class NameServer:
    """`names` is name -> (texts, seconds): addresses, or the one name that it resolves to."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[list[str], int]] = {}
        self.rcode = 0
        """Answered in place of what is known, unless 0."""
        self.is_silent = False
        self.asked: list[str] = []
        self._server = DatagramServer(("127.0.0.1", 0), self._serve)
        self._server.start()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def stop(self) -> None:
        self._server.stop()

    def lookup(self, folder: Path, hosts: str = "") -> NameLookup:
        """Return a NameLookup that asks this server, with a hosts file of this text."""
        resolver, file = folder / "resolv.conf", folder / "hosts"
        resolver.write_text("nameserver 127.0.0.1\noptions attempts:1\n")
        file.write_text(hosts)
        return NameLookup(file, resolver, self.port)

    def _serve(self, message: bytes, client: tuple[str, int]) -> None:
        query = DNSRecord.parse(message)
        name = str(query.q.qname).rstrip(".").lower()
        self.asked.append(name)
        if not self.is_silent:
            self._server.sendto(self._answer(query, name).pack(), client)

    def _answer(self, query: DNSRecord, name: str) -> DNSRecord:
        reply = query.reply(ra=1)
        if self.rcode or name not in self.names:
            reply.header.rcode = self.rcode or RCODE.NXDOMAIN
            return reply
        while name in self.names:
            texts, seconds = self.names[name]
            owner, name = name, ""
            for text in texts:
                if text in self.names:
                    reply.add_answer(RR(owner, QTYPE.CNAME, ttl=seconds, rdata=CNAME(text)))
                    name = text
                elif query.q.qtype == (QTYPE.AAAA if ipaddress.ip_address(text).version == 6 else QTYPE.A):
                    data = AAAA(text) if ":" in text else A(text)
                    reply.add_answer(RR(owner, query.q.qtype, ttl=seconds, rdata=data))
        return reply


@contextmanager
def name_server() -> Iterator[NameServer]:
    """Run a name server for the block."""
    server = NameServer()
    try:
        yield server
    finally:
        server.stop()
