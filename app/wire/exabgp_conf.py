"""Writes a POP's exabgp configuration: it announces the prefixes while /ready returns 200, else withdraws them in 3 s.

exabgp's own healthcheck polls /ready twice a second, and five times a second after a first changed result. Two equal
results in a row decide. Each poll of an edge that hangs times out after 0.8 s, so the worst case is slightly more than
0.5 + 0.8 + 0.2 + 0.8 seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from app.domain.mesh.anycast import Announcement, Neighbour, Version

HOLD_SECONDS: Final = 9
"""Neighbours withdraw the prefixes of a POP that has been silent for this long."""

_PACE: Final = "--interval 0.5 --fast-interval 0.2 --timeout 1 --rise 2 --fall 2"


def exabgp_conf(announcement: Announcement, ready_url: str) -> str:
    """Return the configuration, for exabgp 5."""
    lines = [f"# {announcement.pop}. Made by `python -m app mesh bgp`: do not edit."]
    versions: tuple[Version, Version] = (4, 6)
    for version in versions:
        neighbours = announcement.neighbours_of(version)
        if neighbours:
            lines += _process(announcement, version, neighbours, ready_url)
            for neighbour in neighbours:
                lines += _neighbour(announcement, version, neighbour)
    return "\n".join(lines) + "\n"


def _process(
    announcement: Announcement, version: Version, neighbours: tuple[Neighbour, ...], ready_url: str
) -> Iterator[str]:
    prefixes = " ".join(f"--ip {prefix}" for prefix in announcement.prefixes_of(version))
    neighbors = " ".join(f"--neighbor {neighbour.address}" for neighbour in neighbours)
    yield f"process ready-ipv{version} {{"
    check = f"curl -fs -m 0.8 -o /dev/null {ready_url}"
    yield (
        f"    run /usr/bin/env python3 -m exabgp healthcheck --name ready-ipv{version} --no-syslog {_PACE}"
        f' --debounce --withdraw-on-down --no-ip-setup {prefixes} {neighbors} --cmd "{check}";'
    )
    yield "    encoder text;"
    yield "}"


def _neighbour(announcement: Announcement, version: Version, neighbour: Neighbour) -> Iterator[str]:
    yield f"neighbor {neighbour.address} {{"
    yield f"    router-id {announcement.router_id};"
    yield f"    local-address {neighbour.local_address};"
    yield f"    local-as {announcement.as_number};"
    yield f"    peer-as {neighbour.as_number};"
    yield f"    hold-time {HOLD_SECONDS};"
    yield "    family {"
    yield f"        ipv{version} unicast;"
    yield "    }"
    yield "    api {"
    yield f"        processes [ ready-ipv{version} ];"
    yield "    }"
    yield "}"
