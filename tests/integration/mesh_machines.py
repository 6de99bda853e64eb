"""Tunnels between machines in tests, by a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.commands import command
from tests.namespaces import Machine, Wire
from tests.programs import program


def require_wireguard() -> None:
    """Install Debian's packages of the tunnels, where they are missing and we may."""
    program("wg-quick", "wireguard-tools")
    program("wireguard-go", "wireguard-go")


def plan(folder: Path, content: dict[str, Any], *options: object) -> dict[str, Any]:
    """Write the file of the network, plan it into the folder `mesh`, and return what the command says as JSON."""
    file = folder / "mesh.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    done = command("mesh", "plan", file, "--dir", folder / "mesh", "--json", *options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return dict(json.loads(done.stdout))


def addresses(planned: dict[str, Any]) -> dict[str, str]:
    """Return the IPv6 address of every instance of a plan, by id, and each POP's own, by name."""
    found = {}
    for pop in planned["plan"]["pops"]:
        found[pop["name"]] = pop["ipv6_network"].removesuffix("/80") + "1"
        found |= {instance["id"]: instance["ipv6"] for instance in pop["instances"]}
    return found


def tunnels_up(network: Wire, folder: Path) -> None:
    """Give every machine its folder of the plan, and bring its tunnels up: down first where they are."""
    for name, machine in network.machines.items():
        if machine.run("ip", "link", "show", "edge0").returncode == 0:
            machine.do("wg-quick", "down", "edge0")
        machine.do("sh", "-c", f"cp -p {folder / 'mesh' / name}/* /etc/wireguard/")
        machine.do("wg-quick", "up", "edge0")


def handshakes(machine: Machine) -> int:
    """Return how many peers a machine has had a handshake with."""
    lines = machine.do("wg", "show", "edge0", "latest-handshakes").splitlines()
    return sum(line.split()[1] != "0" for line in lines)
