"""The bindings actor owns the bindings of clients, selections in progress, and the per-client limits."""

from __future__ import annotations

import time

from actors.messages import (
    AdmitClient,
    BindingCounts,
    Bound,
    ClientLeft,
    ConfirmBinding,
    CopyBindings,
    CountBindings,
    DescribeBinding,
    FindBinding,
    ReplaceLimits,
    Select,
    Selected,
    SweepBindings,
    Unbind,
)
from actors.runtime import GeventActor, GeventFuture
from app.domain.affinity import AffinityTable
from app.domain.limits import ClientLimits, replace_limits
from app.domain.outcome import Refusal
from app.domain.single_flight import SingleFlight

SHARDS_PER_SWEEP = 8
_CLIENTS_PER_SWEEP = 2000


class BindingsActor(GeventActor):
    """Translates messages. Table, limits and selections are arguments, because they outlive a crash of the actor."""

    def __init__(
        self,
        table: AffinityTable,
        limits: dict[str, ClientLimits],
        selections: SingleFlight[GeventFuture[Bound | Select]],
    ) -> None:
        super().__init__()
        self._table = table
        self._limits = limits
        self._selections = selections
        self._next_shard = 0

    def on_start(self) -> None:
        # Results of selections may have been lost with a predecessor's inbox, so waiters must not wait for them.
        for leader in self._selections.replace_leaders(time.monotonic()):
            leader.set(Select())

    def handle(self, message: object) -> object:  # noqa: PLR0912 - one arm a message
        match message:
            case FindBinding():
                return self._find(message, time.monotonic())
            case ConfirmBinding(client, backend_id):
                self._table.bind(client, backend_id, time.monotonic())
            case Selected(client, backend_id):
                self._selected(client, backend_id, time.monotonic())
            case Unbind(client, backend_id, former):
                self._unbind(client, backend_id, former, time.monotonic())
            case AdmitClient(frontend, client, admission):
                return self._admit(frontend, client, admission, time.monotonic())
            case ClientLeft(frontend, client, admission):
                if frontend in self._limits:
                    self._limits[frontend].leave(client, admission)
            case ReplaceLimits(rules):
                replace_limits(self._limits, rules)
            case SweepBindings():
                self._sweep(time.monotonic())
            case CopyBindings(shard):
                return self._table.shard_bindings(shard)
            case DescribeBinding(client):
                return self._table.get(client, time.monotonic())
            case CountBindings():
                return BindingCounts(len(self._table), self._table.shard_count, self._table.evictions)
            case _:
                return super().handle(message)
        return None

    def _find(self, message: FindBinding, now: float) -> Bound | Select | GeventFuture[Bound | Select]:
        client = message.client
        backend_id = self._table.find(client, now)
        if backend_id is not None and backend_id not in message.excluded:
            return Bound(backend_id)
        reply: GeventFuture[Bound | Select] = GeventFuture()
        return reply if self._selections.join(client, reply, now) else Select()

    def _selected(self, client: str, backend_id: str | None, now: float) -> None:
        if backend_id is None:
            leader = self._selections.replace_leader(client, now)
            if leader is not None:
                leader.set(Select())
            return
        # Bound before the dial, so that connections that arrive meanwhile follow; a failed dial unbinds.
        self._table.bind(client, backend_id, now)
        for waiter in self._selections.finish(client):
            waiter.set(Bound(backend_id))

    def _unbind(self, client: str, backend_id: str, former: str | None, now: float) -> None:
        if self._table.find(client, now) != backend_id:
            return
        if former is not None:
            self._table.bind(client, former, now)
        else:
            self._table.unbind(client)

    def _admit(self, frontend: str, client: str, admission: int, now: float) -> Refusal | None:
        limits = self._limits.get(frontend)
        return limits.admit(client, admission, now) if limits is not None else None

    def _sweep(self, now: float) -> None:
        for _ in range(min(SHARDS_PER_SWEEP, self._table.shard_count)):
            self._table.sweep(now, self._next_shard)
            self._next_shard += 1
        for limits in self._limits.values():
            limits.sweep(now, _CLIENTS_PER_SWEEP)
