"""Services of handlers: databases, caches, storages, mail servers. Create, test, replace, remove.

parse_service validates them. Secrets are stored and never shown; a masked one in a request stands for the stored one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, WithJsonSchema

from app.admin.api import Api, Model, set_audit_target
from app.admin.problems import Problem
from app.domain.json_schema import JsonSchema
from app.domain.service_errors import ServiceBusy, ServiceDown, ServiceError
from app.domain.service_settings import ENGINES, settings_schema
from app.domain.services import NAME_PATTERN, BadService, ServiceView
from app.domain.tokens import Scope
from app.edge.parts import EdgeParts

TAG: Final = "services"

_Name = Annotated[Any, WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
_Kind = Annotated[Any, WithJsonSchema({"enum": list(ENGINES)})]
_Settings = Annotated[Any, WithJsonSchema({"type": "object"})]

_SETTINGS_BY_KIND: Final[JsonSchema] = {
    "oneOf": [
        {"properties": {"kind": {"const": kind}, "settings": settings_schema(kind)}, "required": ["kind", "settings"]}
        for kind in ENGINES
    ]
}
"""Describes only: parse_service validates."""


class ServiceFields(Model):
    """A service without its name."""

    model_config = ConfigDict(json_schema_extra=_SETTINGS_BY_KIND)

    kind: _Kind = Field(description="The kind of client that handlers get", examples=["database"])
    settings: _Settings = Field(
        default=None,
        description="engine, address, credentials, limits; the engine may be omitted if the kind has one",
        examples=[{"engine": "sqlite", "path": "visits.db"}],
    )


class NewService(ServiceFields):
    """A service."""

    name: _Name = Field(description="Its name in handlers", examples=["main"])


class ServiceState(Model):
    """A service and the state of its connections."""

    model_config = ConfigDict(json_schema_extra=_SETTINGS_BY_KIND)

    name: str
    kind: str
    settings: dict[str, Any] = Field(description="Secrets are masked")
    is_up: bool
    reason: str = Field(description="Why it is down; empty while it is up")
    connected: int
    in_use: int
    depth: int = Field(description="Calls waiting for a connection")
    served: int
    errors: int
    timeouts: int
    busy: int
    down: int
    opened: int
    is_being_replaced: bool


class ServiceStates(Model):
    """Every service."""

    items: list[ServiceState]
    damaged: dict[str, str] = Field(description="Stored services that are left out, by name, and why")


class ServicePath(Model):
    """Selects a service."""

    service_name: str = Field(description="Its name")


class ReplaceQuery(Model):
    """Options of a replacement."""

    even_if_down: bool = Field(
        default=False, description="Replace it even if no connection can be opened with the new settings"
    )


class TestResult(Model):
    """The result of a test."""

    seconds: float = Field(description="Time to connect and get a response")


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""
    routes, one, post = _Routes(edge), "/api/services/<service_name>", partial(api.post, tag=TAG)
    api.get("/api/services", Scope.READ, tag=TAG, response=ServiceStates)(routes.list_services)
    post("/api/services", Scope.DEPLOY, response=ServiceState, status=201, problems=(409,))(routes.create_service)
    api.get(one, Scope.READ, tag=TAG, response=ServiceState, problems=(404,))(routes.get_service)
    api.put(one, Scope.DEPLOY, tag=TAG, response=ServiceState, problems=(404, 409, 502))(routes.replace_service)
    post(f"{one}/test", Scope.OPERATE, response=TestResult, problems=(404, 502))(routes.test_service)
    api.delete(one, Scope.DEPLOY, tag=TAG, problems=(404,))(routes.remove_service)


class _Routes:
    """A method for each route. Its docstring is the description of the route."""

    def __init__(self, edge: EdgeParts) -> None:
        self._edge = edge
        self._services = edge.gateway.services

    def list_services(self) -> ServiceStates:
        """List the services."""
        with _problems():
            damaged = self._edge.gateway.damaged("service")
        return ServiceStates(items=[_described(view) for view in self._services.services.describe()], damaged=damaged)

    def create_service(self, body: NewService) -> ServiceState:
        """Create a service and start it; if it cannot be reached, connecting is retried."""
        set_audit_target(str(body.name))
        with _problems():
            view = self._services.create(_given(body.name, body))
        self._edge.gateway.look_for_damage()
        return _described(view)

    def get_service(self, path: ServicePath) -> ServiceState:
        """Show a service."""
        with _problems():
            self._edge.gateway.damaged("service")  # raises StoreError unless the list is complete
            return _described(self._services.services.describe_one(path.service_name))

    def replace_service(self, path: ServicePath, query: ReplaceQuery, body: ServiceFields) -> ServiceState:
        """Change a service's settings; the new connections are up before the old ones are closed."""
        with _problems():
            return _described(self._services.replace(_given(path.service_name, body), even_if_down=query.even_if_down))

    def test_service(self, path: ServicePath) -> TestResult:
        """Open a connection and ping the service."""
        with _problems():
            return TestResult(seconds=self._services.services.test(path.service_name))

    def remove_service(self, path: ServicePath) -> None:
        """Stop a service and delete it."""
        with _problems():
            self._services.remove(path.service_name)
        self._edge.gateway.look_for_damage()


def _given(name: object, body: ServiceFields) -> dict[str, object]:
    settings = {} if body.settings is None else body.settings
    return {"name": name, "kind": body.kind, "settings": settings}


@contextmanager
def _problems() -> Iterator[None]:
    """Convert exceptions of services into problems."""
    try:
        yield
    except BadService as bad:
        faults = [(fault.column, fault.rule) for fault in bad.faults]
        raise Problem(422, "this is not a valid service", errors=faults) from None
    except LookupError as missing:
        raise Problem(404, str(missing)) from None
    except ServiceDown as down:
        raise Problem(502, str(down)) from None
    except (ServiceBusy, ServiceError) as conflict:
        raise Problem(409, str(conflict)) from None


def _described(view: ServiceView) -> ServiceState:
    shown, counts = view.spec.masked(), view.counts
    return ServiceState(
        **shown,  # type: ignore[arg-type]
        is_up=counts.is_up,
        reason=counts.reason,
        connected=counts.connected,
        in_use=counts.in_use,
        depth=counts.depth,
        served=counts.served,
        errors=counts.errors,
        timeouts=counts.timeouts,
        busy=counts.busy,
        down=counts.down,
        opened=counts.opened,
        is_being_replaced=view.is_being_replaced,
    )
