"""The configuration in force with its secrets masked, the reload, and how the edge is."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, Field

from app.admin.api import Api, Model
from app.admin.problems import Problem
from app.config import Settings, variable
from app.domain.secrets import masked
from app.domain.tokens import Scope
from app.edge.parts import EdgeParts
from app.edge.readiness import readiness
from app.edge.reload import Reloader

TAG = "configuration"


class Configuration(Model):
    """What the edge serves by."""

    variables: dict[str, Any] = Field(description="Each variable of the environment with its value in force")
    frontends: list[dict[str, Any]]
    pools: list[dict[str, Any]]
    warnings: list[str]
    file: str | None = Field(description="Where frontends and pools come from; null: the environment")
    is_current: bool = Field(description="The file as it was read last is what serves")
    faults: list[str] = Field(description="Why it is not")


class Reloaded(Model):
    """The configuration file was read again and serves."""

    file: str


class Status(Model):
    """Whether the edge wants clients, as /ready of the other listener says it."""

    ready: bool
    region: str | None = Field(description="Where this point of presence is")
    reasons: list[str] = Field(description="Why not")
    details: dict[str, Any]


def add_routes(api: Api, edge: EdgeParts, reloader: Reloader | None) -> None:
    """Add the routes of this subject. `reloader` is None without a configuration file."""

    @api.get("/api/configuration", Scope.READ, tag=TAG, response=Configuration)
    def get_configuration() -> Configuration:
        """Show the configuration in force, secrets masked."""
        config, file = edge.config(), edge.file
        variables = {variable(name): _plain(getattr(config, name)) for name in Settings.model_fields}
        parts = {name: [_dumped(part) for part in getattr(config, name)] for name in ("frontends", "pools")}
        shown = {
            "variables": variables,
            **parts,
            "warnings": list(config.warnings),
            "file": str(config.config_path) if config.config_path is not None else None,
            "is_current": file is None or file.is_current,
            "faults": file.faults if file is not None else [],
        }
        return Configuration(**cast("dict[str, Any]", masked(shown)))

    @api.post("/api/reload", Scope.OPERATE, tag=TAG, response=Reloaded, problems=(409,))
    def reload_configuration() -> Reloaded:
        """Read the configuration file again. One that is at fault is refused whole, and the old one serves on."""
        config = edge.config()
        if reloader is None:
            raise Problem(409, "there is no configuration file to read again")
        if edge.draining.is_set():
            raise Problem(409, "the edge is draining")
        reloader.reload()
        if not reloader.state.is_current:
            faults = [(str(config.config_path), str(masked(fault))) for fault in reloader.state.faults]
            raise Problem(409, "the file is refused, the old configuration serves on", errors=faults)
        return Reloaded(file=str(config.config_path))

    @api.get("/api/status", Scope.READ, tag="status", response=Status)
    def get_status() -> Status:
        """Show whether the edge is ready, and how its parts are."""
        is_ready, details = readiness(edge)
        reasons = cast("list[str]", details.pop("reasons"))
        details.pop("ready")
        region = edge.config().region or None
        return Status(ready=is_ready, region=region, reasons=reasons, details=details)


def _dumped(part: BaseModel) -> object:
    return part.model_dump(mode="json", by_alias=True, fallback=str)


def _plain(value: object) -> object:
    """Return a setting as JSON can say it."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
