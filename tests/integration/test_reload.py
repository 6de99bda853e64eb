"""Reload: a changed file is applied or refused as a whole, and no connection is closed by it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest
import yaml

from tests.harness import EdgeProcess, eventually, frontend, pool, row, write_backends
from tests.integration.peers import await_idle, is_listened_on, refusing_port
from tests.traffic import ask, free_ports, named, serving, who

SUCCESS = "edgeproxy_config_last_reload_success"
RELOADS = 'edgeproxy_config_reloads_total{{result="{}"}}'
RELOADED = "configuration reloaded: "
REFUSED = "configuration refused, the old one serves on: "


def config(frontends: list[dict[str, Any]], backends: list[dict[str, Any]], **of_process: Any) -> dict[str, Any]:
    """Return a configuration; metrics stay where they are."""
    process = {"metrics": {"listen": "127.0.0.1:0"}, **of_process}
    return {"global": process, "frontends": frontends, "backends": backends}


class Stage:
    """One edge for all tests, because starting takes a second. Each test begins by reloading its configuration."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.a, self.b, self.c = (stack.enter_context(serving(named(name))) for name in "abc")
        self.database = folder / "routing.db"
        write_backends(self.database, [])
        variables = {"GEOIP_PATH": "off", "REGION": "sa", "DRAIN_TIMEOUT_SECS": "0"}
        self.edge = EdgeProcess(folder, self.database, "", variables, self.only(self.a))
        stack.callback(self.edge.kill)

    def only(self, *ports: int, **more: Any) -> dict[str, Any]:
        """Return a configuration of one frontend, `web`, over these servers."""
        return config([frontend("web", "p", **more)], [pool("p", *ports)])

    def begin(self, content: dict[str, Any]) -> EdgeProcess:
        """Reload this configuration, unless it is in force."""
        event = self.edge.reload(content)["event"]
        assert not event.startswith(REFUSED), event
        return self.edge

    def active(self, port: int, pool: str = "p") -> float:
        return self.edge.metrics()[f'edgeproxy_backend_connections_active{{backend="127.0.0.1:{port}",pool="{pool}"}}']


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with ExitStack() as stack:
        yield Stage(tmp_path_factory.mktemp("reload"), stack)


def inode(address: tuple[str, int]) -> str:
    """Return the inode of the one socket that listens on a port of IPv4.

    The kernel writes its table page by page: a row can be missing from one reading while other sockets come and go.
    """

    def rows() -> list[str]:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return [f[9] for f in lines if f[3] == "0A" and int(f[1].split(":")[1], 16) == address[1]]

    (found,) = eventually(rows)
    return str(found)


# What sets a reload off


def test_sighup_reloads_and_logs_it(stage):
    proxy = stage.begin(stage.only(stage.a))
    assert who(proxy) == "a"
    before = proxy.metrics()
    assert proxy.reload(stage.only(stage.b))["event"] == RELOADED + "1 frontend, 1 pool"
    assert who(proxy) == "b"
    after = proxy.metrics()
    assert after[SUCCESS] == 1
    assert after[RELOADS.format("ok")] == before.get(RELOADS.format("ok"), 0) + 1
    assert proxy.reload(stage.only(stage.b))["event"] == "configuration read again: nothing has changed"
    assert who(proxy) == "b"


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def renamed_over(path: Path, text: str) -> None:
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.replace(path)


def as_editors_do(path: Path, text: str) -> None:
    """Rename the file to a backup and write a new one."""
    path.rename(path.with_name("edge.yaml~"))
    path.write_text(text)


def by_swapping_a_link(path: Path, text: str) -> None:
    """Change a symbolic link in the path to another directory, as Kubernetes does."""
    folder = path.parent / f"version {os.stat(path).st_ino}"
    folder.mkdir()
    (folder / "edge.yaml").write_text(text)
    link, fresh = path.parent / "current", path.parent / "fresh"
    if not link.exists():
        link.symlink_to(folder)
        path.unlink()
        path.symlink_to("current/edge.yaml")
    else:
        fresh.symlink_to(folder)
        fresh.replace(link)


