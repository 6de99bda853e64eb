"""Backends of the routing database: list, register, change, drain, undrain, remove.

parse_backend validates rows, as in scripts/seed_backends.py. In the edge these routes write the routing database, whose
changes the edge then follows; in the replicator they write etcd.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from flask import request
from pydantic import Field, SkipValidation, ValidationError, WithJsonSchema

from app.admin.api import Api, Model, Page, next_page, set_audit_target, with_whole_numbers
from app.admin.problems import Problem, encodable, invalid
from app.domain.json_schema import NOT_BLANK, PRINTABLE, or_null
from app.domain.model import DRAIN_DEADLINE, MAX_TEXT_CHARACTERS, Backend, BadBackend, parse_backend
from app.domain.tokens import Scope
from app.outbound.peewee_backends import row_of
from app.outbound.worker_thread import WorkerThread
from app.ports import BackendTable

T = TypeVar("T")

TAG = "backends"
LONGEST_DEADLINE_SECONDS = 365 * 86_400


# These schemas only describe. parse_backend validates: the schemas accept all that it accepts, and a little more.
_NAME: Final = {"type": "string", "pattern": NOT_BLANK, "maxLength": MAX_TEXT_CHARACTERS}
_IN_PATH: Final = {**_NAME, "pattern": r"^[^\x00-\x20\x7f/][^\x00-\x1f\x7f]*$"}
_Id = Annotated[Any, WithJsonSchema(_NAME)]
Text = Annotated[
    Any, WithJsonSchema(or_null({"type": "string", "pattern": PRINTABLE, "maxLength": MAX_TEXT_CHARACTERS}))
]
Number = Annotated[Any, WithJsonSchema(or_null({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}))]
_Flag = Annotated[Any, WithJsonSchema({"enum": [0, 1, False, True, None]})]
Address = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "string", "format": name} for name in ("ipv4", "ipv6", "hostname")]})
]
Port = Annotated[Any, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535})]
_UnixSeconds = Annotated[Any, WithJsonSchema(or_null({"type": "number", "minimum": 0, "exclusiveMaximum": 1e12}))]


class BackendColumns(Model):
    """A row of the table without its id; omitted columns are NULL."""

    app: Text = Field(default=None, description="Pools take the backends of one app")
    region: Text = Field(default=None, description="Region, in lower case", examples=["sa", "us", "eu"])
    country: Text = Field(default=None, description="ISO 3166-1 alpha-2", examples=["BR"])
    wg_ip: Address = Field(description="Address or host name", examples=["10.50.1.1", "fd00::1", "gru-1.internal"])
    port: Port = Field(description="Port", examples=[8080])
    healthy: _Flag = Field(default=None, description="0: no connections; NULL counts as 1")
    weight: Number = Field(default=None, description="Share of the clients; 0: no new ones; NULL counts as 1")
    soft_limit: Number = Field(default=None, description="Connections at full load; NULL and 0 count as 100")
    hard_limit: Number = Field(default=None, description="Maximum number of connections; NULL and 0: no limit")
    deleted: _Flag = Field(default=None, description="1: drained; NULL counts as 0")
    drain_deadline: _UnixSeconds = Field(
        default=None, description="Unix seconds at which the connections of a drained backend are closed"
    )


class NewBackend(BackendColumns):
    """A row of the table."""

    id: _Id = Field(description="Its unique id", examples=["gru-1", "São Paulo 1"])


class NewBackends(Model):
    """Rows of the table."""

    # Neither decoded nor validated here: there may be ten thousand rows, for which a thread does both.
    items: SkipValidation[list[NewBackend]] = Field(description="Backends", json_schema_extra={"minItems": 1})


class LoadQuery(Model):
    """Options of a load."""

    replaces_all: bool = Field(default=False, description="Remove every other backend")


class LoadedBackends(Model):
    """The number of backends inserted or replaced."""

    loaded: int


class BackendRow(Model):
    """A row of the table, valid or not, and its state."""

    id: Any
    app: Any
    region: Any
    country: Any
    wg_ip: Any
    port: Any
    healthy: Any
    weight: Any
    soft_limit: Any
    hard_limit: Any
    deleted: Any
    drain_deadline: Any
    state: str = Field(description="serving, unhealthy, drained or refused")
    faults: list[str] = Field(description="Why the row is refused")


class BackendRows(Model):
    """A page of the table."""

    items: list[BackendRow]
    total: int
    next: int | None = Field(description="`first` of the next page; null on the last page")


class BackendPath(Model):
    """Selects a backend."""

    backend_id: Annotated[str, WithJsonSchema(_IN_PATH)] = Field(description="Its id")


class DrainQuery(Model):
    """Options of a drain."""

    deadline_seconds: float | None = Field(
        default=None,
        ge=0,
        le=LONGEST_DEADLINE_SECONDS,
        allow_inf_nan=False,
        description="Close connections still open after this many seconds; by default they are never closed",
    )


_OPERATIONS: Final = ("drain", "undrain")


def _refuse_other_methods() -> None:
    """Raise Problem (405) for a method that an operation of a backend does not have.

    `/api/backends/x/drain` is an operation of the backend x. The backend `x/drain` is at `/api/backends/x%2Fdrain`.
    """
    parts = request.environ["REQUEST_URI"].partition("?")[0].split("/")
    if parts[1:3] == ["api", "backends"] and len(parts) > 4 and parts[-1] in _OPERATIONS and request.method != "POST":
        raise Problem(405, f"{parts[-1]} takes POST; in an id a slash is written %2F", headers={"Allow": "POST"})


class StoreAccess(Protocol):
    """Runs work on the table of backends, off the event loop; `creates_store` allows to create a missing one."""

    def __call__(self, work: Callable[[BackendTable], T], *, creates_store: bool = False) -> T: ...


def add_routes(api: Api, access: StoreAccess, explain: Callable[[str], str | None] = lambda _id: None) -> None:
    """Add the routes of this subject. `explain(id)` says what to do with a backend that is not in the table."""
    api.wsgi.before_request(_refuse_other_methods)
    routes, one = _Routes(access, explain), "/api/backends/<path:backend_id>"
    post = partial(api.post, scope=Scope.OPERATE, tag=TAG)
    put = partial(api.put, scope=Scope.OPERATE, tag=TAG, problems=(409,))
    api.get("/api/backends", Scope.READ, tag=TAG, response=BackendRows, problems=(409,))(routes.list_backends)
    post("/api/backends", response=BackendRow, status=201, problems=(409,))(routes.register_backend)
    api.get(one, Scope.READ, tag=TAG, response=BackendRow, problems=(404, 409))(routes.get_backend)
    put(one, response=BackendRow)(routes.put_backend)
    post(f"{one}/drain", problems=(404, 409))(routes.drain_backend)
    post(f"{one}/undrain", problems=(404, 409))(routes.undrain_backend)
    api.delete(one, Scope.OPERATE, tag=TAG, problems=(404, 409))(routes.remove_backend)
    put("/api/backends", response=LoadedBackends, is_bulk=True)(routes.put_backends)


class _Routes:
    """A method for each route. Its docstring is the description of the route."""

    def __init__(self, access: StoreAccess, explain: Callable[[str], str | None]) -> None:
        self._access = access
        self._explain = explain
        self._thread = WorkerThread()

    def _stored(self, work: Callable[[BackendTable], T], *, creates_store: bool = False, changes: str = "") -> T:
        """Run work on the store, which may change an existing backend. Raises Problem, RepositoryError."""
        try:
            return self._access(work, creates_store=creates_store)
        except (KeyError, Problem) as error:
            if explained := self._explain(changes):
                raise Problem(409, explained) from None
            if isinstance(error, KeyError):
                raise Problem(404, f"no such backend: {error.args[0]}") from None
            raise

    def list_backends(self, query: Page) -> BackendRows:
        """List the rows of the routing database, including refused ones."""
        rows = self._stored(lambda store: store.rows())
        page = rows[query.first : query.first + query.count]
        return BackendRows(items=[_described(row) for row in page], total=len(rows), next=next_page(query, len(rows)))

    def register_backend(self, body: NewBackend) -> BackendRow:
        """Register a new backend."""
        backend = parsed(body.model_dump())
        set_audit_target(backend.id)

        def insert(store: BackendTable) -> bool:
            try:
                store.insert(backend)
            except KeyError:
                return False
            return True

        if not self._stored(insert, creates_store=True):
            raise Problem(409, f"backend {backend.id} already exists")
        return _described(row_of(backend))

    def get_backend(self, path: BackendPath) -> BackendRow:
        """Show one backend."""
        rows = self._stored(lambda store: store.rows())
        row = next((row for row in rows if row["id"] == path.backend_id), None)
        if row is None:
            raise Problem(404, f"no such backend: {path.backend_id}")
        return _described(row)

    def put_backend(self, path: BackendPath, body: BackendColumns) -> BackendRow:
        """Insert or replace a backend."""
        backend = parsed({"id": path.backend_id, **body.model_dump()})
        self._stored(lambda store: store.save([backend]), creates_store=True)
        return _described(row_of(backend))

    def drain_backend(self, path: BackendPath, query: DrainQuery) -> None:
        """Send a backend no new connections; bound clients move to others, open connections finish."""
        self._stored(lambda store: store.drain([path.backend_id], query.deadline_seconds), changes=path.backend_id)

    def undrain_backend(self, path: BackendPath) -> None:
        """End a drain: the backend takes new connections again."""
        self._stored(lambda store: store.undrain([path.backend_id]), changes=path.backend_id)

    def remove_backend(self, path: BackendPath) -> None:
        """Delete a backend."""
        self._stored(lambda store: store.remove([path.backend_id]), changes=path.backend_id)

    def put_backends(self, query: LoadQuery, body: NewBackends) -> LoadedBackends:
        """Insert or replace backends, all or none; of two with the same id the later one is used."""
        rows = self._thread.run(_all_parsed, body.items)
        self._stored(lambda store: store.save(rows, replaces_all=query.replaces_all), creates_store=True)
        return LoadedBackends(loaded=len(rows))


def parsed(row: dict[str, Any], field_names: Mapping[str, str] | None = None) -> Backend:
    """Validate a row; `field_names` maps columns to the request's fields. Raises Problem."""
    try:
        return parse_backend(with_whole_numbers(row))
    except BadBackend as bad:
        faults = [((field_names or {}).get(fault.column, fault.column), fault.rule) for fault in bad.faults]
        raise Problem(422, "this is not a valid backend", errors=faults) from None


