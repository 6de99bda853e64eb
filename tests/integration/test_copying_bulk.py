"""Bulk: a gibibyte each way at once in random chunk sizes arrives unchanged, and a hot flow starves no other."""

import subprocess
import sys
from contextlib import contextmanager

from tests.harness import eventually, row
from tests.integration.peers import await_idle, echo, lines_of, read_exactly

GIBIBYTE = 1 << 30


@contextmanager
def bulk_peer(*arguments):
    """Run a bulk peer for the block."""
    command = [sys.executable, "tests/integration/bulk_peer.py", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_gibibyte_each_way_at_once_arrives_unchanged(edge):
    with bulk_peer("exchange", 1, GIBIBYTE) as server:
        proxy = edge([row("a", int(server.stdout.readline()))])
        with bulk_peer("exchange", 2, GIBIBYTE, *proxy.address) as client:
            client_sent, client_received = client.stdout.readline().split()
            server_sent, server_received = server.stdout.readline().split()
    assert client_sent == server_received
    assert server_sent == client_received
    assert client_sent != server_sent
    line = lines_of(proxy, "127.0.0.1")[0]
    assert (line["bytes_up"], line["bytes_down"], line["termination"]) == (GIBIBYTE, GIBIBYTE, "--")
    samples = await_idle(proxy)
    assert samples["edgeproxy_bytes_sent_total"] == samples["edgeproxy_bytes_received_total"] == GIBIBYTE


def test_one_hot_flow_does_not_starve_the_others(edge, origin):
    """The first client gets the nearer backend, which takes only one, and reads from it as fast as it can."""
    with bulk_peer("flood") as server:
        hot = row("hot", int(server.stdout.readline()), hard_limit=1)
        proxy = edge([hot, row("echo", origin(echo), region="eu", country="FR")])
        with bulk_peer("drink", *proxy.address):
            eventually(lambda: moved(proxy) > 64 << 20, what="the flow is hot")
            before = moved(proxy)
            for _ in range(20):
                with proxy.connect("127.0.0.9") as client:
                    for _ in range(10):
                        client.sendall(b"ping")
                        assert read_exactly(client, 4) == b"ping"
            eventually(lambda: moved(proxy) > before + (64 << 20), what="the flow is still hot")


def moved(proxy):
    return proxy.metrics()["edgeproxy_bytes_sent_total"]