@pytest.mark.parametrize(
    ("save", "times"), [(in_place, 1), (renamed_over, 1), (as_editors_do, 1), (by_swapping_a_link, 2)]
)
def test_a_changed_file_is_noticed_however_it_was_saved(stage, save: Callable[[Path, str], None], times):
    proxy = stage.begin(stage.only(stage.a))
    for name in "bc"[:times]:
        before = len(proxy.reloads())
        save(proxy.config_path, yaml.safe_dump(stage.only(getattr(stage, name))))
        assert proxy.wait_for_reload(before)["event"].startswith(RELOADED)
        assert who(proxy) == name


def test_a_file_that_is_empty_for_a_moment_is_not_taken_at_its_word(stage):
    proxy = stage.begin(stage.only(stage.a))
    before = len(proxy.reloads())
    for round_ in range(150):  # the file is looked at meanwhile, and often empty then
        with proxy.config_path.open("w") as file:
            gevent.sleep(0.01)
            file.write(yaml.safe_dump(stage.only(stage.b)) + f"# {round_}\n")
    assert proxy.wait_for_reload(before)["event"].startswith(RELOADED)
    assert who(proxy) == "b"


def test_a_missing_file_is_logged_and_the_last_configuration_stays_until_it_is_back(stage):
    proxy = stage.begin(stage.only(stage.a))
    before = len(proxy.reloads())
    proxy.config_path.rename(proxy.config_path.with_name("away"))
    assert "No such file or directory" in proxy.wait_for_reload(before)["event"]
    assert (who(proxy), proxy.metrics()[SUCCESS]) == ("a", 0)
    proxy.config_path.with_name("away").rename(proxy.config_path)
    assert proxy.wait_for_reload(before + 1)["event"] == "configuration read again: nothing has changed"
    assert (who(proxy), proxy.metrics()[SUCCESS]) == ("a", 1)


def test_without_a_file_there_is_nothing_to_read_again(edge, origin):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    assert who(proxy) == "a"
    proxy.process.send_signal(signal.SIGHUP)
    eventually(lambda: proxy.event("SIGHUP: there is no configuration file to read again"))
    assert who(proxy) == "a"
    assert SUCCESS not in proxy.metrics()


# Whole, or not at all


def test_an_invalid_file_is_refused_with_all_its_faults_and_the_old_one_serves(stage):
    proxy = stage.begin(stage.only(stage.a))
    with proxy.connect() as staying:
        assert ask(staying) == "a"
        before = proxy.metrics()
        content = stage.only(stage.b, algoritm="weighted")
        content["backends"][0]["servers"][0]["weight"] = 1000
        event = proxy.reload(content)
        assert event["level"] == "ERROR"
        assert event["event"].startswith(REFUSED)
        assert len(event["faults"]) == 2
        assert "frontends[0].algoritm: no such key, did you mean algorithm?" in event["faults"][0]
        assert "backends[0].servers[0].weight=1000" in event["faults"][1]
        after = proxy.metrics()
        assert after[SUCCESS] == 0
        assert after[RELOADS.format("refused")] == before.get(RELOADS.format("refused"), 0) + 1
        assert after[RELOADS.format("ok")] == before[RELOADS.format("ok")]
        status, details = proxy.get("/ready")[0], proxy.ready()
        assert (status, details["configuration_is_current"]) == (200, False)
        assert ask(staying) == who(proxy) == "a"
        assert proxy.reload(stage.only(stage.b))["event"].startswith(RELOADED)
        assert (who(proxy), proxy.metrics()[SUCCESS]) == ("b", 1)
        assert proxy.ready()["configuration_is_current"]
        assert ask(staying) == "a"


