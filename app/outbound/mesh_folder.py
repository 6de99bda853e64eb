"""The directory of a plan: plan.json, and for each POP a directory with the files for its /etc/wireguard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from app.config.mesh import read_plan, stored_plan
from app.domain.mesh.plan import Plan
from app.outbound.wireguard_keys import make_key, public_key
from app.wire.wireguard_conf import INTERFACE, wireguard_conf

PLAN_FILE: Final = "plan.json"


class MeshFolder:
    """Stores the last plan, the keys made here, and the configurations."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last_plan(self) -> Plan | None:
        """Return the last plan, or None. Raises ConfigError, OSError."""
        file = self._path / PLAN_FILE
        try:
            return read_plan(file.read_bytes(), str(file))
        except FileNotFoundError:
            return None

    def key(self, pop: str, *, may_make: bool) -> str | None:
        """Return the public key of a POP whose private key is stored here. Without one, make it if `may_make`.

        Raises KeyFileError, OSError.
        """
        file = self._path / pop / f"{INTERFACE}.key"
        if may_make:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return make_key(file)
        try:
            return public_key(file)
        except FileNotFoundError:
            return None

    def write(self, plan: Plan) -> list[str]:
        """Write the configurations that have changed, then the plan. Returns the changed POPs. Raises OSError."""
        changed = []
        for pop in plan.pops:
            file = self._path / pop.name / f"{INTERFACE}.conf"
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _write(file, wireguard_conf(plan, pop)):
                changed.append(pop.name)
        _write(self._path / PLAN_FILE, stored_plan(plan))
        return changed


def _write(path: Path, text: str) -> bool:
    """Replace a file atomically, if its content differs. Returns whether it did."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return True
