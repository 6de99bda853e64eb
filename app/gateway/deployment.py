"""The use case of endpoints and their versions: create, change, remove; store, load, deploy and roll back a source.

The order of a deployment: stored -> compiled -> imported -> entry point checked -> marked deployed -> swapped in.
If a step fails, the current version keeps serving. Changes of one endpoint run one at a time, in order of arrival; a
source that waits when it is imported delays no other endpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakValueDictionary

from gevent.lock import BoundedSemaphore
from loguru import logger

from actors.handler_messages import DeployHandler, DescribeEndpoints, ReplaceEndpoints, UndeployHandler
from actors.runtime import Address, AskTimeoutError, ask
from app.domain.endpoints import Endpoint, EndpointConflict
from app.domain.handler_table import EndpointView, Version
from app.domain.stored import RowDamaged, StoredVersion, StoreError
from app.gateway.handler_module import HandlerError, LoadedHandler, check_text, load_handler
from app.gateway.handler_print import log_print
from app.gateway.router import Router

T = TypeVar("T")

ASK_TIMEOUT_SECONDS: Final = 5.0


class Store(Protocol):
    """The store of endpoints and versions. All calls block; all may raise StoreError."""

    def endpoints(self) -> list[tuple[Endpoint, int | None]]: ...

    def create_endpoint(self, endpoint: Endpoint) -> bool: ...

    def update_endpoint(self, endpoint: Endpoint) -> bool: ...

    def remove_endpoint(self, endpoint_id: str) -> bool: ...

    def add_version(self, endpoint_id: str, source: str) -> StoredVersion | None: ...

    def versions(self, endpoint_id: str) -> list[StoredVersion]: ...

    def damaged_versions(self, endpoint_id: str) -> dict[str, str]: ...

    def version(self, endpoint_id: str, number: int) -> StoredVersion | None: ...

    def history(self, endpoint_id: str) -> list[int]: ...

    def set_deployed(
        self, endpoint_id: str, number: int | None, at: float, history: Sequence[int] | None = None
    ) -> bool: ...


class NotFound(LookupError):
    """The endpoint or the version does not exist."""


class AlreadyExists(ValueError):
    """An endpoint of this id exists."""


class Deployment:
    """Changes endpoints and versions, in the store and in the handlers actor.

    `run(work, *arguments)` runs blocking work off the event loop. `on_deploy(result)` is called with `ok` or `error`
    after each deployment and rollback. Every method may raise StoreError and AskTimeoutError.
    """

    def __init__(
        self,
        store: Store,
        run: Callable[..., Any],
        handlers: Address,
        on_deploy: Callable[[str], None] = lambda _result: None,
    ) -> None:
        self._store = store
        self._run = run
        self._handlers = handlers
        self._on_deploy = on_deploy
        self._routes_lock = BoundedSemaphore()
        """For changes of the set of endpoints. Nothing is loaded under it; taken after that of the endpoint."""
        self._locks: WeakValueDictionary[str, BoundedSemaphore] = WeakValueDictionary()

    def _lock_of(self, endpoint_id: str) -> BoundedSemaphore:
        """Return the lock for changes of an endpoint; it lives while a change holds it or waits for it."""
        return self._locks.setdefault(endpoint_id, BoundedSemaphore())

    def restore(self) -> None:
        """Deploy what the store marks as deployed. Versions that cannot be loaded are logged and skipped."""
        with self._routes_lock:
            served = {endpoint.id for endpoint in self._serve_without_conflicts(self._endpoints())}
        with ExitStack() as held:
            for endpoint_id in served:
                held.enter_context(self._lock_of(endpoint_id))
            for endpoint, number in self._in_thread(self._store.endpoints):
                if number is not None and endpoint.id in served:
                    self._restore(endpoint.id, number)

    def _restore(self, endpoint_id: str, number: int) -> None:
        try:
            stored = self._stored(endpoint_id, number)
            self._swap(stored, _load(stored), stored.deployed_at or stored.created_at)
        except (HandlerError, NotFound, RowDamaged) as error:
            logger.bind(endpoint=endpoint_id, version=number).error(
                "endpoint {}: version {} cannot be restored: {}", endpoint_id, number, error
            )

    # Endpoints

    def endpoints(self) -> list[EndpointView]:
        """Return every endpoint with the state of its loaded versions."""
        return ask(self._handlers, DescribeEndpoints(), timeout_s=ASK_TIMEOUT_SECONDS)

    def create(self, endpoint: Endpoint) -> None:
        """Store an endpoint and route requests to it. Raises AlreadyExists, EndpointConflict."""
        with self._lock_of(endpoint.id), self._routes_lock:
            others = self._endpoints()
            if any(other.id == endpoint.id for other in others):
                raise AlreadyExists(f"endpoint {endpoint.id!r} already exists")
            if not self._save(self._store.create_endpoint, endpoint, [*others, endpoint]):
                raise AlreadyExists(f"endpoint {endpoint.id!r} is stored already, and damaged: delete it first")

    def update(self, endpoint: Endpoint) -> None:
        """Replace an endpoint's settings; its versions stay. Raises NotFound, EndpointConflict."""
        with self._lock_of(endpoint.id), self._routes_lock:
            endpoints = {other.id: other for other in self._endpoints()}
            if endpoint.id not in endpoints:
                raise _no_endpoint(endpoint.id)
            changed = {**endpoints, endpoint.id: endpoint}
            if not self._save(self._store.update_endpoint, endpoint, [*changed.values()]):
                raise _no_endpoint(endpoint.id)

    def _save(self, write: Callable[[Endpoint], bool], endpoint: Endpoint, endpoints: list[Endpoint]) -> bool:
        """Check the routes, store the change, then apply it. Returns False if the store did not take it."""
        router = self._in_thread(Router, endpoints)
        if not self._in_thread(write, endpoint):
            return False
        self._serve(endpoints, router)
        return True

    def remove(self, endpoint_id: str) -> None:
        """Remove an endpoint; requests in progress finish. Raises NotFound."""
        with self._lock_of(endpoint_id), self._routes_lock:
            if not self._in_thread(self._store.remove_endpoint, endpoint_id):
                raise _no_endpoint(endpoint_id)
            self._serve_without_conflicts(self._endpoints())

    def _serve_without_conflicts(self, endpoints: list[Endpoint]) -> list[Endpoint]:
        """Route requests to these endpoints. Of two that conflict, which only another program can have stored, one is
        left out and logged.
        """
        while True:
            try:
                router = self._in_thread(Router, endpoints)
            except EndpointConflict as conflict:
                logger.bind(endpoint=conflict.endpoint_id).error("{}; it is left out of the routes", conflict)
                endpoints = [endpoint for endpoint in endpoints if endpoint.id != conflict.endpoint_id]
                continue
            self._serve(endpoints, router)
            return endpoints

    def _endpoints(self) -> list[Endpoint]:
        return [endpoint for endpoint, _ in self._in_thread(self._store.endpoints)]

    def _serve(self, endpoints: list[Endpoint], router: Router) -> None:
        ask(self._handlers, ReplaceEndpoints(tuple(endpoints), router), timeout_s=ASK_TIMEOUT_SECONDS)

    # Versions

    def versions(self, endpoint_id: str) -> list[StoredVersion]:
        """Return the stored versions, oldest first, without sources. Raises NotFound."""
        found = self._in_thread(self._store.versions, endpoint_id)
        if not found:
            self._require(endpoint_id)
        return found

    def damaged_versions(self, endpoint_id: str) -> dict[str, str]:
        """Return the faults of the versions that are left out, by number."""
        return self._in_thread(self._store.damaged_versions, endpoint_id)

    def version(self, endpoint_id: str, number: int) -> StoredVersion:
        """Return a stored version with its source. Raises NotFound, RowDamaged."""
        return self._stored(endpoint_id, number)

    def upload(self, endpoint_id: str, source: str) -> StoredVersion:
        """Store a source as the next version without loading it. Raises NotFound, HandlerError (not text, too long)."""
        check_text(source)
        with self._lock_of(endpoint_id):
            return self._upload(endpoint_id, source)

    def _upload(self, endpoint_id: str, source: str) -> StoredVersion:
        stored: StoredVersion | None = self._in_thread(self._store.add_version, endpoint_id, source)
        if stored is None:
            raise _no_endpoint(endpoint_id)
        return stored

    def compile(self, endpoint_id: str, number: int) -> StoredVersion:
        """Check that a stored version can be loaded, and discard it. Raises NotFound, HandlerError."""
        stored = self._stored(endpoint_id, number)
        _load(stored)
        return stored

    def deploy(self, endpoint_id: str, number: int) -> StoredVersion:
        """Deploy a stored version, which may be older than the current one. Raises NotFound, HandlerError."""
        with self._lock_of(endpoint_id):
            return self._deploy(self._stored(endpoint_id, number))

    def deploy_source(self, endpoint_id: str, source: str) -> StoredVersion:
        """Store a source as the next version and deploy it. Raises NotFound, HandlerError.

        A source that cannot be loaded stays in the store, for its author to inspect.
        """
        check_text(source)
        with self._lock_of(endpoint_id):
            return self._deploy(self._upload(endpoint_id, source))

    def roll_back(self, endpoint_id: str) -> StoredVersion:
        """Deploy the version that was deployed before the current one; after `undeploy`, the last one.

        It undoes the current deployment: the next roll-back goes one further back. Raises NotFound, HandlerError.
        """
        with self._lock_of(endpoint_id):
            current = self._require(endpoint_id)
            history = self._history_before(endpoint_id, current)
            if not history:
                raise NotFound(f"endpoint {endpoint_id!r}: no version was deployed before {_shown(current)}")
            return self._deploy(self._stored(endpoint_id, history[-1]), history)

    def undeploy(self, endpoint_id: str) -> None:
        """Stop serving an endpoint's requests; requests in progress finish. Raises NotFound."""
        with self._lock_of(endpoint_id):
            self._undeploy(endpoint_id)
            logger.bind(endpoint=endpoint_id).info("endpoint {}: undeployed", endpoint_id)

    def take_out(self, endpoint_id: str, number: int) -> None:
        """Undeploy a version that holds the event loop, unless another is deployed by now. Logs failures.

        A roll-back does not return to it.
        """
        bound = logger.bind(endpoint=endpoint_id, version=number)
        try:
            with self._lock_of(endpoint_id):
                if self._require(endpoint_id) != number:
                    return
                self._undeploy(endpoint_id, self._history_before(endpoint_id, number))
        except (NotFound, StoreError, AskTimeoutError) as error:
            bound.error("endpoint {}: version {} cannot be taken out of service: {}", endpoint_id, number, error)
        else:
            bound.error("endpoint {}: version {} is out of service: it holds the event loop", endpoint_id, number)

    def _history_before(self, endpoint_id: str, number: int | None) -> list[int]:
        """Return the deployments before that of a version, the latest last."""
        history = self._in_thread(self._store.history, endpoint_id)
        while history and history[-1] == number:
            history.pop()
        return history

    def _undeploy(self, endpoint_id: str, history: list[int] | None = None) -> None:
        if not self._in_thread(self._store.set_deployed, endpoint_id, None, time.time(), history):
            raise _no_endpoint(endpoint_id)
        ask(self._handlers, UndeployHandler(endpoint_id), timeout_s=ASK_TIMEOUT_SECONDS)

    def _deploy(self, stored: StoredVersion, history: list[int] | None = None) -> StoredVersion:
        """Deploy a version. `history` ends with it; None: it is added to the present one."""
        try:
            deployed = self._activate(stored, history)
        except BaseException:
            self._on_deploy("error")
            raise
        self._on_deploy("ok")
        return deployed

    def _activate(self, stored: StoredVersion, history: list[int] | None) -> StoredVersion:
        handler = _load(stored)
        endpoint_id, number, now = stored.endpoint_id, stored.number, time.time()
        before, history_before = self._require(endpoint_id), self._in_thread(self._store.history, endpoint_id)
        history = history or [*history_before, number]
        if not self._in_thread(self._store.set_deployed, endpoint_id, number, now, history):
            raise NotFound(f"endpoint {endpoint_id!r} no longer has version {number}")
        try:
            self._swap(stored, handler, now)
        except BaseException:
            if before != number:
                self._in_thread(self._store.set_deployed, endpoint_id, before, now, history_before)
            raise
        logger.bind(endpoint=endpoint_id, version=number, checksum=stored.checksum).info(
            "endpoint {}: version {} deployed", endpoint_id, number
        )
        return stored._replace(deployed_at=now)

    def _swap(self, stored: StoredVersion, handler: LoadedHandler, now: float) -> None:
        message = DeployHandler(stored.endpoint_id, Version(stored.number, stored.checksum, now), handler)
        if not ask(self._handlers, message, timeout_s=ASK_TIMEOUT_SECONDS):
            raise _no_endpoint(stored.endpoint_id)

    def _stored(self, endpoint_id: str, number: int) -> StoredVersion:
        stored: StoredVersion | None = self._in_thread(self._store.version, endpoint_id, number)
        if stored is None:
            raise NotFound(f"endpoint {endpoint_id!r} has no version {number}")
        return stored

    def _require(self, endpoint_id: str) -> int | None:
        """Return the number of the deployed version, None if there is none. Raises NotFound."""
        for endpoint, deployed in self._in_thread(self._store.endpoints):
            if endpoint.id == endpoint_id:
                return deployed
        raise _no_endpoint(endpoint_id)

    def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return self._run(work, *arguments)  # type: ignore[no-any-return]


def _load(stored: StoredVersion) -> LoadedHandler:
    output = log_print(stored.endpoint_id, stored.number)
    return load_handler(f"{stored.endpoint_id} v{stored.number}", stored.source, output)


def _shown(number: int | None) -> str:
    return f"version {number}" if number is not None else "it was undeployed"


def _no_endpoint(endpoint_id: str) -> NotFound:
    return NotFound(f"there is no endpoint {endpoint_id!r}")
