"""The edge sends a PROXY header to backends, in both versions and families, before the client's first byte."""

import socket
import struct

import pytest
from gevent.server import StreamServer

from app.wire import proxy_protocol
from tests.harness import EdgeProcess, eventually, frontend, pool, row, write_backends
from tests.integration.peers import lines_of, read_exactly, read_to_end

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def read_v1(sock):
    """Return (family, source, destination, source port, destination port) of a version 1 header."""
    line = b""
    while not line.endswith(b"\r\n"):
        byte = sock.recv(1)
        assert byte, "the stream ended within the header"
        line += byte
    word, *fields = line.decode().split()
    assert word == "PROXY"
    return (fields[0], fields[1], fields[2], int(fields[3]), int(fields[4]))


def read_v2(sock):
    fixed = read_exactly(sock, 16)
    assert fixed[:13] == SIGNATURE + b"\x21"
    block = read_exactly(sock, struct.unpack("!H", fixed[14:])[0])
    kind, name, size = {0x11: (socket.AF_INET, "TCP4", 4), 0x21: (socket.AF_INET6, "TCP6", 16)}[fixed[13]]
    ends = [socket.inet_ntop(kind, block[at : at + size]) for at in (0, size)]
    return (name, *ends, *struct.unpack("!HH", block[2 * size :]))


class Announcing:
    """An edge that listens on both families, trusts 127.0.0.2, and sends headers to a backend of each family."""

    def __init__(self, folder, version):
        self.heard = []
        self._read_header = {"v1": read_v1, "v2": read_v2}[version]
        self._servers = {host: StreamServer((host, 0), self._perform(host)) for host in ("127.0.0.1", "::1")}
        for server in self._servers.values():
            server.start()
        database = folder / "routing.db"
        write_backends(database, [row(host, one.server_port, wg_ip=host) for host, one in self._servers.items()])
        variables = {"SEND_PROXY": version, "PROXY_PROTOCOL_FROM": "127.0.0.2", "BINDING_MAX": "0"}
        self.edge = EdgeProcess(folder, database, "127.0.0.1:0,[::1]:0", variables)

    def _perform(self, host):
        return lambda sock, _peer: self.heard.append((self._read_header(sock), read_to_end(sock), host))

    def close(self):
        self.edge.kill()
        for server in self._servers.values():
            server.stop(timeout=0.1)

    def next_heard(self):
        """Return (header, payload, backend address) of the next connection to a backend."""
        return eventually(lambda: self.heard.pop(0) if self.heard else None, what="a backend hears")


@pytest.fixture(scope="module", params=["v1", "v2"])
def announcing(request, tmp_path_factory):
    announcing = Announcing(tmp_path_factory.mktemp(request.param), request.param)
    yield announcing
    announcing.close()


@pytest.mark.parametrize("listener, family", [(0, "TCP4"), (1, "TCP6")])
def test_backends_of_both_families_get_both_addresses_of_the_clients_connection(announcing, listener, family):
    told = set()
    while len(told) < 2:  # either backend may get the next one
        with socket.create_connection(announcing.edge.addresses[listener], 10) as client:
            ours, theirs = client.getsockname(), client.getpeername()
            client.sendall(b"payload")
        header, payload, backend = announcing.next_heard()
        assert header == (family, ours[0], theirs[0], ours[1], theirs[1])
        assert payload == b"payload"
        told.add(backend)


def test_a_client_that_sends_nothing_is_announced_too(announcing):
    with announcing.edge.connect("127.0.0.5") as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    header, payload, _ = announcing.next_heard()
    assert (header[1], payload) == ("127.0.0.5", b"")


def test_the_header_does_not_count_as_bytes_of_the_client(announcing):
    with announcing.edge.connect("127.0.0.6") as client:
        client.sendall(b"four")
    announcing.next_heard()
    assert lines_of(announcing.edge, "127.0.0.6")[0]["bytes_up"] == 4


@pytest.mark.parametrize(
    "header_in, header_out",
    [
        ("TCP4 198.51.100.7 192.0.2.1 4711 443", ("TCP4", "198.51.100.7", "192.0.2.1", 4711, 443)),
        ("TCP6 2001:db8::7 2001:db8::1 4711 443", ("TCP6", "2001:db8::7", "2001:db8::1", 4711, 443)),
        ("TCP6 ::ffff:198.51.100.7 ::ffff:192.0.2.1 4711 443", ("TCP4", "198.51.100.7", "192.0.2.1", 4711, 443)),
        ("TCP6 2001:db8::7 ::ffff:192.0.2.1 4711 443", ("TCP6", "2001:db8::7", "::ffff:192.0.2.1", 4711, 443)),
    ],
    ids=["four", "six", "mapped", "mixed"],
)
def test_a_client_announced_to_the_edge_is_announced_with_its_own_addresses(announcing, header_in, header_out):
    with announcing.edge.connect("127.0.0.2") as client:
        client.sendall(f"PROXY {header_in}\r\npayload".encode())
    header, payload, _ = announcing.next_heard()
    assert header == header_out
    assert payload == b"payload"


def test_a_proxy_whose_header_has_no_address_is_announced_itself(announcing):
    with announcing.edge.connect("127.0.0.2") as client:
        ours, theirs = client.getsockname(), client.getpeername()
        client.sendall(b"PROXY UNKNOWN\r\npayload")
    header, payload, _ = announcing.next_heard()
    assert header == ("TCP4", ours[0], theirs[0], ours[1], theirs[1])
    assert payload == b"payload"


def test_a_retried_dial_announces_the_client_once(edge, origin):
    heard = []
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        port = origin(lambda sock: heard.append((read_v1(sock), read_to_end(sock))))
        far = row("far", port, region="eu", country="FR")
        proxy = edge([row("near", refusing.getsockname()[1]), far], SEND_PROXY="v1")
        with proxy.connect("127.0.0.6") as client:
            client.sendall(b"payload")
        header, payload = eventually(lambda: heard.pop() if heard else None)
    assert (header[1], payload) == ("127.0.0.6", b"payload")


def test_what_a_trusted_proxy_says_beyond_the_addresses_is_passed_on_in_version_2(edge, origin):
    """By TCP and by HTTP, for every connection to a backend; the checksum is of the header that was received."""
    ends, heard = (("192.0.2.1", 1), ("192.0.2.2", 443)), []
    authority, alpn, cloud = b"\x02\x00\x0bexample.org", b"\x01\x00\x02h2", b"\xea\x00\x05\x01vpce"
    sent = proxy_protocol.encode(2, *ends, authority + b"\x04\x00\x00" + alpn + cloud)
    expected = proxy_protocol.encode(2, *ends, authority + alpn + cloud)

    def hear(sock):
        heard.append(read_exactly(sock, len(expected)))
        sock.recv(1000)
        sock.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    common = {"proxy_protocol_from": ["127.0.0.0/8"], "tcp": {"send_proxy": "v2"}}
    frontends = [frontend(name, "p", protocol=name, **common) for name in ("tcp", "http")]
    proxy = edge(config={"frontends": frontends, "backends": [pool("p", origin(hear))]})
    for name in ("tcp", "http"):
        with proxy.connect(frontend=name) as sock:
            sock.sendall(sent + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b" 204 " in read_to_end(sock)
    assert heard == [expected, expected]
