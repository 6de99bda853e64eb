"""The records of the gateway's store: versions of sources, and services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class StoreError(Exception):
    """The gateway's store cannot be read or written now: it is locked, full or damaged."""


class StoreLocked(StoreError):
    """Another program has locked the gateway's store: it can be used when the lock is gone."""


class RowDamaged(StoreError):
    """What was asked for has a damaged row in the gateway's store. The message names the row and its fault."""


class StoreFull(StoreError):
    """The disk of the gateway's store is full. Nothing was changed."""


class StoredVersion(NamedTuple):
    """A version of an endpoint's source. `deployed_at` is its last deployment; times are Unix seconds."""

    endpoint_id: str
    number: int
    checksum: str
    created_at: float
    deployed_at: float | None
    source: str
    """Empty in a list of versions."""


class ServiceRow(NamedTuple):
    """A service as it is stored."""

    name: str
    kind: str
    settings: Mapping[str, Any]
