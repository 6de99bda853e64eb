"""The bindings actor by its messages: bindings, leading and waiting connections, and per-client limits."""

from __future__ import annotations

import gevent
import pytest

from actors.messages import (
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
from actors.runtime import AskTimeoutError, Crash, ask, tell
from app.domain import single_flight
from app.domain.limits import LimitRules
from app.domain.outcome import Refusal
from tests.actors.edge_actors import FRONTEND, EdgeActors
from tests.harness import eventually


def asking(edge: EdgeActors, client: str, times: int) -> list[gevent.Greenlet]:
    """Let `count` connections of a client ask, each in a greenlet; return when their requests have been handled."""
    askers = [gevent.spawn(edge.find, client) for _ in range(times)]
    gevent.sleep(0)
    edge.settle()
    return askers


def test_describing_a_binding_starts_no_selection_and_waits_for_none():
    edge = EdgeActors()
    look = DescribeBinding("ana")
    assert ask(edge.addresses.bindings, look, timeout_s=1) is None
    assert edge.find("ana") == Select()
    assert ask(edge.addresses.bindings, look, timeout_s=1) is None
    tell(edge.addresses.bindings, Selected("ana", "a"))
    found = ask(edge.addresses.bindings, look, timeout_s=1)
    assert (found.client, found.backend_id) == ("ana", "a")


def test_a_client_is_unbound_until_a_selection_or_a_connection_binds_it():
    edge = EdgeActors()
    assert edge.find("ana") == Select()
    tell(edge.addresses.bindings, Selected("ana", "a"))
    assert edge.find("ana") == Bound("a")
    tell(edge.addresses.bindings, ConfirmBinding("bob", "b"))
    assert edge.find("bob") == Bound("b")


def test_one_of_fifty_askers_leads_and_the_others_follow():
    edge = EdgeActors()
    askers = asking(edge, "ana", 50)
    answered = [asker for asker in askers if asker.ready()]
    assert [asker.value for asker in answered] == [Select()]
    tell(edge.addresses.bindings, Selected("ana", "a"))
    gevent.joinall(askers, timeout=10, raise_error=True)
    assert [asker.value for asker in askers].count(Bound("a")) == 49


def test_selections_of_different_clients_do_not_wait_for_each_other():
    edge = EdgeActors()
    assert [edge.find(client) for client in ("ana", "bob", "eva")] == [Select()] * 3


def test_after_a_selection_without_a_backend_the_next_waiter_leads():
    edge = EdgeActors()
    assert edge.find("ana") == Select()
    askers = asking(edge, "ana", 3)
    tell(edge.addresses.bindings, Selected("ana", None))
    askers[0].join(10)
    tell(edge.addresses.bindings, Selected("ana", "a"))
    gevent.joinall(askers, timeout=10, raise_error=True)
    assert [asker.value for asker in askers] == [Select(), Bound("a"), Bound("a")]


def test_a_vanished_leader_is_replaced_after_the_timeout_and_the_second_serves_all(monkeypatch):
    monkeypatch.setattr(single_flight, "LEADER_TIMEOUT_SECONDS", 0.05)
    edge = EdgeActors()
    assert edge.find("ana") == Select()
    early = asking(edge, "ana", 3)
    assert not any(asker.ready() for asker in early)
    gevent.sleep(0.1)
    assert edge.find("ana") == Select()
    tell(edge.addresses.bindings, Selected("ana", "a"))
    gevent.joinall(early, timeout=10, raise_error=True)
    assert [asker.value for asker in early] == [Bound("a")] * 3


def test_a_binding_to_an_excluded_backend_leads_to_one_selection():
    edge = EdgeActors()
    tell(edge.addresses.bindings, ConfirmBinding("ana", "a"))
    assert edge.find("ana", excluded=("a",)) == Select()
    waiting = gevent.spawn(edge.find, "ana", excluded=("a",))
    gevent.sleep(0)
    edge.settle()
    assert not waiting.ready()
    tell(edge.addresses.bindings, Selected("ana", "b"))
    assert waiting.get(timeout=10) == Bound("b")
    assert edge.find("ana") == Bound("b")


def test_unbinding_names_the_backend_so_that_a_newer_binding_is_left_alone():
    edge = EdgeActors()
    tell(edge.addresses.bindings, ConfirmBinding("ana", "b"))
    tell(edge.addresses.bindings, Unbind("ana", "a"))
    assert edge.find("ana") == Bound("b")
    tell(edge.addresses.bindings, Unbind("ana", "b"))
    assert edge.find("ana") == Select()


def test_unbinding_gives_the_former_binding_back():
    edge = EdgeActors()
    tell(edge.addresses.bindings, ConfirmBinding("ana", "b"))
    tell(edge.addresses.bindings, Unbind("ana", "b", former="a"))
    assert edge.find("ana") == Bound("a")


def test_an_expired_binding_is_absent_before_any_sweep_and_the_sweep_frees_it():
    edge = EdgeActors(ttl_seconds=0.02)
    tell(edge.addresses.bindings, ConfirmBinding("ana", "a"))
    eventually(lambda: edge.find("ana") == Select())
    assert ask(edge.addresses.bindings, CountBindings(), timeout_s=5).bindings == 1
    tell(edge.addresses.bindings, SweepBindings())
    assert ask(edge.addresses.bindings, CountBindings(), timeout_s=5).bindings == 0


def test_the_table_can_be_copied_shard_by_shard():
    edge = EdgeActors()
    clients = {f"client {number}" for number in range(100)}
    for client in clients:
        tell(edge.addresses.bindings, ConfirmBinding(client, "a"))
    counts = ask(edge.addresses.bindings, CountBindings(), timeout_s=5)
    shards = [ask(edge.addresses.bindings, CopyBindings(shard), timeout_s=5) for shard in range(counts.shards)]
    assert counts.shards > 1
    assert {binding.client for shard in shards for binding in shard} == clients


# Limits


def admitted(edge: EdgeActors, times: int, client: str = "ana", frontend: str = FRONTEND) -> list[Refusal | None]:
    return [edge.admit(client, frontend=frontend) for _ in range(times)]


def test_connections_over_a_clients_limit_are_refused_until_one_leaves():
    edge = EdgeActors(max_connections_per_client=2)
    assert admitted(edge, 3) == [None, None, Refusal.CLIENT_CONNECTIONS]
    assert edge.admit("bob") is None
    tell(edge.addresses.bindings, ClientLeft(FRONTEND, "ana", 1))
    assert admitted(edge, 2) == [None, Refusal.CLIENT_CONNECTIONS]


def test_a_connection_that_asks_again_is_not_counted_again():
    edge = EdgeActors(max_connections_per_client=1)
    assert [edge.admit("ana", admission=7) for _ in range(4)] == [None] * 4


def test_a_client_may_open_only_so_many_connections_a_second():
    edge = EdgeActors(connections_per_second=2)
    assert admitted(edge, 3) == [None, None, Refusal.CLIENT_RATE]


def test_a_refused_connection_neither_selects_nor_waits():
    edge = EdgeActors(max_connections_per_client=1)
    assert admitted(edge, 2) == [None, Refusal.CLIENT_CONNECTIONS]
    assert edge.find("ana") == Select(), "no selection is in progress"
    assert edge.selectors.finish("ana") == []


def test_a_frontend_without_limits_admits_every_client_and_stores_none():
    edge = EdgeActors(max_connections_per_client=1)
    assert admitted(edge, 100, frontend="other") == [None] * 100
    tell(edge.addresses.bindings, ClientLeft("other", "ana", 1))
    assert edge.admit("ana") is None


def test_a_client_is_limited_at_each_frontend_by_itself():
    edge = EdgeActors()
    tell(edge.addresses.bindings, ReplaceLimits({"web": LimitRules(1), "api": LimitRules(2)}))
    assert admitted(edge, 2, frontend="web") == [None, Refusal.CLIENT_CONNECTIONS]
    assert admitted(edge, 3, frontend="api") == [None, None, Refusal.CLIENT_CONNECTIONS]
    tell(edge.addresses.bindings, ClientLeft("api", "ana", 1))  # came in at the other one
    assert admitted(edge, 1, frontend="web") == [Refusal.CLIENT_CONNECTIONS]


def test_new_limits_count_open_connections_and_removed_ones_are_forgotten():
    edge = EdgeActors(max_connections_per_client=2)
    assert admitted(edge, 2) == [None, None]
    tell(edge.addresses.bindings, ReplaceLimits({FRONTEND: LimitRules(3), "new": LimitRules(1)}))
    assert admitted(edge, 2) == [None, Refusal.CLIENT_CONNECTIONS]
    assert admitted(edge, 2, frontend="new") == [None, Refusal.CLIENT_CONNECTIONS]
    tell(edge.addresses.bindings, ReplaceLimits({FRONTEND: LimitRules(3)}))
    assert admitted(edge, 2, frontend="new") == [None, None]
    assert set(edge.limits) == {FRONTEND}


def test_limits_and_their_counts_outlive_a_crash_of_the_actor():
    edge = EdgeActors()
    tell(edge.addresses.bindings, ReplaceLimits({FRONTEND: LimitRules(2)}))
    assert admitted(edge, 2) == [None, None]
    tell(edge.addresses.bindings, Crash())
    eventually(lambda: not edge.addresses.bindings.ref.is_alive())
    edge.start_bindings()
    assert admitted(edge, 1) == [Refusal.CLIENT_CONNECTIONS]


def test_the_sweep_forgets_clients_of_every_frontend_that_has_limits():
    edge = EdgeActors()
    tell(edge.addresses.bindings, ReplaceLimits({name: LimitRules(0, 1e6) for name in ("web", "api")}))
    for name in ("web", "api"):
        assert admitted(edge, 1, frontend=name) == [None]
        tell(edge.addresses.bindings, ClientLeft(name, "ana", 1))
        tell(edge.addresses.bindings, ClientLeft(name, "ana", 2))

    def are_forgotten() -> bool:
        tell(edge.addresses.bindings, SweepBindings())
        edge.settle()
        return not any(limits._clients for limits in edge.limits.values())

    eventually(are_forgotten)


# Crashes


def test_the_bindings_outlive_a_crash_of_the_actor():
    edge = EdgeActors()
    tell(edge.addresses.bindings, ConfirmBinding("ana", "a"))
    edge.settle()
    tell(edge.addresses.bindings, Crash())
    eventually(lambda: not edge.addresses.bindings.ref.is_alive())
    edge.start_bindings()
    assert edge.find("ana") == Bound("a")


def test_waiters_of_a_selection_get_replies_through_a_successor():
    edge = EdgeActors()
    askers = asking(edge, "ana", 5)
    tell(edge.addresses.bindings, Crash())
    eventually(lambda: not edge.addresses.bindings.ref.is_alive())
    edge.start_bindings()
    tell(edge.addresses.bindings, Selected("ana", "a"))
    gevent.joinall(askers, timeout=10, raise_error=True)
    assert sorted(type(asker.value).__name__ for asker in askers) == ["Bound", "Bound", "Bound", "Select", "Select"]


def test_a_waiter_repeats_a_selection_lost_in_a_crash():
    edge = EdgeActors()
    assert edge.find("ana") == Select()
    askers = asking(edge, "ana", 5)
    tell(edge.addresses.bindings, Crash())
    tell(edge.addresses.bindings, Selected("ana", "a"))  # goes down with the actor
    eventually(lambda: not edge.addresses.bindings.ref.is_alive())
    edge.start_bindings()
    leaders = eventually(lambda: [asker for asker in askers if asker.ready()], seconds=0.5)
    assert [asker.value for asker in leaders] == [Select()]
    tell(edge.addresses.bindings, Selected("ana", "b"))
    gevent.joinall(askers, timeout=10, raise_error=True)
    assert [asker.value for asker in askers].count(Bound("b")) == 4


def test_a_client_does_not_wait_for_a_selection_lost_in_a_crash():
    edge = EdgeActors()
    assert edge.find("ana") == Select()
    tell(edge.addresses.bindings, Crash())
    tell(edge.addresses.bindings, Selected("ana", "a"))
    eventually(lambda: not edge.addresses.bindings.ref.is_alive())
    edge.start_bindings()
    assert ask(edge.addresses.bindings, FindBinding("ana", ()), timeout_s=0.5) == Select()


def test_a_waiter_that_gave_up_does_not_delay_the_replies_of_others():
    edge = EdgeActors()
    assert edge.find("ana") == Select()
    with pytest.raises(AskTimeoutError):
        ask(edge.addresses.bindings, FindBinding("ana", ()), timeout_s=0.02)
    askers = asking(edge, "ana", 2)
    askers[0].kill()
    tell(edge.addresses.bindings, Selected("ana", "a"))
    assert askers[1].get(timeout=10) == Bound("a")
