"""etcd, registration, DNS and the admin API between POPs, through the tunnels, set up as docs/how-to/mesh.md says."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.documents import blocks, typed
from tests.harness import eventually
from tests.integration.mesh_machines import addresses, plan, require_wireguard, tunnels_up
from tests.namespaces import Wire, require_namespaces, wire
from tests.places import Place
from tests.programs import program

PAGE = {one.place: one.text for one in blocks("how-to/mesh.md") if one.place}
"""Its blocks by where they are run, or stand."""
PORTS = {2379: "etcd", 2380: "etcd among its own", 5353: "DNS", 8081: "admin API"}


def variables(text: str) -> dict[str, str]:
    """Return what a block of .env sets."""
    lines = [line.split("=", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name.removeprefix("EDGEPROXY_"): value for name, value in lines}


class Places:
    """gru, fra, and nrt, which is not reachable from outside, each with etcd, a replicator and an edge."""

    def __init__(self, network: Wire, folder: Path) -> None:
        mesh = yaml.safe_load(blocks("how-to/mesh.md")[0].text)
        where = addresses(plan(folder, mesh))
        self.service = where["fra-web-1"]
        self.regions = {pop["name"]: pop["region"] for pop in mesh["pops"]}
        self.gru, self.fra, self.nrt = self.all = [Place(network[name], folder, where[name]) for name in self.regions]
        for place in self.all:
            place.variables |= self._variables(place)
        tunnels_up(network, folder)
        for place in self.all:
            self._start_etcd(place)
        for place in self.all:
            place.start_pop()
        for place in self.all:
            eventually(place.is_up, 40, f"{place.name} follows")

    def _at(self, place: Place, text: str) -> str:
        """Return a text written for gru, adapted to another POP. Lists of all POPs are unchanged."""
        lists = ("--initial-cluster ", "EDGEPROXY_ETCD_ENDPOINTS")
        own = {
            self.gru.address: place.address,
            "--name gru": f"--name {place.name}",
            "EDGEPROXY_REGION=sa": f"EDGEPROXY_REGION={self.regions[place.name]}",
        }
        lines = text.splitlines()
        for here, there in own.items():
            lines = [line if any(name in line for name in lists) else line.replace(here, there) for line in lines]
        return "\n".join(lines)

    def _variables(self, place: Place) -> dict[str, str]:
        found = variables(self._at(place, PAGE[".env at gru, and with its own region and address at every POP"]))
        if place is self.fra:
            place.machine.do(*typed(place.folder, PAGE["at fra"]))
            del found["ADMIN_INSECURE"]
            found |= {
                name: str(place.folder / file)
                for name, file in variables(PAGE[".env at fra, instead of EDGEPROXY_ADMIN_INSECURE"]).items()
            }
        return found

    def _start_etcd(self, place: Place) -> None:
        script = self._at(place, PAGE["at gru, and with its own name and address at every POP"])
        script = script.replace("/var/lib/edgeproxy-etcd", "data").replace("etcd --name", "exec etcd --name")
        place.etcd = place.machine.start(*typed(place.folder, script), log=place.folder / "etcd.log")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    require_namespaces()
    require_wireguard()
    for name, package in {
        "curl": "curl", "dig": "bind9-dnsutils", "etcd": "etcd-server", "openssl": "openssl",
    }.items():  # fmt: skip
        program(name, package)
    with wire("gru", "fra", "nrt") as network:
        yield Places(network, tmp_path_factory.mktemp("mesh"))


@pytest.fixture(scope="module")
def service(places: Places) -> Iterator[Path]:
    """Run a service at fra that registers at gru. Yields the output of the service and of `register`."""
    fra, log = places.fra, places.fra.folder / "service.log"
    shutil.copy(places.gru.folder / "admin.token", fra.folder / "gru.token")
    script = PAGE["at fra, with a token of gru"]
    script = script.replace("python -m app register", "exec python -m app register --drain-seconds 0")
    process = fra.machine.start("env", "PYTHONUNBUFFERED=1", *typed(fra.folder, script), log=log)
    eventually(lambda: "is registered at" in log.read_text(), 20, "it is registered")
    yield log
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    eventually(lambda: not any(place.rows() for place in places.all), what="it is deregistered everywhere")


def test_a_service_that_registers_at_one_pop_is_served_at_another_through_the_tunnel(places: Places, service: Path):
    gru, fra, nrt = places.all
    eventually(lambda: "Directory listing" in nrt.response(), 5, "served at nrt")
    assert f"{nrt.address} - - " in service.read_text(), "which came by way of the private network"
    eventually(lambda: gru.rows() == fra.rows() == nrt.rows(), what="all POPs have the same")
    (row,) = nrt.rows()
    assert (row[0], row[4], row[5]) == ("fra-web-1", places.service, 8080)


def test_another_pop_is_asked_for_names_and_administered(places: Places, service: Path):
    """fra's API uses TLS, gru's and nrt's rely on WireGuard."""
    _, fra, nrt = places.all
    for name, file in {"fra.token": "admin.token", "fra.pem": "admin.pem"}.items():
        shutil.copy(fra.folder / file, nrt.folder / name)
    question = ("dig", "+short", f"@{fra.address}", "-p", "5353", "web.internal", "SRV")
    eventually(lambda: nrt.machine.run(*question).stdout, what="fra knows it")
    said = nrt.machine.do(*typed(nrt.folder, PAGE["at nrt, with a token and the certificate of fra"]))
    listed, end, responses = said.rpartition("]\n")
    assert [row["id"] for row in json.loads(listed + end)] == ["fra-web-1"]
    assert responses.splitlines() == [places.service, "2 1 8080 fra-web-1.web.internal."]


def test_no_traffic_between_pops_leaves_the_tunnels(places: Places, service: Path):
    for place in places.all:
        connections = place.machine.do("ss", "-Htn", "state", "established").splitlines()
        peers = {line.split()[-1].rpartition(":")[0].strip("[]") for line in connections}
        others = {other.address for other in places.all if other is not place}
        assert others <= peers, "etcd at least speaks to the others"
        assert all(peer.startswith(("fd98:63dd:9ac2:", "127.")) for peer in peers), peers
        sockets = [line.split()[4].rpartition(":") for line in place.machine.do("ss", "-Hlntu").splitlines()]
        for port, what in PORTS.items():
            listening = {address.strip("[]") for address, _, text in sockets if text == str(port)}
            assert listening - {"127.0.0.1"} == {place.address}, what


def test_before_the_tunnels_are_up_an_edge_does_not_start(places: Places):
    """Here the address belongs to another POP."""
    nrt = places.nrt
    address = f"[{places.fra.address}]:9090"
    assert nrt.run("serve", METRICS_LISTEN_ADDR=address).wait(20) == 2
    said = (nrt.folder / "serve.log").read_text()
    assert f"cannot listen on {address} (metrics): Cannot assign requested address" in said
