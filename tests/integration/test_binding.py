"""Bindings: a client stays with its backend until the TTL expires, and moves if the backend is unavailable."""

import json
import time
from contextlib import ExitStack

import gevent
import pytest
from gevent.server import StreamServer

from tests.harness import EdgeProcess, row, write_backends
from tests.integration.peers import (
    await_idle,
    crowd,
    fresh_address,
    lines_of,
    load,
    name_heard,
    named,
    refusing_port,
    visit,
)

SOFT = {"soft_limit": 100_000}


class Town:
    """An edge with ten equivalent backends, shared by the tests of the file."""

    def __init__(self, folder):
        self._servers = [StreamServer(("127.0.0.1", 0), self._perform(f"b{n}")) for n in range(10)]
        for server in self._servers:
            server.start()
        self.rows = [row(f"b{n}", server.server_port, **SOFT) for n, server in enumerate(self._servers)]
        self._database = folder / "routing.db"
        self._loaded = self.rows
        write_backends(self._database, self.rows)
        self.edge = EdgeProcess(folder, self._database, "127.0.0.1:0", {})

    @staticmethod
    def _perform(name):
        return lambda sock, _peer: named(name)(sock)

    def load(self, rows):
        if rows != self._loaded:
            load(self.edge, self._database, rows)
            self._loaded = rows

    def close(self):
        self.edge.kill()
        for server in self._servers:
            server.stop(timeout=0.1)


@pytest.fixture(scope="module")
def whole_town(tmp_path_factory):
    town = Town(tmp_path_factory.mktemp("town"))
    yield town
    town.close()


@pytest.fixture
def town(whole_town):
    yield whole_town
    whole_town.load(whole_town.rows)


@pytest.fixture
def stack():
    with ExitStack() as opened:
        yield opened


def others(rows, name, **changes):
    """Return the rows with the named one changed, or left out when no change is given."""
    return [one | changes if one["id"] == name else one for one in rows if changes or one["id"] != name]


def affinities(edge, source, count):
    """Return the affinities of a client's connections, sorted, because lines are written as connections end."""
    return sorted(line["affinity"] for line in lines_of(edge, source, at_least=count))


def test_a_client_comes_back_to_its_backend_and_others_are_spread(town):
    source = fresh_address()
    bound_before = await_idle(town.edge)["edgeproxy_bindings"]
    assert len({visit(town.edge, source) for _ in range(10)}) == 1
    assert affinities(town.edge, source, 10) == ["hit"] * 9 + ["new"]
    assert len({visit(town.edge, fresh_address()) for _ in range(40)}) > 3
    assert await_idle(town.edge)["edgeproxy_bindings"] == bound_before + 41


def test_fifty_simultaneous_first_connections_of_a_client_share_one_backend(town):
    source = fresh_address()
    with crowd(town.edge, [source] * 50) as clients:
        assert len({name_heard(client) for client in clients}) == 1
    assert affinities(town.edge, source, 50) == ["hit"] * 49 + ["new"]


def test_fifty_simultaneous_first_connections_whose_backend_refuses_move_together(town, stack):
    near = row("near", refusing_port(stack), **SOFT)
    far = [one | {"region": "eu", "country": "FR"} for one in town.rows]
    town.load([near, *far])
    with crowd(town.edge, [fresh_address()] * 50) as clients:
        heard = {name_heard(client) for client in clients}
    assert len(heard) == 1
    assert heard < {one["id"] for one in town.rows}


@pytest.mark.parametrize("change", [{"deleted": 1}, {"healthy": 0}, {}], ids=["drained", "unhealthy", "removed"])
def test_a_client_moves_for_good_when_its_backend_cannot_serve(town, change):
    source = fresh_address()
    with town.edge.connect(source) as held:
        first = name_heard(held)
        town.load(others(town.rows, first, **change))
        second = visit(town.edge, source)
        assert second != first
        held.sendall(b"the open connection runs on")
        town.load(town.rows)
        assert [visit(town.edge, source) for _ in range(5)] == [second] * 5
    assert affinities(town.edge, source, 7) == ["hit"] * 5 + ["new", "rebind"]
    held_line = next(line for line in lines_of(town.edge, source, at_least=7) if line["affinity"] == "new")
    assert (held_line["backend"], held_line["bytes_up"], held_line["termination"]) == (first, 27, "--")


def test_a_client_moves_for_good_when_its_backend_refuses(town, stack):
    source = fresh_address()
    first = visit(town.edge, source)
    town.load(others(town.rows, first, port=refusing_port(stack)))
    second = visit(town.edge, source)
    assert second not in (first, "")
    town.load(town.rows)
    assert visit(town.edge, source) == second
    lines = lines_of(town.edge, source, at_least=3)
    assert {line["affinity"]: line["attempts"] for line in lines} == {"new": 1, "rebind": 2, "hit": 1}


def test_a_backend_of_weight_0_keeps_its_clients_and_gets_no_new_ones(town):
    source = fresh_address()
    first = visit(town.edge, source)
    town.load(others(town.rows, first, weight=0))
    assert [visit(town.edge, source) for _ in range(3)] == [first] * 3
    assert first not in {visit(town.edge, fresh_address()) for _ in range(40)}
    assert affinities(town.edge, source, 4) == ["hit", "hit", "hit", "new"]


