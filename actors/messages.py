"""The messages of the actors. Commands are imperative; a request states the type of its reply."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from actors.runtime import Message, Request
from app.domain.affinity import Binding
from app.domain.client import Client
from app.domain.limits import LimitRules
from app.domain.measures import HistogramView, Labels, Snapshot
from app.domain.member_views import MemberView
from app.domain.model import Backend, Lease, Unleased
from app.domain.outcome import Refusal
from app.domain.plan import PoolPlan
from app.domain.probe import Target

# To the registry


class LeaseBackend(Request[Lease | Unleased], frozen=True):
    """Select and reserve a backend in one step. Safe to repeat with the same `lease_id`, which the connection chose."""

    lease_id: int
    pool: str
    frontend: str
    """Identifies the selector."""
    client: Client
    preferred: str | None
    """The id of the backend the client is bound to."""
    excluded: Collection[str]
    """Ids of backends that this connection has already tried."""


class ReleaseLease(Message, frozen=True):
    pool: str
    lease_id: int


class RestoreLease(Message, frozen=True):
    """Count a lease that a crashed registry may have granted."""

    pool: str
    lease_id: int
    backend: Backend


class TrafficFailed(Message, frozen=True):
    """A backend refused a connection, timed out, or failed an accepted connection. `cause` is a short word."""

    pool: str
    backend: Backend
    cause: str


class TrafficSucceeded(Message, frozen=True):
    pool: str
    backend: Backend


class BackendProbed(Message, frozen=True):
    """A probe of a backend has ended; `failure` is a short word, None if it passed."""

    pool: str
    backend: Backend
    failure: str | None


class ReplacePools(Message, frozen=True):
    """Serve exactly these pools, as configured."""

    plans: tuple[PoolPlan, ...]


class ReplaceBackends(Message, frozen=True):
    """Serve exactly these backends in a pool."""

    pool: str
    backends: tuple[Backend, ...]


class ContinueReplacing(Message, frozen=True):
    """Sent by the registry to itself: it replaces a large set in slices, with other messages in between."""

    pool: str


class DescribePool(Request[list[MemberView]], frozen=True):
    """Describe a page of a pool's members. A page with fewer than `count` members is the last."""

    pool: str
    first: int = 0
    count: int = 1000


class PoolCounts(Message, frozen=True):
    """The number of members of a pool, the number that take new clients, and whether it fails open."""

    members: int
    candidates: int
    fails_open: bool


class CountCandidates(Request[dict[str, PoolCounts]], frozen=True):
    """Count the members of every pool."""


class ReadGenerations(Request[dict[str, int]], frozen=True):
    """Return the generation of every pool: while it is unchanged, so are the serving members (see Pool.generation)."""


# To the health actor


class ReplaceTargets(Message, frozen=True):
    """Probe exactly these targets. Known ones keep their schedule."""

    targets: tuple[Target, ...]


class ProbeSoon(Message, frozen=True):
    """Start the next probes of these pools' backends at short intervals, so many each: their check has changed."""

    probes: Mapping[str, int]
    """By pool."""


class StartDueProbes(Message, frozen=True):
    """Start the probes that are due."""


class ProbeEnded(Message, frozen=True):
    """A probe has ended; `failure` is a short word, None if it passed."""

    target: Target
    failure: str | None


# To the bindings


class FindBinding(Request["BindingFound"], frozen=True):
    """Find the backend that a client is bound to. The reply waits while another connection selects one."""

    client: str
    """See app.domain.client.client_key."""
    excluded: Collection[str]


class AdmitClient(Request[Refusal | None], frozen=True):
    """Count a connection against its client's limits at a frontend. Safe to repeat."""

    frontend: str
    client: str
    admission: int
    """The number of the connection."""


class Bound(Message, frozen=True):
    """The client belongs to this backend."""

    backend_id: str


class Select(Message, frozen=True):
    """The client has no binding: select a backend as the leader, and report it with Selected."""


BindingFound = Bound | Select


class Selected(Message, frozen=True):
    """The leader has selected this backend, None if there was none."""

    client: str
    backend_id: str | None


class ConfirmBinding(Message, frozen=True):
    """The backend accepted the client: bind the client to it, or renew the binding."""

    client: str
    backend_id: str


class Unbind(Message, frozen=True):
    """End a client's binding if it is still to this backend, and restore the `former` one, if any."""

    client: str
    backend_id: str
    former: str | None = None


class ClientLeft(Message, frozen=True):
    """A connection that counted against the client's limits has ended."""

    frontend: str
    client: str
    admission: int


class ReplaceLimits(Message, frozen=True):
    """Replace the per-client limits, by frontend."""

    rules: Mapping[str, LimitRules]


class SweepBindings(Message, frozen=True):
    """Free expired bindings of the next few shards."""


class CopyBindings(Request[list[Binding]], frozen=True):
    """Copy one shard of the table."""

    shard: int


class DescribeBinding(Request[Binding | None], frozen=True):
    """Look up a client's binding without renewing it."""

    client: str
    """See app.domain.client.client_key."""


class BindingCounts(Message, frozen=True):
    """Present `bindings`, `shards` of the table, `evictions` since the start."""

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
    """A client connection has ended with this termination state."""

    state: str


class TrafficMoved(Message, frozen=True):
    """The traffic of the whole process since the last such message."""

    accepted: Mapping[str, int]
    """Connections, by frontend."""
    bytes_moved: Mapping[tuple[str, str], tuple[int, int]]
    """Bytes sent to clients and received from them, by (pool, backend id)."""
    requests: Mapping[Labels, HistogramView]
    """HTTP requests and their durations, by the labels of the request metrics."""


class Forget(Message, frozen=True):
    """Drop the series of all backends and frontends except these."""

    backends: frozenset[tuple[str, str]]
    """(pool, backend id)."""
    frontends: frozenset[str]


class ReadCounters(Request[Mapping[str, Mapping[Labels, float]]], frozen=True):
    """Copy these counters only, by metric and label values, which is far cheaper than a snapshot."""

    metrics: tuple[str, ...]


class TakeSnapshot(Request[Snapshot], frozen=True):
    pass
