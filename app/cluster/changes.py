"""How anything is changed in etcd: read, decide, write if nothing has changed meanwhile, else begin again.

So changes of two operators do not get lost in each other, and a write that a frozen server carries out later, when it
was made elsewhere long ago, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from app.cluster.etcd import EtcdClient, EtcdError
from app.cluster.etcd_responses import KeyValue
from app.ports import RepositoryError

TRIES: Final = 10
"""Of a change, when others change the same."""


class Value(NamedTuple):
    """What a key is to have; lease 0 is none."""

    data: bytes
    lease: int


Edit = Callable[[KeyValue | None], Value | None]
"""Returns what a key is to have, None for nothing at all. May raise KeyError, RepositoryError: nothing is changed."""


def change(etcd: EtcdClient, edits: Mapping[str, Edit]) -> int:
    """Change up to MOST_AT_ONCE keys, all or none; returns the revision they are so from. Raises RepositoryError."""
    written: dict[str, Value | None] | None = None
    for _ in range(TRIES):
        with answered("nothing was changed"):
            found = etcd.get(edits)
        standing = {key: None if kv is None else Value(kv.value, kv.lease) for key, kv in found.items()}
        if standing == written:  # the answer of our own write got lost
            return _latest(found.values())
        wanted = {key: edit(found[key]) for key, edit in edits.items()}
        if wanted == standing:
            return _latest(found.values())
        with answered("it may have been changed all the same"):
            revision = _write(etcd, found, wanted)
        if revision is not None:
            return revision
        written = wanted
    raise RepositoryError("etcd: others keep changing the same; nothing was changed")


def _write(etcd: EtcdClient, found: Mapping[str, KeyValue | None], wanted: Mapping[str, Value | None]) -> int | None:
    expected = {key: 0 if kv is None else kv.mod_revision for key, kv in found.items()}
    puts = [(key, value.data, value.lease) for key, value in wanted.items() if value is not None]
    return etcd.write(expected, puts, [key for key, value in wanted.items() if value is None])


def _latest(found: Iterable[KeyValue | None]) -> int:
    return max((kv.mod_revision for kv in found if kv is not None), default=0)


@contextmanager
def answered(otherwise: str) -> Iterator[None]:
    """Turn what etcd's client raises into RepositoryError, which says what that means for whoever asked."""
    try:
        yield
    except EtcdError as error:
        raise RepositoryError(f"etcd: {error}: {otherwise}") from None