def test_a_listener_that_cannot_bind_refuses_all_of_the_new_configuration(stage):
    proxy = stage.begin(stage.only(stage.a))
    free, metrics = (("127.0.0.1", port) for port in free_ports(2))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        listeners = [
            frontend("web", "p", algorithm="weighted"),
            frontend("free", "p") | {"listen": "{}:{}".format(*free)},
            frontend("clashing", "p") | {"listen": address},
        ]
        moved = {"metrics": {"listen": "{}:{}".format(*metrics)}}
        event = proxy.reload(config(listeners, [pool("p", stage.b)], log_level="debug", **moved))
    assert event["faults"] == [f"frontend clashing: cannot listen on {address}: Address already in use"]
    assert (who(proxy), proxy.metrics()[SUCCESS]) == ("a", 0), "metrics answer where they did"
    assert not is_listened_on(free)
    assert not is_listened_on(metrics)
    assert set(proxy.ready()["pools"]) == {"p"}
    assert not [line for line in proxy.log() if line.get("level") == "DEBUG"]


def test_a_metrics_listener_that_cannot_bind_refuses_all_of_it_too(stage):
    proxy = stage.begin(stage.only(stage.a))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        event = proxy.reload(config([frontend("web", "p")], [pool("p", stage.b)], metrics={"listen": address}))
    assert event["faults"] == [f"cannot listen on {address} (metrics): Address already in use"]
    assert (who(proxy), proxy.metrics()[SUCCESS]) == ("a", 0)


# Frontends


def test_an_unchanged_frontend_keeps_its_socket_and_a_removed_one_its_connections(stage):
    web, other = frontend("web", "p"), frontend("other", "q")
    proxy = stage.begin(config([web, other], [pool("p", stage.a), pool("q", stage.b)]))
    (address,), (gone,) = proxy.frontends["web"], proxy.frontends["other"]
    listening = inode(address)
    with proxy.connect(frontend="web") as staying, proxy.connect(frontend="other") as left_over:
        assert (ask(staying), ask(left_over)) == ("a", "b")
        proxy.reload(config([web, frontend("new", "p")], [pool("p", stage.c)]))
        assert set(proxy.frontends) == {"web", "new"}
        assert (proxy.frontends["web"], inode(address)) == ([address], listening)
        assert not is_listened_on(gone)
        assert (ask(staying), ask(left_over)) == ("a", "b")
        assert (who(proxy, frontend="web"), who(proxy, frontend="new")) == ("c", "c")
        assert set(proxy.ready()["pools"]) == {"p", "q"}, "somebody is left for q"
        assert stage.active(stage.b, "q") == 1
        assert ask(left_over) == "b"
    eventually(lambda: set(proxy.ready()["pools"]) == {"p"}, what="the pool nobody is left for is forgotten")


def test_the_series_of_a_removed_pool_are_removed(stage):
    web, other = frontend("web", "p"), frontend("other", "q")
    proxy = stage.begin(config([web, other], [pool("p", stage.a), pool("q", stage.b)]))
    with proxy.connect(frontend="other") as left_over:
        assert ask(left_over) == "b"
        proxy.reload(stage.only(stage.a))
        assert ask(left_over) == "b"
    eventually(lambda: set(proxy.ready()["pools"]) == {"p"}, what="the pool is forgotten")
    gone = ('pool="q"', 'frontend="other"')
    eventually(
        lambda: not [name for name in proxy.metrics() if any(label in name for label in gone)],
        3,
        what="its series, and those of its frontend, too",
    )


def test_a_path_that_is_not_a_file_is_refused_and_a_file_there_applies_again(stage):
    proxy = stage.begin(stage.only(stage.a))
    fifo = proxy.config_path.with_suffix(".fifo")
    os.mkfifo(fifo)
    fifo.replace(proxy.config_path)
    eventually(lambda: proxy.metrics()[SUCCESS] == 0, what="nobody waits for the other end of a FIFO")
    eventually(lambda: [line for line in proxy.log() if "is not a regular file" in line["event"]])
    before = len(proxy.reloads())
    proxy.write_config(stage.only(stage.b))
    proxy.wait_for_reload(before)
    assert proxy.metrics()[SUCCESS] == 1, "it follows the file again"
    assert who(proxy) == "b"


