"""A new edge beside one that drains: it starts on the same addresses, with the same files, and neither spoils them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path

import gevent
import pytest

from tests.admin_client import Admin, admin_of, admin_variables
from tests.harness import EdgeProcess, eventually, frontend, write_backends
from tests.integration.peers import is_listened_on
from tests.traffic import ask, named, serving, who

TTL_SECONDS = 4
SERVICE = {"host": "127.0.0.1", "region": "sa", "country": "BR", "ttl_seconds": TTL_SECONDS}


class Upgrade:
    """A former edge that drains, with one connection open, and the new edge on its addresses."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.ports = {name: stack.enter_context(serving(named(name))) for name in ("first", "second")}
        self.snapshot = folder / "bindings"
        write_backends(folder / "routing.db", [])
        self.former = self._start("former", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")
        self.admin = admin_of(self.former, folder)
        for name in self.ports:
            self.register(self.admin, name)
        renewing = gevent.spawn(self.renew)
        stack.callback(renewing.kill)
        self.deploy()
        self.former.wait_for_backends(2)
        self.bound = who(self.former, "127.0.0.9")
        self.staying = stack.enter_context(self.former.connect("127.0.0.8"))
        self.stays_at = ask(self.staying)
        self.new = self.replace()
        self.admin = admin_of(self.new, folder)

    def _start(self, name: str, listen: str, metrics: str, admin: str, dns: str) -> EdgeProcess:
        own = self._folder / name
        own.mkdir()
        variables = {key: str(value) for key, value in admin_variables(self._folder).items()} | {
            "ADMIN_LISTEN_ADDR": admin, "DNS_LISTEN_ADDR": dns, "BINDING_SNAPSHOT": str(self.snapshot),
            "DRAIN_TIMEOUT_SECS": "600",
        }  # fmt: skip
        web = {"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True}
        config = {
            "global": {"metrics": {"listen": metrics}},
            "frontends": [frontend("tcp", "all", algorithm="geo") | {"listen": listen}, web],
            "backends": [{"name": "all", "app": ""}],
        }
        edge = EdgeProcess(own, self._folder / "routing.db", "", variables, config)
        self._stack.callback(edge.kill)
        return edge

    def register(self, admin: Admin, name: str) -> None:
        response = admin.call("PUT", f"/api/registrations/{name}", {**SERVICE, "port": self.ports[name]})
        assert response.status in (200, 201), response

    def renew(self) -> None:
        """Renew the registrations again and again, at the edge that responds."""
        while True:
            for name in self.ports:
                with suppress(OSError, HTTPException):
                    self.register(self.admin, name)
            gevent.sleep(TTL_SECONDS / 20)

    def deploy(self) -> None:
        assert self.admin.call("POST", "/api/endpoints", {"id": "hi", "path": "/hi"}).status == 201
        source = "def handle(request, context):\n    return 'hi'\n"
        response = self.admin.call("POST", "/api/endpoints/hi/deploy", {"source": source})
        assert response.status in (200, 201), response

    def replace(self) -> EdgeProcess:
        """Signal the former edge, and start the new one as soon as the addresses are free."""
        listens = [self.former.frontends["tcp"][0], self.former.metrics_address, self.admin.address]
        dns = str(self.former.event("DNS for ")["dns"][0])
        self.former.process.send_signal(signal.SIGTERM)
        for address in listens:
            eventually(lambda address=address: not is_listened_on(address), what=f"{address} is released")
        return self._start("new", *("{}:{}".format(*address) for address in listens), dns)


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory) -> Iterator[Upgrade]:
    with ExitStack() as stack:
        yield Upgrade(tmp_path_factory.mktemp("upgrade"), stack)


def test_each_serves_its_own_connections(upgrade):
    assert ask(upgrade.staying) == upgrade.stays_at
    upgrade.new.wait_for_backends(2)
    assert who(upgrade.new) in upgrade.ports
    assert upgrade.new.ready()["ready"]
    assert ask(upgrade.staying) == upgrade.stays_at
    assert upgrade.former.process.poll() is None


def test_the_new_one_has_the_bindings_of_the_former(upgrade):
    upgrade.new.wait_for_backends(2)
    assert who(upgrade.new, "127.0.0.9") == upgrade.bound
    assert who(upgrade.new, "127.0.0.8") == upgrade.stays_at
    found = eventually(lambda: [line["event"] for line in upgrade.new.log() if "restored" in line["event"]])
    assert found in (["2 bindings restored"], ["3 bindings restored"]), "a look at the listener may have been served"


def test_the_new_one_has_the_tokens_and_the_endpoints(upgrade):
    assert [one["name"] for one in upgrade.admin.get("/api/tokens")["items"]] == ["first"]
    assert [one["id"] for one in upgrade.admin.get("/api/endpoints")["items"]] == ["hi"]


def test_registrations_live_by_their_renewals_at_the_new_one(upgrade):
    """The former edge gets no renewals any more, so it must not end what it does not hear of."""
    gevent.sleep(1.5 * TTL_SECONDS)
    assert upgrade.former.process.poll() is None
    assert upgrade.former.event("registration first: expired") is None
    assert upgrade.new.ready()["candidates"] == 2


def test_the_former_ends_with_its_last_connection_and_leaves_the_files_alone(upgrade):
    upgrade.staying.close()
    assert upgrade.former.wait() == 0
    assert upgrade.former.log()[-1]["event"] == "stopped"
    assert json.loads(upgrade.snapshot.read_text().splitlines()[0])["format"] == 1
    assert upgrade.admin.get("/api/endpoints/hi")["id"] == "hi"
    assert upgrade.new.ready()["ready"]
