"""docs/how-to/mesh.md and anycast.md: every file and command, executed on separate machines."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from pydantic import BaseModel

from app.config import mesh as mesh_file
from tests.commands import Done, backends, run
from tests.documents import blocks, typed
from tests.harness import ROOT, eventually, row, write_backends
from tests.integration.bird_router import Router
from tests.integration.mesh_machines import handshakes, require_wireguard
from tests.machines import MachineEdge, backend, get
from tests.namespaces import Machine, Wire, require_namespaces, wire
from tests.programs import program

CONTROL_PLANE = ("at ", ".env at ")
"""The places of blocks that test_mesh_control_plane.py runs."""


@pytest.fixture
def tools():
    require_namespaces()
    require_wireguard()
    program("birdc", "bird2")
    program("gdnsd", "gdnsd")
    program("dig", "bind9-dnsutils")
    program("curl", "curl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with the files that commands of the documents need."""
    shutil.copy(ROOT / "Procfile", tmp_path)
    return tmp_path


def by_hand(folder: Path, script: str) -> Done:
    done = run(typed(folder, script))
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return done


def copied(network: Wire, folder: Path) -> None:
    """Copy to every machine its directory of the plan."""
    for name, machine in network.machines.items():
        machine.do("sh", "-c", f"cp -p {folder / 'mesh' / name}/* /etc/wireguard/")


def test_the_private_network_is_set_up_as_documented(tools, folder):
    with wire("gru", "fra", "nrt") as network:
        printed = {}
        for language, text, place in ((one.language, one.text, one.place) for one in blocks("how-to/mesh.md")):
            if language == "yaml":
                with (folder / "mesh.yaml").open("a") as file:
                    file.write(text)
            elif place == "where the plan is kept":
                printed[text] = by_hand(folder, text).stdout
                if len(printed) == 1:
                    copied(network, folder)
            elif place == "on every POP":
                for name, machine in network.machines.items():
                    printed[f"{name}: {text}"] = machine.do(*typed(folder, text))
            else:
                assert (language, place) == ("", "") or place.startswith(CONTROL_PLANE)
        planned = json.loads((folder / "mesh" / "plan.json").read_text())
        (whose,) = [said for text, said in printed.items() if "mesh whois" in text]
        assert whose.split("  ")[1].strip() == "region sa, pop gru, the POP itself"
        for pop in planned["pops"]:
            (key,) = [said for text, said in printed.items() if text.startswith(pop["name"]) and "mesh key" in text]
            assert key.strip() == pop["public_key"]
        rows = json.loads(backends(folder / "routing.db", "list", "--json").stdout)
        instances = {one["id"]: one for pop in planned["pops"] for one in pop["instances"]}
        assert {one["id"]: one["wg_ip"] for one in rows} == {id: one["ipv4"] for id, one in instances.items()}, (
            "and back"
        )
        for machine in network.machines.values():
            machine.do("wg-quick", "down", "edge0")
        copied(network, folder)
        for machine in network.machines.values():
            machine.do("wg-quick", "up", "edge0")
        eventually(lambda: [handshakes(one) for one in network.machines.values()] == [2, 2, 2], 20, "all have met")
        fra = instances["fra-web-2"]
        for address in (fra["ipv6"], fra["ipv4"]):
            backend(network["fra"], folder, "fra-web-2", address)
            assert get(network["nrt"], address, 8080).startswith("fra-web-2")


def fields_of(model: type[BaseModel]) -> dict[str, Any]:
    return {str(field.validation_alias or name): field for name, field in model.model_fields.items()}