def test_addresses_change_hands_between_frontends_without_being_closed(stage):
    ports = free_ports(2)
    texts, addresses = [f"127.0.0.1:{port}" for port in ports], [("127.0.0.1", port) for port in ports]

    def listeners(*listen: str) -> dict[str, Any]:
        named_listeners = [
            frontend(f"to-{name}", name) | {"listen": text} for name, text in zip("ab", listen, strict=True)
        ]
        return config(named_listeners, [pool("a", stage.a), pool("b", stage.b)])

    proxy = stage.begin(listeners(*texts))
    listening = [inode(address) for address in addresses]
    with proxy.connect(frontend="to-a") as staying:
        assert ask(staying) == "a"
        proxy.reload(listeners(*reversed(texts)))
        assert proxy.frontends == {"to-a": [addresses[1]], "to-b": [addresses[0]]}
        assert [inode(address) for address in addresses] == listening
        assert (who(proxy, frontend="to-a"), who(proxy, frontend="to-b")) == ("a", "b")
        assert ask(staying) == "a"


def test_a_changed_algorithm_applies_at_once_and_an_unchanged_one_keeps_its_state(stage):
    def listeners(algorithm: str) -> dict[str, Any]:
        weights = {stage.a: 5, stage.b: 1, stage.c: 1}
        servers = [{"address": f"127.0.0.1:{port}", "weight": weight} for port, weight in weights.items()]
        frontends = [frontend("web", "new", algorithm=algorithm), frontend("turns", "new")]
        return config(frontends, [{"name": "new", "servers": servers}])

    def responses(name: str, count: int) -> str:
        return "".join(who(proxy, frontend=name) for _ in range(count))

    proxy = stage.begin(listeners("round_robin"))
    assert (responses("web", 4), responses("turns", 2)) == ("abca", "ab")
    proxy.reload(listeners("weighted"))
    assert (responses("web", 7), responses("turns", 2)) == ("aabacaa", "ca")


