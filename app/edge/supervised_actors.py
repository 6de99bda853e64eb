"""The actors of one edge under supervision, each started, first and after a crash, from the facts of the moment."""

from __future__ import annotations

import random

import gevent

from actors.bindings import BindingsActor
from actors.health import HealthActor
from actors.messages import Bound, ProbeEnded, Select
from actors.metrics import MetricsActor
from actors.registrations import RegistrationsActor
from actors.registry import RegistryActor
from actors.runtime import GeventFuture, stop, tell
from app.domain.limits import ClientLimits, replace_limits
from app.domain.measures import Measures
from app.domain.plan import SelectorPlan
from app.domain.probe import Target
from app.domain.registration_table import RegistrationTable
from app.domain.selection import Selector, make_selector
from app.domain.single_flight import SingleFlight
from app.edge.parts import EdgeParts
from app.outbound.probes import probe


class SupervisedActors:
    """Starts and stops the actors of an edge. Keeps what outlives a crash of its actor."""

    def __init__(self, parts: EdgeParts) -> None:
        self._parts = parts
        self._limits: dict[str, ClientLimits] = {}
        self._selections: SingleFlight[GeventFuture[Bound | Select]] = SingleFlight()
        self._measures = Measures()
        self._registered = RegistrationTable()

    def start(self) -> None:
        """Start the actors, each once the one before it answers."""
        actors, supervise = self._parts.actors, self._parts.supervisor.supervise
        supervise(actors.metrics, lambda: MetricsActor.start(self._measures))
        supervise(actors.registry, self._start_registry)
        supervise(actors.bindings, self._start_bindings)
        supervise(actors.health, self._start_health)
        if self._parts.registrations is not None:
            supervise(self._parts.registrations, lambda: RegistrationsActor.start(self._registered))

    def stop(self) -> None:
        """Stop the actors, each after what is in its inbox; none is restarted."""
        self._parts.supervisor.stop()
        if self._parts.registrations is not None:
            stop((self._parts.registrations,), timeout_s=1.0)
        actors = self._parts.actors
        stop((actors.health, actors.bindings, actors.registry, actors.metrics), timeout_s=1.0)

    def _start_registry(self) -> object:
        pools, leases, metrics = self._parts.pools, self._parts.data_plane.leases(), self._parts.actors.metrics
        return RegistryActor.start(self._make_selector, metrics, pools.plans, pools.backends, leases)

    def _start_bindings(self) -> object:
        replace_limits(self._limits, self._parts.pools.limits())
        for frontend, limit in self._limits.items():
            limit.recount(self._parts.data_plane.admissions(frontend))
        return BindingsActor.start(self._parts.bindings, self._limits, self._selections)

    def _start_health(self) -> object:
        actors, targets = self._parts.actors, self._parts.pools.targets()
        return HealthActor.start(self._start_probe, actors.registry, actors.metrics, targets, rng=random.Random())

    def _make_selector(self, plan: SelectorPlan) -> Selector:
        return make_selector(
            plan.algorithm,
            pop_region=self._parts.config().region or None,
            rng=random.Random(),
            spills_at_soft_limit=plan.spills_at_soft_limit,
        )

    def _start_probe(self, target: Target) -> None:
        gevent.spawn(lambda: tell(self._parts.actors.health, ProbeEnded(target, probe(target))))