def test_the_table_of_the_file_has_every_key_and_its_default():
    page = ROOT / "docs" / "reference" / "mesh-file.md"
    table = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    top = {line.split("`")[1]: line.split(" | ")[1].strip("` ") for line in table}
    documented = {word for line in table for word in re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`(.*?)`", line)))}
    for name, field in fields_of(mesh_file._MeshFile).items():
        assert name in documented
        if name in top and not field.is_required() and field.default not in (None, ()):
            assert top[name] == str(field.default)
    for model in (mesh_file._Pop, mesh_file._App, mesh_file._Bgp, mesh_file._Neighbour, mesh_file._Anycast):
        assert set(fields_of(model)) <= documented


def test_a_prefix_is_announced_as_documented(tools, folder):
    """honcho signals all processes at once, and kills the rest five seconds after the first has ended."""
    prefixes = {"198.51.100.0/24", "2001:db8:100::/48"}
    yaml_block, *rest = [one for one in blocks("how-to/anycast.md") if one.language in ("yaml", "sh")]
    (folder / "mesh.yaml").write_text(yaml_block.text)
    with wire("router", "gru") as network:
        gru = network["gru"]
        router = Router(network["router"], folder, {2: 64512}, 1)
        backend(gru, folder, "gru-web", "127.0.0.1")
        write_backends(folder / "routing.db", [row("web", 8080)])
        for block in rest:
            if block.place == "where the file is":
                by_hand(folder, block.text)
            elif block.place == "":
                (folder / ".env").write_text(block.text)
            elif "honcho" not in block.text:
                gru.do(*typed(folder, block.text))
            else:
                command = typed(folder, block.text.replace("honcho", "exec honcho"))
                honcho = gru.start(*command, log=folder / "output", LISTEN_ADDR="*:8000", GEOIP_PATH="off")
        eventually(lambda: set(router.routes()) == prefixes, 20, "announced")
        for address in ("198.51.100.1", "2001:db8:100::1"):
            assert get(router.machine, address, 8000).startswith("gru-web")
        listening = gru.do("ss", "-Hlnt")
        assert ":179 " not in listening, "exabgp listens nowhere"
        honcho.send_signal(signal.SIGTERM)
        eventually(lambda: not router.routes(), 3, "withdrawn")
        assert get(gru, "192.0.2.2", 8000).startswith("gru-web"), "the doors are still open"
        honcho.wait(20)
        output = (folder / "output").read_text()
        assert (output.count("(rc=0)"), "SIGKILL" in output) == (2, False), output


def geography(path: Path) -> None:
    """Write a database in GeoLite2's schema, with one network in Brazil and one in Germany."""
    writer = MMDBWriter(6, "GeoLite2-Country", ipv4_compatible=True)
    for network, continent, country in (("200.160.0.0/16", "SA", "BR"), ("193.0.0.0/16", "EU", "DE")):
        writer.insert_network(IPSet([network]), {"continent": {"code": continent}, "country": {"iso_code": country}})
    writer.to_db_file(str(path))


def gdnsd(machine: Machine, folder: Path) -> None:
    """Run gdnsd with the configuration and zone in the document."""
    config = next(one.text for one in blocks("how-to/anycast.md") if one.language == "gdnsd")
    record = next(one.text for one in blocks("how-to/anycast.md") if one.language == "zone")
    (folder / "geoip").mkdir(parents=True)
    (folder / "zones").mkdir()
    geography(folder / "geoip" / "GeoLite2-Country.mmdb")
    places = f"options => {{ run_dir => {folder}/run, state_dir => {folder}/state }}\n"
    (folder / "config").write_text(places + config)
    zone = "@ SOA dns hostmaster 1 7200 1800 259200 900\n@ NS dns\ndns A 192.0.2.1\n"
    (folder / "zones" / "example.net").write_text(zone + record)
    machine.start("gdnsd", "-c", folder, "start", log=folder.parent / "gdnsd.log")


def test_dns_redirects_clients_before_listeners_close_as_documented(tools, tmp_path):
    with wire("dns", "gru", "fra") as network:
        for name in ("gru", "fra"):
            backend(network[name], tmp_path, f"{name}-web", "127.0.0.1")
        edges = [
            MachineEdge(network[name], tmp_path, METRICS_LISTEN_ADDR="0.0.0.0:9090", DRAIN_WITHDRAW_SECS="35")
            for name in ("gru", "fra")
        ]
        for edge in edges:
            write_backends(edge.database, [row("web", 8080)])
            edge.start()
        gdnsd(network["dns"], tmp_path / "gdnsd")

        def address_for(client: str) -> str:
            question = ("dig", "+short", "+time=1", "+tries=1", "@127.0.0.1", f"+subnet={client}/24", "www.example.net")
            return network["dns"].run(*question).stdout.strip()

        eventually(lambda: address_for("200.160.2.0") == "192.0.2.2", what="Brazil is sent to gru")
        assert address_for("193.0.1.0") == "192.0.2.3", "Germany to fra"
        edges[0].stop(signal.SIGTERM)
        eventually(lambda: address_for("200.160.2.0") == "192.0.2.3", 6, "Brazil is sent to fra")
        assert get(network["gru"], "192.0.2.2", 8000).startswith("gru-web"), "the doors are still open"
