"""Services under supervision: started, tested, replaced, stopped; crashes of their actors cost no connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import gevent
import pytest

from actors.runtime import Address, Crash, GeventActor, InvariantBrokenError, ask, tell
from actors.services.messages import CallService, CloseService, ReplaceService
from actors.services.pool import ServicePool
from actors.services.service import ServiceActor
from actors.services.supervision import ServiceExists, Services
from actors.supervisor import Supervisor
from app.domain.service_calls import CacheExpire
from app.domain.service_errors import NoSuchService, ServiceBusy, ServiceDown, ServiceError, ServiceTimeout
from app.domain.services import ServiceSpec, parse_service
from app.gateway.clients import Cache, Database, ServiceClients
from tests.actors.service_fakes import FakeServer, fake_spec
from tests.harness import eventually


@dataclass
class House:
    """Services of which each host is a fake server."""

    servers: dict[str, FakeServer] = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.given_up.append)
        self.services = Services(self.supervisor, lambda spec: self.server(spec.settings["host"]).connector(spec))

    def server(self, host: str) -> FakeServer:
        return self.servers.setdefault(host, FakeServer())

    def call(self, operation: object, name: str = "main", seconds: float = 5.0) -> object:
        message = CallService(operation, time.monotonic() + seconds)
        return ask(self.services.address("cache", name)[0], message, timeout_s=seconds + 1)


@pytest.fixture
def house() -> Iterator[House]:
    one = House()
    yield one
    one.services.stop_all(within_seconds=0.0)
    assert [server.open for server in one.servers.values() if server.open] == []


def at(host: str, name: str = "main", **settings: object) -> ServiceSpec:
    return fake_spec(name, host=host, **settings)


def test_a_service_is_started_described_and_asked(house):
    view = house.services.start(at("a"))
    assert (view.spec.name, view.counts.is_up, view.is_being_replaced) == ("main", True, False)
    assert house.call("hello") == "hello"
    assert [one.counts.served for one in house.services.describe()] == [1]


def test_a_service_that_is_down_is_started_and_comes_up_later(house):
    house.server("a").down = "connection refused"
    view = house.services.start(at("a"))
    assert (view.counts.is_up, view.counts.reason) == (False, "connection refused")
    house.server("a").down = None
    eventually(lambda: house.services.describe_one("main").counts.is_up)


def test_several_services_start_concurrently_and_one_that_hangs_delays_none(house):
    house.server("slow").is_slow_to_connect = True
    specs = [at("slow", "slow", connect_timeout_seconds=0.3), *(at("a", f"quick{number}") for number in range(5))]
    starting = gevent.spawn(house.services.start_all, specs)
    eventually(lambda: len(house.servers["a"].open) == 10 if "a" in house.servers else False)
    assert not starting.ready()
    starting.get(timeout=5)
    assert [(view.spec.name, view.counts.is_up) for view in house.services.describe()] == [
        *((f"quick{number}", True) for number in range(5)),
        ("slow", False),
    ]


def test_a_name_belongs_to_one_service_of_one_kind(house):
    house.services.start(at("a"))
    with pytest.raises(ServiceExists, match="service main: a service of this name already exists"):
        house.services.start(at("b"))
    with pytest.raises(NoSuchService, match="service main is of kind cache, not database"):
        house.services.address("database", "main")
    with pytest.raises(NoSuchService, match="there is no service other"):
        house.services.address("cache", "other")
    with pytest.raises(ServiceError, match="is of kind cache"):
        sqlite = {"engine": "sqlite", "path": "x"}
        house.services.replace(parse_service({"name": "main", "kind": "database", "settings": sqlite}))


def test_a_crashed_actor_is_succeeded_by_one_with_the_same_connections(house):
    house.services.start(at("a"))
    address, _ = house.services.address("cache", "main")
    under_way = gevent.spawn(house.call, "wait")
    eventually(lambda: house.server("a").asked == ["wait"])
    for _ in range(3):
        with pytest.raises(InvariantBrokenError):
            ask(address, Crash(), timeout_s=5)
    assert house.call("hello") == "hello"
    house.server("a").gate.set()
    assert under_way.get(timeout=5) == "wait", "a call under way does not notice"
    assert (address.epoch, house.server("a").closed, house.given_up) == (4, 0, [])


def test_a_replacement_is_up_before_the_old_one_ends_and_one_that_fails_changes_nothing(house):
    house.services.start(at("a"))
    house.server("b").is_slow_to_connect = True
    under_way = gevent.spawn(house.call, "wait")
    eventually(lambda: house.server("a").asked == ["wait"])
    replacing = gevent.spawn(house.services.replace, at("b", connect_timeout_seconds=0.1))
    eventually(lambda: house.services.describe_one("main").is_being_replaced)
    assert house.call("old") == "old"
    assert house.server("a").asked == ["wait", "old"]
    with pytest.raises(ServiceDown, match="no connection within"):
        replacing.get(timeout=10)
    house.server("b").is_slow_to_connect = False
    assert house.call("still old") == "still old"
    assert house.services.replace(at("b")).spec.settings["host"] == "b"
    assert house.call("new") == "new"
    assert house.server("b").asked == ["new"]
    assert house.server("a").open, "the call under way goes on"
    house.server("a").gate.set()
    assert under_way.get(timeout=5) == "wait"
    eventually(lambda: not house.server("a").open)


def test_calls_during_many_replacements_all_get_results(house):
    house.services.start(at("a", backlog=1000))
    is_over, responses = [], []

    def asking(number: int) -> None:
        while not is_over:
            responses.append(house.call(number) == number)
            gevent.sleep(0)

    askers = [gevent.spawn(asking, number) for number in range(10)]
    for number in range(20):
        house.services.replace(at("ab"[number % 2], backlog=1000))
    is_over.append(True)
    gevent.joinall(askers, raise_error=True, timeout=10)
    assert all(responses)
    assert len(responses) > 100
    eventually(lambda: sum(len(server.open) for server in house.servers.values()) == 2)


def test_a_replacement_that_is_down_is_refused_unless_it_is_wanted_all_the_same(house):
    house.services.start(at("a"))
    house.server("b").down = "connection refused"
    with pytest.raises(ServiceDown, match="connection refused"):
        house.services.replace(at("b"))
    assert house.call("hello") == "hello"
    assert not house.services.describe_one("main").is_being_replaced
    assert not house.services.replace(at("b"), even_if_down=True).counts.is_up
    with pytest.raises(ServiceDown):
        house.call("hello")


def test_one_replacement_at_a_time(house):
    house.services.start(at("a"))
    house.server("b").is_slow_to_connect = True
    first = gevent.spawn(house.services.replace, at("b", connect_timeout_seconds=0.2))
    eventually(lambda: house.services.describe_one("main").is_being_replaced)
    with pytest.raises(ServiceBusy):
        house.services.replace(at("c"))
    with pytest.raises(ServiceDown):
        first.get(timeout=5)
    assert house.services.replace(at("c")).counts.is_up


def test_an_actor_that_crashes_during_a_replacement_leaves_the_old_connections(house):
    house.services.start(at("a"))
    house.server("b").is_slow_to_connect = True
    address, _ = house.services.address("cache", "main")
    replacing = gevent.spawn(ask, address, ReplaceService(at("b", connect_timeout_seconds=0.1)), timeout_s=10)
    eventually(lambda: house.server("b").attempts)
    tell(address, Crash())
    with pytest.raises(ServiceError):
        replacing.get(timeout=10)
    assert house.call("hello") == "hello"
    assert not house.services.describe_one("main").is_being_replaced
    assert house.services.replace(at("c")).counts.is_up


def test_a_stopped_service_is_gone_and_its_name_is_free(house):
    house.services.start(at("a"))
    house.services.stop("main")
    assert house.server("a").open == []
    assert house.services.describe() == []
    with pytest.raises(NoSuchService):
        house.services.stop("main")
    assert house.supervisor.children == []
    assert house.services.start(at("b")).counts.is_up
    assert house.given_up == []


def test_stopping_waits_for_running_calls_within_the_limit(house):
    house.services.start(at("a"))
    under_way = gevent.spawn(house.call, "wait")
    eventually(lambda: house.server("a").asked)
    house.services.stop("main", within_seconds=0.05)
    with pytest.raises(ServiceDown) as caught:
        under_way.get(timeout=5)
    assert caught.value.may_have_happened


def test_settings_are_tested_before_there_is_a_service(house):
    assert house.services.test_spec(at("a")) < 1
    house.server("a").down = "connection refused"
    with pytest.raises(ServiceDown, match="connection refused"):
        house.services.test_spec(at("a"))
    assert house.services.describe() == []


def test_a_service_is_tested(house):
    house.services.start(at("a"))
    assert house.services.test("main") < 1
    house.server("a").down = "connection refused"
    with pytest.raises(ServiceDown, match="connection refused"):
        house.services.test("main")
    assert house.services.describe_one("main").counts.is_up, "its own connections stand"


def test_a_call_to_a_removed_service_fails_in_time(house):
    house.services.start(at("a"))
    client = Cache("main", house.services.address("cache", "main")[0], 0.1)
    assert client.expire("x", 1) == CacheExpire("x", 1)
    house.services.stop("main")
    began = time.monotonic()
    with pytest.raises(ServiceTimeout, match="service main"):
        client.get("x")
    assert time.monotonic() - began < 2


def test_an_actor_refuses_what_it_does_not_understand(house):
    house.services.start(at("a"))
    with pytest.raises(RuntimeError, match="has no handler for"):
        ask(house.services.address("cache", "main")[0], "nonsense", timeout_s=5)
    assert house.call("hello") == "hello"


def test_clients_are_found_by_kind_and_name(house):
    clients = ServiceClients(house.services.address)
    with pytest.raises(LookupError, match="there is no service main"):
        clients.get("cache", "main")
    house.services.start(at("a"))
    assert isinstance(clients.get("cache", "main"), Cache)
    with pytest.raises(LookupError, match="is of kind cache, not database"):
        clients.get("database", "main")
    sqlite = parse_service({"name": "shop", "kind": "database", "settings": {"engine": "sqlite", "path": "x"}})
    assert isinstance(ServiceClients(lambda kind, name: (Address(name), sqlite)).get("database", "shop"), Database)


def test_a_call_that_crashes_the_actor_fails_as_service_down(house):
    house.services.start(at("a"))
    client = house.services.address("cache", "main")[0]
    house.services.stop("main")
    client.publish(Doomed.start())
    with pytest.raises(ServiceDown) as caught:
        Cache("main", client, 1.0).get("x")
    assert caught.value.may_have_happened


def test_a_replacement_that_cannot_be_started_leaves_the_old_connections(house, monkeypatch, logged):
    house.services.start(at("a"))
    monkeypatch.setattr(ServicePool, "start", lambda pool: 1 / 0)
    with pytest.raises(ServiceError, match="could not be replaced: ZeroDivisionError"):
        house.services.replace(at("b"))
    assert house.call("hello") == "hello"
    assert not house.services.describe_one("main").is_being_replaced


def test_a_service_that_is_closed_during_its_replacement_stays_closed(house):
    house.services.start(at("a"))
    house.server("b").is_slow_to_connect = True
    replacing = gevent.spawn(house.services.replace, at("b", connect_timeout_seconds=0.2), even_if_down=True)
    eventually(lambda: house.services.describe_one("main").is_being_replaced)
    address, _ = house.services.address("cache", "main")
    ask(address, CloseService(0.0), timeout_s=5)
    with pytest.raises(ServiceDown, match="it was closed during the replacement"):
        replacing.get(timeout=5)
    with pytest.raises(ServiceDown, match="it is being closed"):
        house.call("hello")


def test_a_close_that_breaks_is_logged_and_reported(house, monkeypatch, logged):
    house.services.start(at("a"))
    address, _ = house.services.address("cache", "main")
    with monkeypatch.context() as patch:
        patch.setattr(ServicePool, "close", lambda pool, within: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ask(address, CloseService(0.0), timeout_s=5)
    assert any("background work of a service failed unexpectedly" in line for line in logged)


def test_a_service_without_an_actor_leaves_nothing_behind(house, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ServiceActor, "start", lambda slot: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            house.services.start(at("a"))
    assert house.services.describe() == []
    assert house.supervisor.children == []
    assert house.services.start(at("a")).counts.is_up


class Doomed(GeventActor):
    """Breaks over everything."""

    def handle(self, message: object) -> object:
        raise InvariantBrokenError("doomed")
