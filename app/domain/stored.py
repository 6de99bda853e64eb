"""What the gateway keeps on disk, as its store hands it out: versions of sources, services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class StoreError(Exception):
    """The gateway's store cannot be read or written now: locked, full, damaged."""


class StoredVersion(NamedTuple):
    """A version of an endpoint's source. `deployed_at` is when it was last put to serve; times are Unix seconds."""

    endpoint_id: str
    number: int
    checksum: str
    created_at: float
    deployed_at: float | None
    source: str
    """Empty in a list of versions."""


class ServiceRow(NamedTuple):
    """A service as it is kept."""

    name: str
    kind: str
    settings: Mapping[str, Any]