def _all_parsed(items: Any) -> list[Backend]:
    """Decode and validate rows. Raises Problem with every fault."""
    try:
        rows = msgspec.json.decode(items, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        rows = []
    if not rows:
        raise Problem(422, "the request has no backends", errors=[("items", "must be a list that is not empty")])
    good, faults = list[Backend](), list[tuple[str, str]]()
    for number, row in enumerate(rows):
        try:
            good.append(_row_parsed(json.loads(bytes(row))))
        except (ValueError, RecursionError) as error:
            faults.append((f"items.{number}", f"is not valid JSON: {error}"))
        except Problem as problem:
            faults += [(f"items.{number}.{fault.where}", fault.rule) for fault in problem.errors]
    if faults:
        raise Problem(422, "some backends are not valid; nothing was changed", errors=faults)
    return good


def _row_parsed(row: Any) -> Backend:
    try:
        return parsed(NewBackend.model_validate(row).model_dump())
    except ValidationError as error:
        raise invalid(error) from None


def _described(row: dict[str, Any]) -> BackendRow:
    state, faults = "serving", list[str]()
    try:
        backend = parse_backend(row)
    except BadBackend as bad:
        state, faults = "refused", [str(fault) for fault in bad.faults]
    else:
        if backend.is_deleted:
            state = "drained"
        elif not backend.is_healthy:
            state = "unhealthy"
    shown = {name: _plain(value) for name, value in row.items()}
    return BackendRow(**{DRAIN_DEADLINE: None, **shown}, state=state, faults=faults)


def _plain(value: Any) -> Any:
    """Convert a value of the table to one that JSON can represent."""
    if isinstance(value, bytes):
        return value.hex()
    return encodable(value) if isinstance(value, str) else value
