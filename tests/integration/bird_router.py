"""Debian's bird2 on its own machine, as the router to which edges announce their prefixes."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness import eventually
from tests.namespaces import Machine
from tests.programs import program

AS_NUMBER = 64500


class Router:
    """A router that accepts the announcements of its neighbours, IPv4 and IPv6, and forwards accordingly."""

    def __init__(self, machine: Machine, folder: Path, neighbours: dict[int, int], number: int) -> None:
        """`neighbours` are AS numbers by the number of a machine in the network; `number` is our own."""
        program("birdc", "bird2")
        self.machine = machine
        self._socket = folder / "bird.socket"
        config = folder / "bird.conf"
        protocols = [
            f"protocol bgp n{peer}v{version} {{ local {prefix}{number} as {AS_NUMBER};"
            f" neighbor {prefix}{peer} as {as_number}; ipv{version} {{ import all; export none; }};"
            " connect delay time 1; }"
            for peer, as_number in neighbours.items()
            for version, prefix in ((4, "192.0.2."), (6, "2001:db8::"))
        ]
        config.write_text(
            f"router id 192.0.2.{number};\nlog stderr all;\nprotocol device {{}}\n"
            "protocol kernel { ipv4 { export all; }; }\nprotocol kernel { ipv6 { export all; }; }\n"
            + "\n".join(protocols)
        )
        self._command = ["bird", "-f", "-c", config, "-s", self._socket, "-P", folder / "bird.pid"]
        self._log = folder / "bird.log"
        self.start()

    def start(self) -> None:
        self.process = self.machine.start(*self._command, log=self._log)
        eventually(lambda: "BIRD" in self._ask("show", "status"), what=f"bird runs: {self._log}")

    def stop(self) -> None:
        """End bird, which removes its routes."""
        self.process.terminate()
        self.process.wait(10)

    def _ask(self, *words: str) -> str:
        return self.machine.run("birdc", "-s", self._socket, *words).stdout

    def routes(self) -> dict[str, str]:
        """Return the announced prefixes, each with its selected next hop."""
        found, prefix = {}, ""
        for line in self._ask("show", "route", "primary").splitlines():
            if match := re.match(r"(\S+/\d+)\s", line):
                prefix = match[1]
            if match := re.search(r"via (\S+) on", line):
                found[prefix] = match[1]
        return found

    def neighbours_of(self, prefix: str) -> int:
        """Return the number of neighbours that announce a prefix."""
        return self._ask("show", "route", "for", prefix).count("via ")
