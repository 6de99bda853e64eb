"""Listeners on real sockets: all new addresses or none; frontends that are added, changed, moved and removed."""

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


class Scene:
    """Listeners whose servers send every client `protocol frontend algorithm` and close."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.accepted: list[LiveFrontend] = []
        self.listeners = Listeners(
            {protocol: self._server(protocol) for protocol in ("tcp", "http")}, self.errors.append
        )

    def _server(self, protocol: str) -> Callable[[LiveFrontend, int, tuple[str, int], str], None]:
        def accept(live: LiveFrontend, descriptor: int, _peer: tuple[str, int], _listener: str) -> None:
            self.accepted.append(live)
            config = live.current.config
            with socket.socket(fileno=descriptor) as sock:
                sock.sendall(f"{protocol} {config.name} {config.algorithm}".encode())

        return accept

    def open(self, **frontends: Any) -> None:
        """Serve exactly these frontends: `name=listen` or `name={key: value of the file}`."""
        opened = open_frontends(**frontends)
        self.listeners.open(opened, self.listeners.prepare(opened))

    def address(self, frontend: str) -> ListenAddress:
        (address,) = self.listeners.addresses[frontend]
        return address

    def sockets(self) -> set[Listener]:
        return set(self.listeners._listeners.values())


def open_frontends(**frontends: Any) -> list[OpenFrontend]:
    """Return frontends that have only a configuration: Listeners use nothing else."""
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
    """Return what a client receives at an address; "refused" if nothing listens."""
    host, _, port = str(address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE_SECONDS) as client:
            return client.makefile().read()
    except ConnectionRefusedError:
        return "refused"


@pytest.fixture
def scene() -> Iterator[Scene]:
    one = Scene()
    yield one
    one.listeners.close()


# Opening


def test_every_frontend_serves_its_own_addresses(scene: Scene) -> None:
    scene.open(web=[ANY, "[::1]:0"], api={"listen": ANY, "algorithm": "ip_hash", "protocol": "http"})
    assert {name: len(addresses) for name, addresses in scene.listeners.addresses.items()} == {"web": 2, "api": 1}
    assert [greeting(address) for address in scene.listeners.addresses["web"]] == ["tcp web round_robin"] * 2
    assert greeting(scene.address("api")) == "http api ip_hash"


def test_a_port_that_the_kernel_chooses_may_be_asked_for_more_than_once(scene: Scene) -> None:
    scene.open(web=[ANY, ANY], api=ANY)
    addresses = [address for found in scene.listeners.addresses.values() for address in found]
    assert len({address.port for address in addresses}) == 3
    assert [greeting(address).split()[1] for address in addresses] == ["web", "web", "api"]


def test_a_client_between_binding_and_opening_waits(scene: Scene) -> None:
    address = free_address()
    frontends = open_frontends(web=address)
    bound = scene.listeners.prepare(frontends)
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as client:
        assert scene.accepted == []
        scene.listeners.open(frontends, bound)
        assert client.makefile().read() == "tcp web round_robin"


# All or nothing


def test_when_one_address_cannot_be_bound_none_is_and_frontend_and_address_are_named(scene: Scene) -> None:
    scene.open(web=ANY)
    before, free = scene.listeners.addresses, free_address()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BindError, match=rf"frontend last: cannot listen on {taken}: Address already in use"):
            scene.listeners.prepare(open_frontends(web=ANY, new=[ANY, free], last=taken))
    assert greeting(free) == "refused"
    assert scene.listeners.addresses == before
    assert greeting(scene.address("web")) == "tcp web round_robin"


def test_abandoned_listeners_can_be_prepared_again(scene: Scene) -> None:
    free = free_address()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BindError):
            scene.listeners.prepare(open_frontends(new=free, last=taken))
    scene.open(new=free, last=taken)
    assert [greeting(free), greeting(taken)] == ["tcp new round_robin", "tcp last round_robin"]


def test_a_foreign_address_is_a_fault_of_its_frontend(scene: Scene) -> None:
    with pytest.raises(BindError, match=r"frontend web: cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        scene.listeners.prepare(open_frontends(web="192.0.2.1:0"))


# Changing


def test_an_unchanged_frontend_keeps_its_listeners_including_port_0(scene: Scene) -> None:
    fixed = free_address()
    scene.open(web=[ANY, ANY, fixed])
    kept, addresses = scene.sockets(), scene.listeners.addresses["web"]
    scene.open(new=ANY, web=[ANY, ANY, fixed])
    assert scene.listeners.addresses["web"] == addresses
    assert kept < scene.sockets()
    assert greeting(fixed) == "tcp web round_robin"


def test_a_changed_frontend_serves_at_once_at_the_same_listener(scene: Scene) -> None:
    scene.open(web=ANY)
    address = scene.address("web")
    assert greeting(address) == "tcp web round_robin"
    scene.open(web={"listen": ANY, "algorithm": "geo"})
    assert scene.address("web") == address
    assert greeting(address) == "tcp web geo"
    assert scene.accepted[0] is scene.accepted[1]
    assert not scene.accepted[0].is_closing


def test_a_frontend_gains_and_loses_addresses_while_the_others_stay(scene: Scene) -> None:
    first, second, third = (free_address() for _ in range(3))
    scene.open(web=[first, second])
    scene.open(web=[second, third])
    assert [greeting(one) for one in (first, second, third)] == [
        "refused",
        "tcp web round_robin",
        "tcp web round_robin",
    ]


def test_an_address_moves_from_one_frontend_to_another_without_being_closed(scene: Scene) -> None:
    first, second = free_address(), free_address()
    scene.open(web=first, api=second)
    before = scene.sockets()
    scene.open(web=second, api=first)
    assert scene.sockets() == before
    assert [greeting(first), greeting(second)] == ["tcp api round_robin", "tcp web round_robin"]
    assert {name: str(scene.address(name)) for name in ("web", "api")} == {"web": second, "api": first}


def test_with_another_protocol_a_frontend_keeps_its_listener_and_the_old_one_closes(scene: Scene) -> None:
    fixed = free_address()
    scene.open(web=fixed)
    greeting(fixed)
    before = scene.sockets()
    scene.open(web={"listen": fixed, "protocol": "http"})
    assert greeting(fixed) == "http web round_robin"
    assert scene.sockets() == before
    assert [live.is_closing for live in scene.accepted] == [True, False]


def test_a_removed_frontend_stops_listening_and_is_closing(scene: Scene) -> None:
    scene.open(web=ANY, api=ANY)
    web, api = scene.address("web"), scene.address("api")
    for address in (web, api):
        greeting(address)
    scene.open(api=ANY)
    assert [greeting(web), greeting(api)] == ["refused", "tcp api round_robin"]
    assert [live.is_closing for live in scene.accepted[:2]] == [True, False]
    assert set(scene.listeners.addresses) == {"api"}


def test_a_frontend_added_again_is_not_closing(scene: Scene) -> None:
    fixed = free_address()
    scene.open(web=fixed)
    greeting(fixed)
    scene.open(other=ANY)
    scene.open(web=fixed)
    assert greeting(fixed) == "tcp web round_robin"
    assert [live.is_closing for live in scene.accepted] == [True, False]


# Closing


def test_queued_connections_are_accepted_when_listeners_close(scene: Scene) -> None:
    scene.open(web=ANY)
    with socket.socket() as client:
        client.setblocking(False)
        address = scene.address("web")
        client.connect_ex((address.host, address.port))  # the kernel queues it; the loop has had no turn yet
        scene.listeners.close()
        assert len(scene.accepted) == 1
        client.setblocking(True)
        assert client.makefile().read() == "tcp web round_robin"


def test_closing_twice_is_harmless(scene: Scene) -> None:
    scene.open(web=[ANY, ANY])
    addresses = scene.listeners.addresses["web"]
    assert {greeting(address) for address in addresses} == {"tcp web round_robin"}
    scene.listeners.close()
    scene.listeners.close()
    assert {greeting(address) for address in addresses} == {"refused"}
    assert all(live.is_closing for live in scene.accepted)
    assert scene.errors == []
