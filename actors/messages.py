"""The vocabulary: every message an actor understands. Commands are imperative, requests say their reply."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from actors.runtime import Message, Request
from app.domain.affinity import Binding
from app.domain.client import Client
from app.domain.limits import LimitRules
from app.domain.measures import HistogramView, Labels, Snapshot
from app.domain.model import Backend, Lease, Unleased
from app.domain.outcome import Refusal
from app.domain.plan import PoolPlan
from app.domain.pool import MemberView
from app.domain.probe import Target

# To the registry


class LeaseBackend(Request[Lease | Unleased], frozen=True):
    """Elect and reserve in one step. Safe to repeat under the same `lease_id`, which the connection chose."""

    lease_id: int
    pool: str
    frontend: str
    """Names the election."""
    client: Client
    preferred: str | None
    """The id of the backend the client is bound to."""
    excluded: Collection[str]
    """Ids of backends this connection has tried already."""


class ReleaseLease(Message, frozen=True):
    pool: str
    lease_id: int


class RestoreLease(Message, frozen=True):
    """Count a lease that a crashed registry may have granted and forgotten."""

    pool: str
    lease_id: int
    backend: Backend


class TrafficFailed(Message, frozen=True):
    """A backend refused a connection, did not answer in time, or failed one it had taken. `cause` is a short word."""

    pool: str
    backend: Backend
    cause: str


class TrafficSucceeded(Message, frozen=True):
    pool: str
    backend: Backend


class BackendProbed(Message, frozen=True):
    """A probe of a backend has ended; `failure` is a short word, None when it passed."""

    pool: str
    backend: Backend
    failure: str | None


class ReplacePools(Message, frozen=True):
    """The configuration says: these pools, and no others."""

    plans: tuple[PoolPlan, ...]


class ReplaceBackends(Message, frozen=True):
    """A pool has these backends from now on, and no others."""

    pool: str
    backends: tuple[Backend, ...]


class ContinueReplacing(Message, frozen=True):
    """The registry's note to itself: a large set is taken over in slices, so that others get their turn."""

    pool: str


class DescribePool(Request[list[MemberView]], frozen=True):
    """Describe a page of a pool's members; a page that is not full is the last."""

    pool: str
    first: int = 0
    count: int = 1000


class PoolCounts(Message, frozen=True):
    """How many members a pool has, how many take new clients, and whether it serves though all are down."""

    members: int
    candidates: int
    fails_open: bool


class CountCandidates(Request[dict[str, PoolCounts]], frozen=True):
    """Count the members of every pool."""


class ReadGenerations(Request[dict[str, int]], frozen=True):
    """Return the generation of every pool: while it is the same, so is who may serve (see Pool.generation)."""


# To the health actor


class ReplaceTargets(Message, frozen=True):
    """Probe these, and no others. Those known already keep their rhythm."""

    targets: tuple[Target, ...]


class StartDueProbes(Message, frozen=True):
    """It is time to look whose turn it is."""


class ProbeEnded(Message, frozen=True):
    """A probe has ended; `failure` is a short word, None when it passed."""

    target: Target
    failure: str | None


# To the bindings


class FindBinding(Request["BindingFound"], frozen=True):
    """Which backend is a client bound to? Answered late while another connection of the client elects one."""

    client: str
    """See app.domain.client.client_key."""
    excluded: Collection[str]


class AdmitClient(Request[Refusal | None], frozen=True):
    """Count a connection against its client's limits at a frontend, once however often it asks."""

    frontend: str
    client: str
    admission: int
    """The number of the connection."""


class Bound(Message, frozen=True):
    """The client belongs to this backend."""

    backend_id: str


class Select(Message, frozen=True):
    """The client has no binding: hold an election and report it with ElectionHeld."""


BindingFound = Bound | Select


class Selected(Message, frozen=True):
    """The election the sender was asked to hold gave this backend, or none."""

    client: str
    backend_id: str | None


class ConfirmBinding(Message, frozen=True):
    """The backend answered: bind the client to it, or touch the binding it has."""

    client: str
    backend_id: str


class Unbind(Message, frozen=True):
    """End a client's binding, if it is (still) to this backend; give it back the one it had before, if any."""

    client: str
    backend_id: str
    former: str | None = None


class ClientLeft(Message, frozen=True):
    """A connection that counted against the client's limits has ended."""

    frontend: str
    client: str
    admission: int


class ReplaceLimits(Message, frozen=True):
    """The limits of each client at each frontend that has any."""

    rules: Mapping[str, LimitRules]


class SweepBindings(Message, frozen=True):
    """Free expired bindings of the next few shards."""


class CopyBindings(Request[list[Binding]], frozen=True):
    """Copy one shard of the table."""

    shard: int


class DescribeBinding(Request[Binding | None], frozen=True):
    """Look a client's binding up, and change nothing."""

    client: str
    """See app.domain.client.client_key."""


class BindingCounts(Message, frozen=True):
    """`bindings` held now, `shards` of the table, `evictions` since the start."""

    bindings: int
    shards: int
    evictions: int


class CountBindings(Request[BindingCounts], frozen=True):
    pass


# To the metrics


class Count(Message, frozen=True):
    """Add one to a counter. `labels` are values, in the order of the metric's label names."""

    metric: str
    labels: tuple[str, ...] = ()


class BackendConnected(Message, frozen=True):
    """A backend accepted a connection after `seconds`, on a lease with this affinity."""

    pool: str
    backend_id: str
    affinity: str
    seconds: float


class ConnectionClosed(Message, frozen=True):
    """A client's connection has ended, with this termination state."""

    state: str


class TrafficMoved(Message, frozen=True):
    """What the whole process did since the last such message."""

    accepted: Mapping[str, int]
    """Connections, by frontend."""
    bytes_moved: Mapping[tuple[str, str], tuple[int, int]]
    """Bytes sent to clients and received from them, by (pool, backend id)."""
    requests: Mapping[Labels, HistogramView]
    """HTTP requests and how long they took, by the labels of the request metrics."""


class Forget(Message, frozen=True):
    """Drop the series of every backend, and of every frontend, that is not among these."""

    backends: frozenset[tuple[str, str]]
    """(pool, backend id)."""
    frontends: frozenset[str]


class ReadCounters(Request[Mapping[str, Mapping[Labels, float]]], frozen=True):
    """Copy some counters, by metric and label values: far less than everything."""

    metrics: tuple[str, ...]


class TakeSnapshot(Request[Snapshot], frozen=True):
    pass