def test_another_protocol_is_spoken_with_new_connections_only(stage):
    proxy = stage.begin(stage.only(stage.a))
    (address,) = proxy.frontends["web"]
    with proxy.connect() as staying:
        assert ask(staying) == "a"
        proxy.reload(stage.only(stage.a, protocol="http"))
        assert proxy.frontends["web"] == [address]
        with proxy.connect() as client:
            client.sendall(b"who?\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 400"
        assert ask(staying) == "a"
        proxy.reload(stage.only(stage.a))
        assert who(proxy) == ask(staying) == "a"


def test_limits_hold_for_connections_that_came_before_them(stage):
    proxy = stage.begin(stage.only(stage.a))
    with proxy.connect("127.0.14.1") as first:
        assert ask(first) == "a"
        proxy.reload(stage.only(stage.a, limits={"max_connections": 1}))
        assert who(proxy, "127.0.14.1") == ""
        proxy.reload(stage.only(stage.a, limits={"max_connections": 2}))
        assert who(proxy, "127.0.14.1") == "a"
        assert ask(first) == "a"


# Pools


def test_servers_that_stay_keep_their_counts_their_health_and_their_clients(stage):
    with ExitStack() as stack:
        dead = refusing_port(stack)
        check = {"unhealthy_threshold": 1, "cooldown": "1h"}

        def content(*ports: int) -> dict[str, Any]:
            return config(
                [frontend("few", "p", algorithm="least_connections"), frontend("sticky", "p", affinity="on")],
                [pool("p", *ports, health_check=check)],
            )

        proxy = stage.begin(content(stage.a, stage.b, dead))
        clients = [f"127.0.13.{number}" for number in range(1, 9)]
        bound = {client: who(proxy, client, frontend="sticky") for client in clients}
        assert sorted(bound.values()) == ["a"] * 4 + ["b"] * 4
        available = f'edgeproxy_backend_available{{backend="127.0.0.1:{dead}",pool="p"}}'
        assert proxy.metrics()[available] == 0, "a refused dial has ejected it"
        await_idle(proxy)
        held = [stack.enter_context(proxy.connect(frontend="few")) for _ in range(4)]
        assert sorted(ask(sock) for sock in held) == ["a", "a", "b", "b"]

        proxy.reload(content(stage.c, stage.a, dead))
        samples = proxy.metrics()
        assert samples[available] == 0
        assert (stage.active(stage.a), stage.active(stage.c)) == (2, 0)
        more = [stack.enter_context(proxy.connect(frontend="few")) for _ in range(2)]
        assert [ask(sock) for sock in more] == ["c", "c"], "a has two already"
        bound_now = {client: who(proxy, client, frontend="sticky") for client in clients}
        assert [bound_now[client] for client in clients if bound[client] == "a"] == ["a"] * 4
        assert {bound_now[client] for client in clients if bound[client] == "b"} <= {"a", "c"}
        assert sorted(ask(sock) for sock in held) == ["a", "a", "b", "b"], "who is open stays"


def test_a_pool_may_go_over_to_the_routing_database_and_come_back(stage):
    write_backends(stage.database, [row("b", stage.b, app="shop"), row("x", stage.a, app="else")])
    in_file, in_database = [pool("p", stage.a)], [{"name": "p", "app": "shop"}]
    listeners = [frontend("web", "p")]
    proxy = stage.begin(config(listeners, in_file))
    with proxy.connect() as staying:
        assert (ask(staying), who(proxy)) == ("a", "a")
        proxy.reload(config(listeners, in_database))
        eventually(lambda: who(proxy) == "b", what="the rows are read")
        write_backends(stage.database, [row("c", stage.c, app="shop")])
        eventually(lambda: who(proxy) == "c", what="changes of the rows are seen")
        proxy.reload(config(listeners, in_file))
        assert who(proxy) == "a"
        write_backends(stage.database, [row("b", stage.b, app="shop")])
        proxy.reload(config([*listeners, frontend("again", "q")], [*in_file, {"name": "q", "app": "shop"}]))
        eventually(lambda: who(proxy, frontend="again") == "b", what="the rows are read anew")
        assert (who(proxy, frontend="web"), ask(staying)) == ("a", "a")


# The process


def test_the_log_level_changes(stage):
    with ExitStack() as stack:
        backends = [pool("p", refusing_port(stack), stage.a)]

        def told_at_debug() -> list[dict[str, Any]]:
            return [line for line in proxy.log() if line.get("level") == "DEBUG"]

        proxy = stage.begin(config([frontend("web", "p")], backends))
        assert [who(proxy) for _ in range(2)] == ["a", "a"]
        assert not told_at_debug()
        proxy.reload(config([frontend("web", "p")], backends, log_level="debug"))
        assert [who(proxy) for _ in range(2)] == ["a", "a"]
        eventually(told_at_debug, what="a failed dial is told")


def test_the_metrics_listener_moves(stage):
    proxy = stage.begin(stage.only(stage.a))
    before, (port,) = proxy.metrics_address, free_ports(1)
    listeners, backends = [frontend("web", "p")], [pool("p", stage.a)]
    proxy.reload(config(listeners, backends, metrics={"listen": f"127.0.0.1:{port}"}))
    assert proxy.metrics_address == ("127.0.0.1", port)
    assert proxy.ready()["ready"]
    eventually(lambda: not is_listened_on(before), what="the former one is closed")
    assert who(proxy) == "a"


def test_a_draining_edge_opens_no_new_listeners(edge, origin):
    a, (port,) = pool("p", origin(named("a"))), free_ports(1)
    proxy = edge(config={"frontends": [frontend("web", "p")], "backends": [a]}, DRAIN_TIMEOUT_SECS=600)
    with proxy.connect() as staying:
        assert ask(staying) == "a"
        proxy.process.send_signal(signal.SIGTERM)
        eventually(lambda: not is_listened_on(proxy.address), what="the listeners close")
        late = frontend("late", "p") | {"listen": f"127.0.0.1:{port}"}
        proxy.write_config({"frontends": [frontend("web", "p"), late], "backends": [a]})
        before = len(proxy.log())
        proxy.process.send_signal(signal.SIGHUP)
        eventually(lambda: proxy.log()[before:], what="it says what it made of the signal")
        assert not is_listened_on(("127.0.0.1", port))
        assert ask(staying) == "a"
    assert proxy.wait() == 0


# Under load

RELOADS_UNDER_LOAD = 20
STAYING = 200
CLIENTS = 8


class Schedule:
    """Twenty consecutive configurations. Each server of a frontend serves in every third."""

    def __init__(self, stack: ExitStack) -> None:
        self._ports = {
            f"{name}-{turn}": stack.enter_context(serving(named(f"{name}-{turn}")))
            for name in ("one", "two")
            for turn in range(3)
        }
        self.begun = self.done = 0
        """The number of the configuration that is being taken over, and of the last that was."""

    def content(self, number: int) -> dict[str, Any]:
        """Return a configuration: the pools change each time, a frontend and a health check come and go."""
        affinity = "on" if number % 4 else "off"
        listeners = [frontend("one", "p", algorithm="weighted"), frontend("two", "q", affinity=affinity)]
        if number % 2:
            listeners.append(frontend("passing", "p", algorithm="ip_hash"))
        check = {"type": "tcp", "interval": "100ms"} if number % 3 else {}
        backends = [
            pool("p", self._ports[f"one-{number % 3}"], health_check=check),
            pool("q", self._ports[f"two-{number % 3}"]),
        ]
        return config(listeners, backends)

    def may_answer(self, name: str, since: int) -> set[str]:
        """Return the servers to which a frontend may send a client that connects after configuration `since`."""
        return {f"{name}-{number % 3}" for number in range(since, self.begun + 1)}


def test_twenty_reloads_under_load_refuse_reset_and_misroute_no_client(tmp_path):
    with ExitStack() as stack:
        schedule = Schedule(stack)
        proxy = EdgeProcess(tmp_path, tmp_path / "no.db", "", {"GEOIP_PATH": "off"}, schedule.content(0))
        stack.callback(proxy.kill)
        ends, misrouted, served, exchanged = False, [], [0], [0] * STAYING

        def come_and_go(number: int) -> None:
            visits = 0
            while not ends:
                name, since, visits = ("one", "two")[visits % 2], schedule.done, visits + 1
                response = who(proxy, f"127.0.15.{1 + (number + visits) % 250}", frontend=name)
                if response not in schedule.may_answer(name, since):
                    misrouted.append((name, since, schedule.begun, response))
                served[0] += 1
                gevent.sleep(0)

        def stay(number: int) -> None:
            with proxy.connect(f"127.0.16.{1 + number}", frontend=("one", "two")[number % 2]) as sock:
                first = ask(sock)
                while not ends:
                    assert ask(sock) == first != ""
                    exchanged[number] += 1
                    gevent.sleep(0.05)

        greenlets = [gevent.spawn(stay, number) for number in range(STAYING)]
        eventually(lambda: all(exchanged))
        greenlets += [gevent.spawn(come_and_go, number) for number in range(CLIENTS)]
        for number in range(1, RELOADS_UNDER_LOAD + 1):
            before = served[0]
            schedule.begun = number
            proxy.write_config(schedule.content(number))
            proxy.process.send_signal(signal.SIGHUP)
            eventually(lambda n=number: proxy.metrics().get(RELOADS.format("ok"), 0) == n, what=f"reload {number}")
            schedule.done = number
            eventually(lambda n=before: served[0] >= n + 100, what="somebody comes under each configuration")
        rounds = list(exchanged)
        eventually(lambda: all(now > then for now, then in zip(exchanged, rounds, strict=True)))
        ends = True
        gevent.joinall(greenlets, timeout=20, raise_error=True)
        assert all(greenlet.successful() for greenlet in greenlets)
        assert misrouted == []
        eventually(lambda: proxy.ready()["connections"] == 0)
        eventually(lambda: len(proxy.access_lines()) == served[0] + STAYING, what="every line is written")
        assert {line["termination"] for line in proxy.access_lines()} == {"--"}
        eventually(lambda: set(proxy.ready()["pools"]) == {"p", "q"})
        assert proxy.ready()["backends"] == 2
