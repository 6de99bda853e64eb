"""Tunnels between machines, set up from a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.commands import command
from tests.namespaces import Machine, Wire
from tests.programs import program


def require_wireguard() -> None:
    """Install Debian's packages for the tunnels if they are missing and we are allowed to."""
    program("wg-quick", "wireguard-tools")
    program("wireguard-go", "wireguard-go")


def plan(folder: Path, content: dict[str, Any], *options: object) -> dict[str, Any]:
    """Write the mesh file, plan it into the directory `mesh`, and return the JSON output of the command."""
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
    """Copy to every machine its directory of the plan, and bring its tunnels up, down first if they exist."""
    for name, machine in network.machines.items():
        if machine.run("ip", "link", "show", "edge0").returncode == 0:
            machine.do("wg-quick", "down", "edge0")
        machine.do("sh", "-c", f"cp -p {folder / 'mesh' / name}/* /etc/wireguard/")
        machine.do("wg-quick", "up", "edge0")


def handshakes(machine: Machine) -> int:
    """Return the number of peers with which a machine has had a handshake."""
    lines = machine.do("wg", "show", "edge0", "latest-handshakes").splitlines()
    return sum(line.split()[1] != "0" for line in lines)
