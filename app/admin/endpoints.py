"""Endpoints of the gateway and the versions of their handlers: create, upload, compile, deploy, roll back, undeploy.

parse_endpoint validates endpoints. For a source that cannot be loaded the response is 422 with the traceback, and the
current version keeps serving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema

from app.admin.api import Api, Model, set_audit_target, with_whole_numbers
from app.admin.problems import Problem
from app.domain import path_rules
from app.domain.endpoints import (
    DOMAIN_PATTERN,
    ID_PATTERN,
    MAX_BODY_BYTES,
    MAX_CONCURRENCY,
    MAX_DOMAIN_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_RULE_CHARACTERS,
    MAX_TIMEOUT_SECONDS,
    METHODS,
    MIN_TIMEOUT_SECONDS,
    BadEndpoint,
    Endpoint,
    EndpointConflict,
    parse_endpoint,
)
from app.domain.handler_table import EndpointView, VersionView
from app.domain.json_schema import NOT_BLANK, or_null
from app.domain.stored import StoredVersion
from app.domain.tokens import Scope
from app.edge.parts import EdgeParts
from app.gateway.deployment import AlreadyExists, NotFound
from app.gateway.handler_module import HandlerError

TAG: Final = "endpoints"


def _described_as(**schema: object) -> WithJsonSchema:
    return WithJsonSchema(or_null(schema))


# These schemas only describe. parse_endpoint validates: the schemas accept all that it accepts, and a little more.
_Id = Annotated[Any, WithJsonSchema({"type": "string", "pattern": ID_PATTERN})]
_PathId = Annotated[str, WithJsonSchema({"type": "string", "pattern": ID_PATTERN})]
_Path = Annotated[
    Any, WithJsonSchema({"type": "string", "pattern": path_rules.PATTERN, "maxLength": MAX_RULE_CHARACTERS})
]
_Name = Annotated[Any, _described_as(type="string", pattern=NOT_BLANK)]
_Domain = Annotated[Any, _described_as(type="string", pattern=DOMAIN_PATTERN, maxLength=MAX_DOMAIN_CHARACTERS)]
_Methods = Annotated[Any, _described_as(type="array", items={"enum": list(METHODS)}, minItems=1)]
_Seconds = Annotated[Any, _described_as(type="number", minimum=MIN_TIMEOUT_SECONDS, maximum=MAX_TIMEOUT_SECONDS)]
_Concurrency = Annotated[Any, _described_as(type="integer", minimum=0, maximum=MAX_CONCURRENCY)]
_Bytes = Annotated[Any, _described_as(type="integer", minimum=0, maximum=MAX_BODY_BYTES)]
_Flag = Annotated[Any, _described_as(type="boolean")]


_FRONTENDS: Final = "Names of the frontends that lead to endpoints (`gateway: on`); empty: no request reaches it"


class EndpointFields(Model):
    """An endpoint without its id; omitted fields have their default."""

    name: _Name = Field(
        default=None,
        description=f"Name to display, at most {MAX_NAME_CHARACTERS} characters; its id by default",
        examples=["Users of the shop"],
    )
    domain: _Domain = Field(
        default=None,
        description="Host name, or *.host for all its subdomains; null: every host",
        examples=["my-site.example.com", "*.example.com"],
    )
    path: _Path = Field(
        description="Path rule in werkzeug's syntax",
        examples=["/", "/hello/<name>", "/users/<int:id>", "/files/<path:name>", "/<any(about,help):page>.html"],
    )
    methods: _Methods = Field(
        default=None, description="GET by default, which includes HEAD", examples=[["GET", "POST"]]
    )
    timeout_seconds: _Seconds = Field(default=None, description="Limit for one request; then 504")
    max_concurrency: _Concurrency = Field(
        default=None, description="Concurrent requests; further ones get 503; 0: no limit"
    )
    max_body_bytes: _Bytes = Field(default=None, description="Limit for a request body; larger ones get 413")
    is_enabled: _Flag = Field(default=None, description="false: the endpoint is not served")


class NewEndpoint(EndpointFields):
    """An endpoint."""

    id: _Id = Field(description="Its unique id", examples=["hello"])


class HandlerVersion(Model):
    """A loaded version."""

    number: int
    checksum: str = Field(description="SHA-256 of its source")
    active: int = Field(description="Requests in progress")
    served: int
    errors: int
    draining_since: float | None = Field(description="Unix seconds; null: the version is serving")


class EndpointState(Model):
    """An endpoint and the state of its handler."""

    id: str
    name: str
    domain: str | None
    path: str
    methods: list[str]
    timeout_seconds: float
    max_concurrency: int
    max_body_bytes: int
    is_enabled: bool
    serving: HandlerVersion | None
    draining: list[HandlerVersion]
    active: int
    served: int
    errors: int
    refused: int = Field(description="Requests beyond max_concurrency")
    frontends: list[str] = Field(description=_FRONTENDS)


class EndpointStates(Model):
    """Every endpoint."""

    items: list[EndpointState]
    damaged: dict[str, str] = Field(description="Stored endpoints that are left out, by id, and why")


class EndpointPath(Model):
    """Selects an endpoint."""

    endpoint_id: _PathId = Field(description="Its id")


class VersionPath(EndpointPath):
    """Selects a version."""

    number: int = Field(ge=1, le=2**31 - 1, description="Its number in the endpoint")


class Source(Model):
    """The source of a handler."""

    source: str = Field(description="A Python module with def handle(request, context)")


class SourceVersion(Model):
    """A stored version."""

    number: int
    checksum: str
    created_at: float = Field(description="Unix seconds")
    deployed_at: float | None = Field(description="Unix seconds of its last deployment; null: never deployed")
    frontends: list[str] = Field(description=_FRONTENDS)


class SourceVersions(Model):
    """The stored versions, oldest first."""

    items: list[SourceVersion]
    damaged: dict[str, str] = Field(description="Stored versions that are left out, by number, and why")


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""
    routes, one = _Routes(edge), "/api/endpoints/<endpoint_id>"
    post = partial(api.post, scope=Scope.DEPLOY, tag=TAG)
    api.get("/api/endpoints", Scope.READ, tag=TAG, response=EndpointStates)(routes.list_endpoints)
    post("/api/endpoints", response=EndpointState, status=201, problems=(409,))(routes.create_endpoint)
    api.get(one, Scope.READ, tag=TAG, response=EndpointState, problems=(404,))(routes.get_endpoint)
    api.put(one, Scope.DEPLOY, tag=TAG, response=EndpointState, problems=(404, 409))(routes.put_endpoint)
    api.delete(one, Scope.DEPLOY, tag=TAG, problems=(404,))(routes.remove_endpoint)

    versions, version = f"{one}/versions", f"{one}/versions/<int:number>"
    deploy = partial(post, response=SourceVersion, problems=(404, 409))
    api.get(versions, Scope.READ, tag=TAG, response=SourceVersions, problems=(404,))(routes.list_versions)
    deploy(versions, status=201)(routes.upload_version)
    # A source may hold secrets.
    api.get(f"{version}/source", Scope.DEPLOY, tag=TAG, response=Source, problems=(404, 409))(routes.get_source)
    deploy(f"{version}/compile")(routes.compile_version)
    deploy(f"{version}/deploy")(routes.deploy_version)
    deploy(f"{one}/deploy")(routes.deploy_source)
    deploy(f"{one}/roll-back")(routes.roll_back)
    post(f"{one}/undeploy", problems=(404,))(routes.undeploy)


class _Routes:
    """A method for each route. Its docstring is the description of the route."""

    def __init__(self, edge: EdgeParts) -> None:
        self._edge = edge
        self._deployment = edge.gateway.deployment

    def _frontends(self) -> list[str]:
        return [frontend.name for frontend in self._edge.config().frontends if frontend.gateway]

    def _state_of(self, endpoint_id: str) -> EndpointState:
        for view in self._deployment.endpoints():
            if view.endpoint.id == endpoint_id:
                return _described(view, self._frontends())
        fault = self._edge.gateway.damaged("endpoint").get(endpoint_id)
        raise Problem(404, f"there is no endpoint {endpoint_id!r}" if fault is None else f"it is damaged: {fault}")

    def list_endpoints(self) -> EndpointStates:
        """List the endpoints with the state of their handlers."""
        with _problems():
            damaged = self._edge.gateway.damaged("endpoint")
        items = [_described(view, self._frontends()) for view in self._deployment.endpoints()]
        return EndpointStates(items=items, damaged=damaged)

    def create_endpoint(self, body: NewEndpoint) -> EndpointState:
        """Create an endpoint; its requests get 503 until a handler is deployed."""
        endpoint = _parsed(body.model_dump())
        set_audit_target(endpoint.id)
        with _problems():
            self._deployment.create(endpoint)
        return self._state_of(endpoint.id)

    def get_endpoint(self, path: EndpointPath) -> EndpointState:
        """Show an endpoint."""
        return self._state_of(path.endpoint_id)

    def put_endpoint(self, path: EndpointPath, body: EndpointFields) -> EndpointState:
        """Replace the rule and limits of an endpoint; its handler stays."""
        with _problems():
            self._deployment.update(_parsed({"id": path.endpoint_id, **body.model_dump()}))
        return self._state_of(path.endpoint_id)

    def remove_endpoint(self, path: EndpointPath) -> None:
        """Delete an endpoint and its versions; requests in progress finish."""
        with _problems():
            self._deployment.remove(path.endpoint_id)
        self._edge.gateway.look_for_damage()

    def _version_after(self, work: Callable[..., StoredVersion], *arguments: object) -> SourceVersion:
        with _problems():
            return _source_version(work(*arguments), self._frontends())

    def list_versions(self, path: EndpointPath) -> SourceVersions:
        """List the stored versions."""
        with _problems():
            versions = self._deployment.versions(path.endpoint_id)
        items = [_source_version(version, self._frontends()) for version in versions]
        return SourceVersions(items=items, damaged=self._deployment.damaged_versions(path.endpoint_id))

    def upload_version(self, path: EndpointPath, body: Source) -> SourceVersion:
        """Store a source as the next version, without loading it."""
        return self._version_after(self._deployment.upload, path.endpoint_id, body.source)

    def get_source(self, path: VersionPath) -> Source:
        """Show the source of a version."""
        with _problems():
            stored = self._deployment.version(path.endpoint_id, path.number).source
        return Source(source=stored.encode(errors="replace").decode())

    def compile_version(self, path: VersionPath) -> SourceVersion:
        """Compile and import a version and check its entry point, without deploying it."""
        return self._version_after(self._deployment.compile, path.endpoint_id, path.number)

    def deploy_version(self, path: VersionPath) -> SourceVersion:
        """Deploy a version; the previous one drains."""
        return self._version_after(self._deployment.deploy, path.endpoint_id, path.number)

    def deploy_source(self, path: EndpointPath, body: Source) -> SourceVersion:
        """Store a source as the next version and deploy it."""
        return self._version_after(self._deployment.deploy_source, path.endpoint_id, body.source)

    def roll_back(self, path: EndpointPath) -> SourceVersion:
        """Deploy the version that was deployed before the current one; again: one further back."""
        return self._version_after(self._deployment.roll_back, path.endpoint_id)

    def undeploy(self, path: EndpointPath) -> None:
        """Undeploy the current version; requests in progress finish."""
        with _problems():
            self._deployment.undeploy(path.endpoint_id)


@contextmanager
def _problems() -> Iterator[None]:
    """Convert exceptions of the gateway into problems."""
    try:
        yield
    except NotFound as missing:
        raise Problem(404, str(missing)) from None
    except (AlreadyExists, EndpointConflict) as conflict:
        raise Problem(409, str(conflict)) from None
    except HandlerError as error:
        line = f"line {error.line}" if error.line is not None else str(error.stage)
        raise Problem(422, error.traceback, errors=[(line, error.message)]) from None


def _parsed(given: dict[str, Any]) -> Endpoint:
    """Validate an endpoint. Raises Problem."""
    try:
        return parse_endpoint(with_whole_numbers(given))
    except BadEndpoint as bad:
        faults = [(fault.column, fault.rule) for fault in bad.faults]
        raise Problem(422, "this is not a valid endpoint", errors=faults) from None


def _described(view: EndpointView, frontends: list[str]) -> EndpointState:
    endpoint = view.endpoint
    return EndpointState(
        id=endpoint.id,
        name=endpoint.name,
        domain=endpoint.domain,
        path=endpoint.path,
        methods=list(endpoint.methods),
        timeout_seconds=endpoint.timeout_seconds,
        max_concurrency=endpoint.max_concurrency,
        max_body_bytes=endpoint.max_body_bytes,
        is_enabled=endpoint.is_enabled,
        serving=_version(view.serving) if view.serving is not None else None,
        draining=[_version(version) for version in view.draining],
        active=view.active,
        served=view.served,
        errors=view.errors,
        refused=view.refused,
        frontends=frontends,
    )


def _version(view: VersionView) -> HandlerVersion:
    return HandlerVersion(
        number=view.version.number,
        checksum=view.version.checksum,
        active=view.active,
        served=view.served,
        errors=view.errors,
        draining_since=view.draining_since,
    )


def _source_version(version: StoredVersion, frontends: list[str]) -> SourceVersion:
    return SourceVersion(
        number=version.number,
        checksum=version.checksum,
        created_at=version.created_at,
        deployed_at=version.deployed_at,
        frontends=frontends,
    )
