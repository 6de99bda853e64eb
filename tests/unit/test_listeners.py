"""Listeners on real sockets: all new addresses or none, kept listeners, added, changed, moved and removed frontends."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.config import Config, ListenAddress, load
from app.inbound.frontend import LiveFrontend, OpenFrontend
from app.inbound.listener import BindError, Listener
from app.inbound.listeners import Listeners
from tests.harness import PATIENCE_SECONDS

ANY = "127.0.0.1:0"


class House:
    """Listeners whose servers send every client `protocol frontend algorithm` and close the connection."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.entered: list[LiveFrontend] = []
        self.listeners = Listeners(
            {protocol: self._server(protocol) for protocol in ("tcp", "http")}, self.errors.append
        )

    def _server(self, protocol: str) -> Callable[[LiveFrontend, int, tuple[str, int], str], None]:
        def accept(live: LiveFrontend, descriptor: int, _peer: tuple[str, int], _listener: str) -> None:
            self.entered.append(live)
            config = live.current.config
            with socket.socket(fileno=descriptor) as sock:
                sock.sendall(f"{protocol} {config.name} {config.algorithm}".encode())

        return accept

    def open(self, **frontends: Any) -> None:
        """Let these frontends serve and no others: `name=listen` or `name={key: value of the file}`."""
        opened = open_frontends(**frontends)
        self.listeners.open(opened, self.listeners.prepare(opened))

    def address(self, frontend: str) -> ListenAddress:
        (address,) = self.listeners.addresses[frontend]
        return address

    def sockets(self) -> set[Listener]:
        return set(self.listeners._listeners.values())


def open_frontends(**frontends: Any) -> list[OpenFrontend]:
    """Return frontends that have a configuration only: listeners read nothing else."""
    found = configuration(**frontends).frontends
    return [cast(OpenFrontend, SimpleNamespace(config=frontend)) for frontend in found]


def configuration(**frontends: Any) -> Config:
    described = [
        {"name": name, "backend": "pool", **(said if isinstance(said, dict) else {"listen": said})}
        for name, said in frontends.items()
    ]
    return load(
        {}, document={"frontends": described, "backends": [{"name": "pool", "servers": [{"address": "127.0.0.1:1"}]}]}
    )


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def greeting(address: ListenAddress | str) -> str:
    """Return what a client receives at an address, "refused" if there is no listener."""
    host, _, port = str(address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE_SECONDS) as client:
            return client.makefile().read()
    except ConnectionRefusedError:
        return "refused"


@pytest.fixture
def house() -> Iterator[House]:
    one = House()
    yield one
    one.listeners.close()


# Opening


def test_every_frontend_is_met_at_its_own_addresses(house: House) -> None:
    house.open(web=[ANY, "[::1]:0"], api={"listen": ANY, "algorithm": "ip_hash", "protocol": "http"})
    assert {name: len(addresses) for name, addresses in house.listeners.addresses.items()} == {"web": 2, "api": 1}
    assert [greeting(address) for address in house.listeners.addresses["web"]] == ["tcp web round_robin"] * 2
    assert greeting(house.address("api")) == "http api ip_hash"


def test_a_port_that_the_kernel_chooses_may_be_asked_for_more_than_once(house: House) -> None:
    house.open(web=[ANY, ANY], api=ANY)
    addresses = [address for found in house.listeners.addresses.values() for address in found]
    assert len({address.port for address in addresses}) == 3
    assert [greeting(address).split()[1] for address in addresses] == ["web", "web", "api"]


def test_connections_between_binding_and_opening_wait(house: House) -> None:
    address = free_address()
    frontends = open_frontends(web=address)
    bound = house.listeners.prepare(frontends)
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as client:
        assert house.entered == []
        house.listeners.open(frontends, bound)
        assert client.makefile().read() == "tcp web round_robin"


# All or nothing


def test_when_one_address_cannot_be_bound_none_is_and_frontend_and_address_are_named(house: House) -> None:
    house.open(web=ANY)
    before, free = house.listeners.addresses, free_address()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BindError, match=rf"frontend last: cannot listen on {taken}: Address already in use"):
            house.listeners.prepare(open_frontends(web=ANY, new=[ANY, free], last=taken))
    assert greeting(free) == "refused"
    assert house.listeners.addresses == before
    assert greeting(house.address("web")) == "tcp web round_robin"


