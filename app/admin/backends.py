"""Backends of the routing database: list, register, change, drain, undrain, remove.

Rows are judged by parse_backend, as those of scripts/seed_backends.py are. The edge has these routes over its routing
database, and follows that as it follows any writer; the replicator has them over etcd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Protocol, TypeVar

from pydantic import Field, SkipValidation, ValidationError, WithJsonSchema

from app.admin.api import Api, Model, Page, next_page, say_target, with_whole_numbers
from app.admin.problems import Problem, encodable, invalid
from app.domain.model import DRAIN_DEADLINE, Backend, BadBackend, parse_backend
from app.domain.tokens import Scope
from app.outbound.peewee_backends import row_of
from app.outbound.worker_thread import WorkerThread
from app.ports import BackendTable

T = TypeVar("T")

TAG = "backends"
LONGEST_DEADLINE_SECONDS = 365 * 86_400


# Columns are described here and judged by parse_backend alone, which takes more: any printable text, not just ASCII.
_TEXT: Final = r"^[!-~]([ -~]{0,253}[!-~])?$"
_IN_PATH: Final = r"^[!-.0-~]([ -~]{0,253}[!-~])?$"
_Id = Annotated[Any, WithJsonSchema({"type": "string", "pattern": _TEXT})]
_NULL: Final = {"type": "null"}
Text = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string", "pattern": rf"^$|{_TEXT}"}, _NULL]})]
Number = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, _NULL]})]
_Flag = Annotated[Any, WithJsonSchema({"enum": [0, 1, False, True, None]})]
Address = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "string", "format": name} for name in ("ipv4", "ipv6", "hostname")]})
]
Port = Annotated[Any, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535})]
_UnixSeconds = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 1e12}, _NULL]})
]


class BackendColumns(Model):
    """A row of the table without its id; what is left out is NULL."""

    app: Text = Field(default=None, description="Pools take the backends of one app")
    region: Text = Field(default=None, description="Such as sa, us, eu")
    country: Text = Field(default=None, description="ISO 3166-1 alpha-2")
    wg_ip: Address = Field(description="Address or host name")
    port: Port = Field(description="Port")
    healthy: _Flag = Field(default=None, description="0: no connections; NULL counts as 1")
    weight: Number = Field(default=None, description="Share of the clients; 0: no new ones; NULL counts as 1")
    soft_limit: Number = Field(default=None, description="Comfortable number of connections; NULL and 0 count as 100")
    hard_limit: Number = Field(default=None, description="Most connections; NULL and 0: no limit")
    deleted: _Flag = Field(default=None, description="1: drained; NULL counts as 0")
    drain_deadline: _UnixSeconds = Field(
        default=None, description="Unix seconds at which the connections of a drained backend are closed"
    )


class NewBackend(BackendColumns):
    """A row of the table."""

    id: _Id = Field(description="Names it")


class NewBackends(Model):
    """Rows of the table."""

    # Judged off the event loop, for there may be thousands: what comes is described, and not validated here.
    items: SkipValidation[list[NewBackend]] = Field(description="Backends", json_schema_extra={"minItems": 1})


class LoadQuery(Model):
    """How to load."""

    replaces_all: bool = Field(default=False, description="Remove every other backend")


class LoadedBackends(Model):
    """How many backends were inserted or replaced."""

    loaded: int


class BackendRow(Model):
    """A row as it stands in the table, which need not be a good one, and what the edge makes of it."""

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
    faults: list[str] = Field(description="Why it is refused")


class BackendRows(Model):
    """A page of the table."""

    items: list[BackendRow]
    total: int
    next: int | None = Field(description="`first` of the next page; null: this is the last")


class BackendPath(Model):
    """Which backend."""

    backend_id: Annotated[str, WithJsonSchema({"type": "string", "pattern": _IN_PATH})] = Field(description="Its id")


class DrainQuery(Model):
    """How to drain."""

    deadline_seconds: float | None = Field(
        default=None,
        ge=0,
        le=LONGEST_DEADLINE_SECONDS,
        allow_inf_nan=False,
        description="Close connections still open after so many seconds; left out: never",
    )


class StoreAccess(Protocol):
    """Carries out work on the table of backends, off the event loop; `makes_store` says to make one where none is."""

    def __call__(self, work: Callable[[BackendTable], T], *, makes_store: bool = False) -> T: ...


def add_routes(api: Api, access: StoreAccess) -> None:
    """Add the routes of this subject."""
    thread = WorkerThread()

    def stored(work: Callable[[BackendTable], T], *, makes_store: bool = False) -> T:
        """Carry out work on the store. Raises Problem, RepositoryError."""
        try:
            return access(work, makes_store=makes_store)
        except KeyError as missing:
            raise Problem(404, f"no such backend: {missing.args[0]}") from None

    @api.get("/api/backends", Scope.READ, tag=TAG, response=BackendRows, problems=(409,))
    def list_backends(query: Page) -> BackendRows:
        """List the rows of the routing database, those that the edge refuses too."""
        rows = stored(lambda store: store.rows())
        page = rows[query.first : query.first + query.count]
        return BackendRows(items=[_described(row) for row in page], total=len(rows), next=next_page(query, len(rows)))

    @api.post("/api/backends", Scope.OPERATE, tag=TAG, response=BackendRow, status=201, problems=(409,))
    def register_backend(body: NewBackend) -> BackendRow:
        """Register a new backend."""
        backend = parsed(body.model_dump())
        say_target(backend.id)

        def insert(store: BackendTable) -> bool:
            try:
                store.insert(backend)
            except KeyError:
                return False
            return True

        if not stored(insert, makes_store=True):
            raise Problem(409, f"there is a backend {backend.id} already")
        return _described(row_of(backend))

    @api.get("/api/backends/<path:backend_id>", Scope.READ, tag=TAG, response=BackendRow, problems=(404, 409))
    def get_backend(path: BackendPath) -> BackendRow:
        """Show one row."""
        rows = stored(lambda store: store.rows())
        row = next((row for row in rows if row["id"] == path.backend_id), None)
        if row is None:
            raise Problem(404, f"no such backend: {path.backend_id}")
        return _described(row)

    @api.put("/api/backends/<path:backend_id>", Scope.OPERATE, tag=TAG, response=BackendRow, problems=(409,))
    def put_backend(path: BackendPath, body: BackendColumns) -> BackendRow:
        """Insert or replace a backend."""
        backend = parsed({"id": path.backend_id, **body.model_dump()})
        stored(lambda store: store.save([backend]), makes_store=True)
        return _described(row_of(backend))

    @api.post("/api/backends/<path:backend_id>/drain", Scope.OPERATE, tag=TAG, problems=(404, 409))
    def drain_backend(path: BackendPath, query: DrainQuery) -> None:
        """Send a backend no new connections; its clients move on, open connections finish."""
        stored(lambda store: store.drain([path.backend_id], query.deadline_seconds))

    @api.post("/api/backends/<path:backend_id>/undrain", Scope.OPERATE, tag=TAG, problems=(404, 409))
    def undrain_backend(path: BackendPath) -> None:
        """Let a drained backend serve again."""
        stored(lambda store: store.undrain([path.backend_id]))

    @api.delete("/api/backends/<path:backend_id>", Scope.OPERATE, tag=TAG, problems=(404, 409))
    def remove_backend(path: BackendPath) -> None:
        """Delete the row of a backend."""
        stored(lambda store: store.remove([path.backend_id]))

    @api.put("/api/backends", Scope.OPERATE, tag=TAG, response=LoadedBackends, problems=(409,))
    def put_backends(query: LoadQuery, body: NewBackends) -> LoadedBackends:
        """Insert or replace backends, all of them or none; of two with one id the later stands."""
        rows = thread.run(_all_parsed, body.items)
        stored(lambda store: store.save(rows, replaces_all=query.replaces_all), makes_store=True)
        return LoadedBackends(loaded=len(rows))


def parsed(row: dict[str, Any], called: Mapping[str, str] | None = None) -> Backend:
    """Validate a row as every row is; `called` says what the request calls a column. Raises Problem."""
    try:
        return parse_backend(with_whole_numbers(row))
    except BadBackend as bad:
        faults = [((called or {}).get(fault.column, fault.column), fault.rule) for fault in bad.faults]
        raise Problem(422, "this is no backend", errors=faults) from None


def _all_parsed(rows: Any) -> list[Backend]:
    """Validate rows, each as every row is. Raises Problem with every fault."""
    if not isinstance(rows, list) or not rows:
        raise Problem(422, "there are no backends", errors=[("items", "must be a list that is not empty")])
    good, faults = list[Backend](), list[tuple[str, str]]()
    for number, row in enumerate(rows):
        try:
            good.append(_row_parsed(row))
        except Problem as problem:
            faults += [(f"items.{number}.{fault.where}", fault.rule) for fault in problem.errors]
    if faults:
        raise Problem(422, "there are faults among the backends; nothing was changed", errors=faults)
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
    """Return what a table may hold as what JSON can say."""
    if isinstance(value, bytes):
        return value.hex()
    return encodable(value) if isinstance(value, str) else value
