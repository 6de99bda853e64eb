"""A BackendStore that changes the routing database of a running edge over its admin API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from app.domain.model import BACKEND_COLUMNS, DRAIN_DEADLINE, Backend
from app.outbound.admin_api import AdminApi, ApiError, segment
from app.outbound.peewee_backends import row_of

PAGE: Final = 1000


class ApiBackendStore:
    """Every method raises ApiError. Several ids take one request each, after a check that all of them exist."""

    def __init__(self, api: AdminApi) -> None:
        self._api = api

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._api.close()

    def save(self, backends: Iterable[Backend], *, replaces_all: bool = False) -> None:
        """Insert or replace these backends, all or none; with `replaces_all` remove all others."""
        rows = [{name: value for name, value in row_of(one).items() if value is not None} for one in backends]
        self._api.call("PUT", "/api/backends", {"items": rows}, {"replaces_all": str(replaces_all).lower()})

    def rows(self) -> list[dict[str, Any]]:
        """Return every row as stored, including rows that the edge refuses."""
        rows: list[dict[str, Any]] = []
        first: int | None = 0
        while first is not None:
            page = self._api.call("GET", "/api/backends", query={"first": first, "count": PAGE}) or {}
            rows += page["items"]
            first = page["next"]
        return [{name: row[name] for name in (*BACKEND_COLUMNS, DRAIN_DEADLINE)} for row in rows]

    def drain(self, ids: Sequence[str], deadline_seconds: float | None) -> None:
        """Send no new connections to these backends; close open ones after `deadline_seconds`, None = never."""
        self._each(ids, "POST", "/drain", None if deadline_seconds is None else {"deadline_seconds": deadline_seconds})

    def undrain(self, ids: Sequence[str]) -> None:
        self._each(ids, "POST", "/undrain")

    def remove(self, ids: Sequence[str]) -> None:
        """Delete backends. A single id may be that of a record that is none, which is not among the rows."""
        if len(ids) > 1:
            self._each(ids, "DELETE")
            return
        try:
            self._call("DELETE", ids[0])
        except ApiError as error:
            if error.status == 404:
                raise KeyError(ids[0]) from None
            raise

    def _each(self, ids: Sequence[str], method: str, verb: str = "", query: dict[str, object] | None = None) -> None:
        """Send one request per id. Raises KeyError naming the ids without a row; then nothing is changed."""
        present = {row["id"] for row in self.rows()}
        missing = [one for one in ids if one not in present]
        if missing:
            raise KeyError(", ".join(missing))
        for one in dict.fromkeys(ids):
            self._call(method, one, verb, query)

    def _call(self, method: str, backend_id: str, verb: str = "", query: dict[str, object] | None = None) -> None:
        self._api.call(method, f"/api/backends/{segment(backend_id)}{verb}", query=query)
