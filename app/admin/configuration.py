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
    routes = _Routes(edge, reloader)
    api.get("/api/configuration", Scope.READ, tag=TAG, response=Configuration)(routes.get_configuration)
    api.post("/api/reload", Scope.OPERATE, tag=TAG, response=Reloaded, problems=(409,))(routes.reload_configuration)
    api.get("/api/status", Scope.READ, tag="status", response=Status)(routes.get_status)


class _Routes:
    """A method for each route. Its docstring is the description of the route."""

    def __init__(self, edge: EdgeParts, reloader: Reloader | None) -> None:
        self._edge = edge
        self._reloader = reloader

    def get_configuration(self) -> Configuration:
        """Show the configuration in force, with masked secrets."""
        config, file = self._edge.config(), self._edge.file
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

    def reload_configuration(self) -> Reloaded:
        """Reload the configuration file. If it has a fault, all of it is refused and the old one stays in force."""
        config = self._edge.config()
        if self._reloader is None:
            raise Problem(409, "there is no configuration file to reload")
        if self._edge.draining.is_set():
            raise Problem(409, "the edge is draining")
        self._reloader.reload()
        if not self._reloader.state.is_current:
            faults = [(str(config.config_path), str(masked(fault))) for fault in self._reloader.state.faults]
            raise Problem(409, "the configuration file is refused, the old one stays in force", errors=faults)
        return Reloaded(file=str(config.config_path))

    def get_status(self) -> Status:
        """Show whether the edge is ready, with details of its parts."""
        is_ready, details = readiness(self._edge)
        reasons = cast("list[str]", details.pop("reasons"))
        details.pop("ready")
        region = self._edge.config().region or None
        return Status(ready=is_ready, region=region, reasons=reasons, details=details)


def _dumped(part: BaseModel) -> object:
    return part.model_dump(mode="json", by_alias=True, fallback=str)


def _plain(value: object) -> object:
    """Convert a setting to a value that JSON can represent."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
