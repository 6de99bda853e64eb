"""The configuration in force with masked secrets, its reload, and the status of the edge."""

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
    """The configuration in force."""

    variables: dict[str, Any] = Field(description="Every environment variable and its value in force")
    frontends: list[dict[str, Any]]
    pools: list[dict[str, Any]]
    warnings: list[str]
    file: str | None = Field(description="The configuration file; null: frontends and pools come from the environment")
    is_current: bool = Field(description="Whether the file, as last read, is in force")
    faults: list[str] = Field(description="Why it is not current")


class Reloaded(Model):
    """The configuration file that was reloaded."""

    file: str


class Status(Model):
    """Whether the edge is ready for clients, as /ready of the status listener reports it."""

    ready: bool
    region: str | None = Field(description="The region of this edge")
    reasons: list[str] = Field(description="Why it is not ready")
    details: dict[str, Any]


def add_routes(api: Api, edge: EdgeParts, reloader: Reloader | None) -> None:
    """Add the routes of this subject. `reloader` is None without a configuration file."""

    @api.get("/api/configuration", Scope.READ, tag=TAG, response=Configuration)
    def get_configuration() -> Configuration:
        """Show the configuration in force, with masked secrets."""
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
        """Reload the configuration file. If it has a fault, all of it is refused and the old one stays in force."""
        config = edge.config()
        if reloader is None:
            raise Problem(409, "there is no configuration file to reload")
        if edge.draining.is_set():
            raise Problem(409, "the edge is draining")
        reloader.reload()
        if not reloader.state.is_current:
            faults = [(str(config.config_path), str(masked(fault))) for fault in reloader.state.faults]
            raise Problem(409, "the configuration file is refused, the old one stays in force", errors=faults)
        return Reloaded(file=str(config.config_path))

    @api.get("/api/status", Scope.READ, tag="status", response=Status)
    def get_status() -> Status:
        """Show whether the edge is ready, with details of its parts."""
        is_ready, details = readiness(edge)
        reasons = cast("list[str]", details.pop("reasons"))
        details.pop("ready")
        region = edge.config().region or None
        return Status(ready=is_ready, region=region, reasons=reasons, details=details)


def _dumped(part: BaseModel) -> object:
    return part.model_dump(mode="json", by_alias=True, fallback=str)


def _plain(value: object) -> object:
    """Convert a setting to a value that JSON can represent."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
