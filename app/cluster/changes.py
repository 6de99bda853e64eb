"""Changes keys in etcd: reads, decides, writes if nothing has changed meanwhile, otherwise starts again.

Therefore concurrent changes of two operators are both kept, and a write that a frozen server executes late, after it
was repeated elsewhere, has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from app.cluster.etcd import EtcdClient
from app.cluster.etcd_errors import EtcdDenied, EtcdError, EtcdFull, EtcdUntrusted
from app.cluster.etcd_responses import KeyValue
from app.ports import RepositoryDenied, RepositoryError, RepositoryFull

MAX_ATTEMPTS: Final = 10
"""Attempts of one change while others change the same keys."""


class Value(NamedTuple):
    """The new value of a key. Lease 0 means no lease."""

    data: bytes
    lease: int


Edit = Callable[[KeyValue | None], Value | None]
"""Returns the new value of a key, None to delete it. If it raises KeyError or RepositoryError, nothing is changed."""


def change(etcd: EtcdClient, edits: Mapping[str, Edit]) -> int:
    """Change up to MAX_KEYS keys, all or none. Returns the revision of the change. Raises RepositoryError."""
    written: dict[str, Value | None] | None = None
    for _ in range(MAX_ATTEMPTS):
        with translated_errors():
            found = etcd.get(edits)
        current = {key: None if kv is None else Value(kv.value, kv.lease) for key, kv in found.items()}
        if current == written:  # our own write succeeded, but its response was lost
            return _latest(found.values())
        wanted = {key: edit(found[key]) for key, edit in edits.items()}
        if wanted == current:
            return _latest(found.values())
        with translated_errors(is_write=True):
            revision = _write(etcd, found, wanted)
        if revision is not None:
            return revision
        written = wanted
    raise RepositoryError("etcd: others keep changing the same keys; nothing was changed")


def _write(etcd: EtcdClient, found: Mapping[str, KeyValue | None], wanted: Mapping[str, Value | None]) -> int | None:
    expected = {key: 0 if kv is None else kv.mod_revision for key, kv in found.items()}
    puts = [(key, value.data, value.lease) for key, value in wanted.items() if value is not None]
    return etcd.write(expected, puts, [key for key, value in wanted.items() if value is None])


def _latest(found: Iterable[KeyValue | None]) -> int:
    return max((kv.mod_revision for kv in found if kv is not None), default=0)


@contextmanager
def translated_errors(*, is_write: bool = False) -> Iterator[None]:
    """Translate EtcdError into RepositoryError, whose text ends with the consequence for the caller."""
    try:
        yield
    except EtcdError as error:
        is_open = is_write and error.may_have_happened
        consequence = "the change may have been made nevertheless" if is_open else "nothing was changed"
        raise _kind(error)(f"etcd: {error}: {consequence}") from None


def _kind(error: EtcdError) -> type[RepositoryError]:
    if isinstance(error, EtcdFull):
        return RepositoryFull
    return RepositoryDenied if isinstance(error, EtcdDenied | EtcdUntrusted) else RepositoryError