def test_what_was_prepared_in_vain_can_be_prepared_again(house: House) -> None:
    free = free_address()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BindError):
            house.listeners.prepare(open_frontends(new=free, last=taken))
    house.open(new=free, last=taken)
    assert [greeting(free), greeting(taken)] == ["tcp new round_robin", "tcp last round_robin"]


def test_an_address_of_another_machine_is_a_fault_of_its_frontend(house: House) -> None:
    with pytest.raises(BindError, match=r"frontend web: cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        house.listeners.prepare(open_frontends(web="192.0.2.1:0"))


# Changing


def test_an_unchanged_frontend_keeps_its_listeners_also_those_of_chosen_ports(house: House) -> None:
    fixed = free_address()
    house.open(web=[ANY, ANY, fixed])
    kept, addresses = house.sockets(), house.listeners.addresses["web"]
    house.open(new=ANY, web=[ANY, ANY, fixed])
    assert house.listeners.addresses["web"] == addresses
    assert kept < house.sockets()
    assert greeting(fixed) == "tcp web round_robin"


def test_a_changed_frontend_takes_effect_at_once_on_the_same_listener(house: House) -> None:
    house.open(web=ANY)
    address = house.address("web")
    assert greeting(address) == "tcp web round_robin"
    house.open(web={"listen": ANY, "algorithm": "geo"})
    assert house.address("web") == address
    assert greeting(address) == "tcp web geo"
    assert house.entered[0] is house.entered[1]
    assert not house.entered[0].is_closing


def test_a_frontend_gains_and_loses_addresses_while_the_others_stay(house: House) -> None:
    first, second, third = (free_address() for _ in range(3))
    house.open(web=[first, second])
    house.open(web=[second, third])
    assert [greeting(one) for one in (first, second, third)] == [
        "refused",
        "tcp web round_robin",
        "tcp web round_robin",
    ]


def test_an_address_moves_from_one_frontend_to_another_without_being_closed(house: House) -> None:
    first, second = free_address(), free_address()
    house.open(web=first, api=second)
    before = house.sockets()
    house.open(web=second, api=first)
    assert house.sockets() == before
    assert [greeting(first), greeting(second)] == ["tcp api round_robin", "tcp web round_robin"]
    assert {name: str(house.address(name)) for name in ("web", "api")} == {"web": second, "api": first}


def test_a_changed_protocol_keeps_the_listener_of_a_frontend(house: House) -> None:
    fixed = free_address()
    house.open(web=fixed)
    greeting(fixed)
    before = house.sockets()
    house.open(web={"listen": fixed, "protocol": "http"})
    assert greeting(fixed) == "http web round_robin"
    assert house.sockets() == before
    assert [live.is_closing for live in house.entered] == [True, False]


def test_a_removed_frontend_stops_listening(house: House) -> None:
    house.open(web=ANY, api=ANY)
    web, api = house.address("web"), house.address("api")
    for address in (web, api):
        greeting(address)
    house.open(api=ANY)
    assert [greeting(web), greeting(api)] == ["refused", "tcp api round_robin"]
    assert [live.is_closing for live in house.entered[:2]] == [True, False]
    assert set(house.listeners.addresses) == {"api"}


def test_a_frontend_that_returns_has_a_new_listener(house: House) -> None:
    fixed = free_address()
    house.open(web=fixed)
    greeting(fixed)
    house.open(other=ANY)
    house.open(web=fixed)
    assert greeting(fixed) == "tcp web round_robin"
    assert [live.is_closing for live in house.entered] == [True, False]


# Closing


def test_queued_connections_are_accepted_when_listeners_close(house: House) -> None:
    house.open(web=ANY)
    with socket.socket() as client:
        client.setblocking(False)
        address = house.address("web")
        client.connect_ex((address.host, address.port))  # the kernel queues it; the loop has had no turn yet
        house.listeners.close()
        assert len(house.entered) == 1
        client.setblocking(True)
        assert client.makefile().read() == "tcp web round_robin"


def test_closed_listeners_stay_closed(house: House) -> None:
    house.open(web=[ANY, ANY])
    addresses = house.listeners.addresses["web"]
    assert {greeting(address) for address in addresses} == {"tcp web round_robin"}
    house.listeners.close()
    house.listeners.close()
    assert {greeting(address) for address in addresses} == {"refused"}
    assert all(live.is_closing for live in house.entered)
    assert house.errors == []
