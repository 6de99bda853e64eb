"""The vocabulary: every message an actor understands. Commands are imperative, requests say their reply."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from actors.runtime import Request
from app.domain.affinity import Binding
from app.domain.measures import Snapshot
from app.domain.model import Backend, GeoInfo, Lease, Unleased
from app.domain.outcome import Refusal
from app.domain.pool import MemberView

# To the registry


@dataclass(frozen=True, slots=True)
class LeaseBackend(Request[Lease | Unleased]):
    """Elect and reserve in one step. Safe to repeat under the same `lease_id`, which the connection chose."""

    lease_id: int
    client: GeoInfo | None
    preferred: str | None
    """The id of the backend the client is bound to."""
    excluded: Collection[str]
    """Ids of backends this connection has tried already."""


@dataclass(frozen=True, slots=True)
class ReleaseLease:
    lease_id: int


@dataclass(frozen=True, slots=True)
class RestoreLease:
    """Count a lease that a crashed registry may have granted and forgotten."""

    lease_id: int
    backend: Backend


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A backend refused a connection or did not answer in time."""

    backend_id: str


@dataclass(frozen=True, slots=True)
class DialSucceeded:
    backend_id: str


@dataclass(frozen=True, slots=True)
class ReplaceBackends:
    """The routing database says: these, and no others."""

    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class ContinueReplacing:
    """The registry's note to itself: a large set is taken over in slices, so that others get their turn."""


@dataclass(frozen=True, slots=True)
class DescribePool(Request[list[MemberView]]):
    """Describe a page of the members; a page that is not full is the last."""

    first: int = 0
    count: int = 1000


@dataclass(frozen=True, slots=True)
class CountCandidates(Request[tuple[int, int]]):
    """How many members are there, and how many take new clients?"""


# To the bindings


@dataclass(frozen=True, slots=True)
class FindBinding(Request["BindingFound"]):
    """Which backend is a client bound to? Answered late while another connection of the client elects one."""

    client: str
    """See app.domain.client.client_key."""
    excluded: Collection[str]
    admission: int
    """Count this connection against the client's limits, once however often it asks; 0 = do not count."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The client belongs to this backend."""

    backend_id: str


@dataclass(frozen=True, slots=True)
class Elect:
    """The client has no binding: hold an election and report it with ElectionHeld."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The client is over one of its limits."""

    refusal: Refusal


BindingFound = Bound | Elect | Refused


@dataclass(frozen=True, slots=True)
class ElectionHeld:
    """The election the sender was asked to hold gave this backend, or none."""

    client: str
    backend_id: str | None


@dataclass(frozen=True, slots=True)
class ConfirmBinding:
    """The backend answered: bind the client to it, or touch the binding it has."""

    client: str
    backend_id: str


@dataclass(frozen=True, slots=True)
class Unbind:
    """End a client's binding, if it is (still) to this backend; give it back the one it had before, if any."""

    client: str
    backend_id: str
    former: str | None = None


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """A connection that counted against the client's limits has ended."""

    client: str
    admission: int


@dataclass(frozen=True, slots=True)
class SweepBindings:
    """Free expired bindings of the next few shards."""


@dataclass(frozen=True, slots=True)
class CopyBindings(Request[list[Binding]]):
    """Copy one shard of the table."""

    shard: int


@dataclass(frozen=True, slots=True)
class BindingCounts:
    """`bindings` held now, `shards` of the table, `evictions` since the start."""

    bindings: int
    shards: int
    evictions: int


@dataclass(frozen=True, slots=True)
class CountBindings(Request[BindingCounts]):
    pass


# To the metrics


@dataclass(frozen=True, slots=True)
class Count:
    """Add one to a counter. `labels` are values, in the order of the metric's label names."""

    metric: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackendConnected:
    """A backend accepted a connection after `seconds`, on a lease with this affinity."""

    backend_id: str
    affinity: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A client's connection has ended, with this termination state."""

    state: str


@dataclass(frozen=True, slots=True)
class TrafficMoved:
    """What the whole process did since the last such message: connections accepted, bytes copied."""

    accepted: int
    bytes_sent: int
    """To clients."""
    bytes_received: int
    """From clients."""


@dataclass(frozen=True, slots=True)
class ForgetBackends:
    """Drop the series of every backend that is not among these."""

    remaining: frozenset[str]


@dataclass(frozen=True, slots=True)
class TakeSnapshot(Request[Snapshot]):
    pass