def test_a_full_backend_lends_its_client_to_another_and_gets_it_back(town):
    near, far = town.rows[0] | {"hard_limit": 1}, town.rows[1] | {"region": "eu", "country": "FR"}
    town.load([near, far])
    source = fresh_address()
    with town.edge.connect(source) as first:
        assert name_heard(first) == near["id"]
        assert [visit(town.edge, source) for _ in range(2)] == [far["id"]] * 2
    await_idle(town.edge)
    assert visit(town.edge, source) == near["id"]
    assert affinities(town.edge, source, 4) == ["hit", "new", "overflow", "overflow"]


def test_a_binding_lives_while_its_client_keeps_coming_and_ends_when_it_stays_away(town, edge):
    proxy = edge(town.rows, BINDING_TTL_SECS=2, BINDING_GC_INTERVAL_SECS=3600)
    faithful, seldom = fresh_address(), fresh_address()
    visit(proxy, seldom)
    visit(proxy, faithful)
    for _ in range(2):
        gevent.sleep(1.1)
        visit(proxy, faithful)
    visit(proxy, seldom)
    assert affinities(proxy, faithful, 3) == ["hit", "hit", "new"]
    assert affinities(proxy, seldom, 2) == ["new", "new"]


def test_bindings_survive_a_restart(town, edge, tmp_path):
    snapshot = tmp_path / "bindings"
    sources = [fresh_address() for _ in range(12)]
    before = edge(town.rows, BINDING_SNAPSHOT=snapshot)
    homes = [visit(before, source) for source in sources]
    assert len(set(homes)) > 1
    assert before.stop() == 0

    after = edge(BINDING_SNAPSHOT=snapshot)
    assert [visit(after, source) for source in sources] == homes
    assert affinities(after, sources[-1], 1) == ["hit"]
    assert after.event("12 bindings restored")


def test_a_restart_with_the_clock_a_day_back_says_why_no_binding_is_restored(town, edge, tmp_path):
    snapshot, tomorrow = tmp_path / "bindings", time.time() + 86_400
    lines = [{"format": 1, "saved_at": tomorrow}, ["default 127.0.0.1", "a", tomorrow + 600]]
    snapshot.write_text("".join(json.dumps(line) + "\n" for line in lines))
    proxy = edge(town.rows, BINDING_SNAPSHOT=snapshot, BINDING_TTL_SECS=600)
    (said,) = [line["event"] for line in proxy.log() if "bindings restored" in line["event"]]
    assert said.startswith("0 bindings restored: the file is of a time 86")
    assert said.endswith(" s ahead of the clock, 1 would live longer than the TTL of 600 s")


def test_an_unreadable_snapshot_costs_the_bindings_and_not_the_start(town, edge, tmp_path):
    snapshot = tmp_path / "bindings"
    snapshot.write_bytes(b"\xff no such file")
    proxy = edge(town.rows, BINDING_SNAPSHOT=snapshot)
    assert visit(proxy, fresh_address())
    assert proxy.event("bindings not restored")


def test_clients_of_one_ipv6_prefix_and_the_two_spellings_of_an_ipv4_address_are_one_client(town, edge):
    proxy = edge(town.rows, PROXY_PROTOCOL_FROM="127.0.0.0/8", BINDING_IPV6_PREFIX=64)

    def visit_as(address, family="TCP6"):
        with proxy.connect() as client:
            destination = "192.0.2.1" if family == "TCP4" else "2001:db8::ffff"
            client.sendall(f"PROXY {family} {address} {destination} 4711 443\r\n".encode())
            return name_heard(client)

    assert visit_as("2001:db8:1:1::1") == visit_as("2001:db8:1:1:ffff::2")
    assert visit_as("2001:db8:1:2::1")
    assert visit_as("198.51.100.1", "TCP4") == visit_as("::ffff:198.51.100.1")
    assert visit_as("198.51.100.2", "TCP4")
    assert affinities(proxy, "2001:db8:1:1::1", 1) == ["new"]
    assert affinities(proxy, "2001:db8:1:1:ffff::2", 1) == ["hit"]
    assert affinities(proxy, "2001:db8:1:2::1", 1) == ["new"]
    assert affinities(proxy, "198.51.100.1", 2) == ["hit", "new"]
    assert affinities(proxy, "198.51.100.2", 1) == ["new"]


def test_the_oldest_binding_makes_room_when_the_table_is_full(town, edge):
    proxy = edge(town.rows, BINDING_MAX=2)
    first, second, third = (fresh_address() for _ in range(3))
    for source in (first, second, third, third, first):
        visit(proxy, source)
    assert affinities(proxy, third, 2) == ["hit", "new"]
    assert affinities(proxy, first, 2) == ["new", "new"]
    samples = await_idle(proxy)
    assert (samples["edgeproxy_bindings"], samples["edgeproxy_bindings_evicted_total"]) == (2, 2)
