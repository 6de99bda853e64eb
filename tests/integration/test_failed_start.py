"""A start that fails at any step, with any exception, leaves nothing behind: no socket, no actor, no greenlet."""

from __future__ import annotations

import gc
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import gevent
import pykka
import pytest

from app.config import Config, ListenAddress, load
from app.domain.stored import StoreError
from app.edge import edge as edge_module
from app.edge.edge import Edge
from app.edge.lifecycle import Step, steps
from app.edge.reload import Draining
from app.inbound.listener import BindError
from tests.admin_client import admin_variables
from tests.harness import eventually, frontend, pool, row, write_backends

STEPS = 19
"""Of an edge that has everything switched on."""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, object]:
    """An edge with everything switched on, on ports the kernel chooses."""
    write_backends(tmp_path / "routing.db", [row("a", 1)])
    return {
        **admin_variables(tmp_path),
        "LISTEN_ADDR": "127.0.0.1:0",
        "METRICS_LISTEN_ADDR": "127.0.0.1:0",
        "DNS_LISTEN_ADDR": "127.0.0.1:0",
        "DB_PATH": tmp_path / "routing.db",
        "BINDING_SNAPSHOT": tmp_path / "bindings.jsonl",
        "LOG_PATH": tmp_path / "edge.jsonl",
        "DRAIN_TIMEOUT_SECS": 0,
    }


def made(variables: dict[str, object]) -> Edge:
    return Edge(load({f"EDGEPROXY_{name}": str(value) for name, value in variables.items()}))


def sockets() -> set[str]:
    """Return every socket that this process has."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # the folder's own
            continue
    return {one for one in found if one.startswith("socket:")}


def greenlets() -> set[int]:
    return {id(one) for one in gc.get_objects() if isinstance(one, gevent.Greenlet) and one.started and not one.dead}


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    actors, before, running = set(pykka.ActorRegistry.get_all()), sockets(), greenlets()
    yield
    assert set(pykka.ActorRegistry.get_all()) == actors
    eventually(lambda: sockets() <= before, what="every socket is closed")
    eventually(lambda: greenlets() <= running, what="every greenlet has ended")


# gevent leaves the socket of a WSGI server that could not bind to the reference count, which closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("variable", ["METRICS_LISTEN_ADDR", "ADMIN_LISTEN_ADDR", "DNS_LISTEN_ADDR", "LISTEN_ADDR"])
def test_an_address_that_is_taken(variables, variable):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        edge = made(variables | {variable: address})
        with nothing_left_behind(), pytest.raises(BindError, match=address):
            edge.start()


def test_a_list_of_tokens_that_cannot_be_read(variables, tmp_path):
    edge = made(variables)
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
        database.execute("CREATE TABLE tokens (other TEXT)")
    with nothing_left_behind(), pytest.raises(StoreError, match="tokens"):
        edge.start()


def test_a_gateway_database_that_is_none(variables, tmp_path):
    (tmp_path / "gateway.db").write_bytes(b"no database" * 1000)
    with nothing_left_behind(), pytest.raises(StoreError, match="not a database"):
        made(variables)


def test_a_token_file_that_cannot_be_written_and_a_database_without_tokens(variables, tmp_path):
    edge = made(variables | {"ADMIN_TOKEN_FILE": tmp_path / "no" / "folder"})
    with nothing_left_behind(), pytest.raises(StoreError, match="the first token cannot be written"):
        edge.start()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, gevent.GreenletExit])
def test_whatever_is_thrown_in_while_it_waits_for_a_locked_database(variables, tmp_path, error):
    edge = made(variables)
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
        database.execute("BEGIN EXCLUSIVE")
        with nothing_left_behind():
            ended = []

            def start() -> None:
                try:
                    edge.start()
                except BaseException as raised:
                    ended.append(type(raised))

            starting = gevent.spawn(start)
            eventually(lambda: edge.status.address.port, what="the metrics listener is open")
            starting.kill(error, timeout=10)
            assert ended == [error]


def test_a_timeout_of_the_program_that_embeds_it(variables, tmp_path):
    edge = made(variables)
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
        database.execute("BEGIN EXCLUSIVE")
        with nothing_left_behind(), pytest.raises(gevent.Timeout), gevent.Timeout(0.5):
            edge.start()


def test_every_step_of_the_start_is_tried_below(variables):
    assert sum(1 for _ in steps(made(variables)._built)) == STEPS


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(STEPS))
def test_any_exception_in_any_step(variables, monkeypatch, number, when):
    """Each step in turn fails, before it has done its work or right after it, as if an interrupt came then."""
    error = (OSError(24, "Too many open files"), KeyboardInterrupt(), gevent.Timeout(0), MemoryError())[number % 4]

    def failing(do: Callable[[], object]) -> Callable[[], None]:
        def fail() -> None:
            if when == "after":
                do()
            raise error

        return fail

    def faulty(built: object) -> Iterator[Step]:
        for position, step in enumerate(steps(built)):
            yield step._replace(do=failing(step.do)) if position == number else step

    monkeypatch.setattr(edge_module, "steps", faulty)
    edge = made(variables)
    with nothing_left_behind(), pytest.raises(type(error)) as raised:
        edge.start()
    assert raised.value is error
    edge.stop()
    with pytest.raises(RuntimeError, match="starts only once"):
        edge.start()


def test_a_configuration_that_cannot_be_applied_leaves_nothing_behind_either(variables):
    edge = made(variables)
    edge.start()
    try:
        before, (frontend,) = edge.config, edge.config.frontends
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = (*frontend.listen, ListenAddress(*taken.getsockname()))
            changes = {
                "frontends": (frontend.model_copy(update={"listen": listen}),),
                "metrics_listen_addr": ListenAddress("127.0.0.2", 0),
            }
            with nothing_left_behind(), pytest.raises(BindError):
                edge.apply(before.model_copy(update=changes))
        assert edge.config is before
        assert edge.status.address.host == "127.0.0.1"
    finally:
        edge.stop()


def test_a_configuration_that_waits_while_the_edge_stops_opens_no_listener(variables):
    """It waits for the routing database, which its new pool needs."""

    def config(*pools: dict[str, object]) -> Config:
        document = {
            "global": {"metrics": {"listen": f"127.0.0.{len(pools)}:0"}},
            "frontends": [frontend(str(one["name"]), str(one["name"])) for one in pools],
            "backends": list(pools),
        }
        given = {"GATEWAY_DB_PATH", "DB_PATH", "LOG_PATH", "GEOIP_PATH", "DRAIN_TIMEOUT_SECS"}
        environment = {f"EDGEPROXY_{name}": str(variables[name]) for name in given}
        return load({**environment, "EDGEPROXY_ADMIN_LISTEN_ADDR": ""}, document=document)

    web, late = pool("web", 1), {"name": "late", "app": ""}
    with nothing_left_behind():
        edge = Edge(config(web))
        edge.start()
        with edge.parts.watcher._turn:
            applying = gevent.spawn(edge.apply, config(web, late))
            gevent.sleep(0)
            edge.stop()
        with pytest.raises(Draining):
            applying.get(timeout=10)
        assert edge.listeners.addresses.keys() == {"web"}
        assert edge.status.address.host == "127.0.0.1"
