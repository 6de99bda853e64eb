"""The client of etcd against real servers: conditional writes, leases, watches, several endpoints, passwords, TLS."""

from __future__ import annotations

import ssl
import time

import gevent
import pytest
from gevent.event import Event

from app.cluster.etcd import CALL_SECONDS, PAGE_KEYS, RESPONSE_SECONDS, Credentials, EtcdClient
from app.cluster.etcd_errors import (
    Compacted,
    EtcdDenied,
    EtcdFull,
    EtcdRefused,
    EtcdUnavailable,
    EtcdUntrusted,
)
from tests.harness import eventually
from tests.integration.etcd_servers import Etcd, etcd_running, etcd_with_tls, guarded_etcd, make_certificate
from tests.traffic import free_ports


@pytest.fixture(scope="module")
def etcd():
    with etcd_running() as one:
        yield one


@pytest.fixture(scope="module")
def three():
    with etcd_running(3) as one:
        yield one


@pytest.fixture
def key(request) -> str:
    """A key prefix for this test."""
    return f"/{request.node.name}/"


def client(etcd: Etcd, **more) -> EtcdClient:
    return EtcdClient([node.url for node in etcd.nodes], **more)


def wait_for_events(messages, count):
    """Return the first events of a watch, as (revision, key, value)."""
    events = []
    while len(events) < count:
        events += [(event.kv.mod_revision, event.kv.key, event.kv.value) for event in next(messages).events]
    return events


# Keys


def test_a_write_is_done_if_nothing_has_changed_meanwhile_and_whole_or_not_at_all(etcd, key):
    one = client(etcd)
    first = one.write({key + "a": 0}, [(key + "a", b"1", 0), (key + "b", b"\xff\x00", 0)])
    assert one.write({key + "a": 0}, [(key + "a", b"2", 0)]) is None
    found = one.get([key + "a", key + "b", key + "c"])
    assert (found[key + "a"].value, found[key + "b"].value, found[key + "c"]) == (b"1", b"\xff\x00", None)
    assert found[key + "a"].mod_revision == found[key + "b"].mod_revision == first
    second = one.write({key + "a": first}, [(key + "b", b"3", 0)], [key + "a"])
    assert second == first + 1
    assert [item.value for item in one.snapshot(key).items] == [b"3"]


def test_a_snapshot_of_many_keys_is_of_one_revision(etcd, key):
    one = client(etcd)
    names = [f"{key}{number:05}" for number in range(PAGE_KEYS + 200)]
    for first in range(0, len(names), 100):
        one.write({}, [(name, b"old", 0) for name in names[first : first + 100]])
    revision = etcd.revision()
    is_over = Event()
    changing = gevent.spawn(lambda: [one.put(name, b"new") for name in reversed(names) if not is_over.is_set()])
    found = one.snapshot(key)
    is_over.set()
    changing.join()  # one that is killed in the middle of a call leaves its socket open
    assert [item.key.decode() for item in found.items] == names
    assert all(item.mod_revision <= found.revision for item in found.items)
    assert found.revision >= revision


# Leases


def test_a_lease_takes_its_keys_with_it_and_one_that_is_gone_is_not_kept_alive(etcd, key):
    one = client(etcd)
    lease, seconds = one.grant(60)
    assert seconds == 60
    one.write({}, [(key, b"", lease)])
    assert one.get([key])[key].lease == lease
    assert one.keep_alive(lease) == 60
    one.revoke(lease)
    assert one.get([key])[key] is None
    assert one.keep_alive(lease) <= 0
    with pytest.raises(EtcdRefused, match="lease not found"):
        one.write({}, [(key, b"", lease)])


# Watches


def test_a_watch_yields_past_and_future_changes(etcd, key):
    one = client(etcd)
    first = one.write({}, [(key + "a", b"1", 0), (key + "b", b"2", 0)])
    with one.watch(key, first, 5) as messages:
        assert next(messages).created
        assert wait_for_events(messages, 2) == [
            (first, (key + "a").encode(), b"1"),
            (first, (key + "b").encode(), b"2"),
        ]
        second = one.write({}, [], [key + "a"])
        (event,) = next(messages).events
        assert (event.is_deletion, event.kv.key.decode(), event.kv.mod_revision) == (True, key + "a", second)


def test_a_watch_that_brings_nothing_for_so_long_is_over(etcd, key):
    one = client(etcd)
    with one.watch(key, etcd.revision() + 1, 0.3) as messages:
        assert next(messages).created
        began = time.monotonic()
        with pytest.raises(EtcdUnavailable, match=r"^http://127\.0\.0\.1:\d+: Read timed out\.$"):
            next(messages)
        assert 0.2 < time.monotonic() - began < 3


def test_a_watch_from_a_compacted_revision_is_an_error(key):
    with etcd_running() as etcd:
        one = client(etcd)
        first = one.write({}, [(key, b"1", 0)])
        one.put(key, b"2")
        etcd.compact()
        with pytest.raises(Compacted), one.watch(key, first, 5) as messages:
            for _ in messages:
                pass


# Whether a write may have happened


def test_a_full_etcd_refuses_at_once_and_for_certain(key):
    with etcd_running() as etcd:
        one = client(etcd)
        etcd.raise_alarm("NOSPACE")
        began = time.monotonic()
        with pytest.raises(EtcdFull, match="alarm NOSPACE") as caught:
            one.write({}, [(key, b"1", 0)])
        with pytest.raises(EtcdFull):
            one.grant(60)
        assert time.monotonic() - began < CALL_SECONDS / 2
        assert not caught.value.may_have_happened
        assert one.write({}, [], [key]), "what needs no space is done"


def test_a_refusal_after_a_lost_response_does_not_say_that_nothing_happened(key, origin):
    with etcd_running() as etcd:
        etcd.raise_alarm("NOSPACE")
        one = EtcdClient([f"http://127.0.0.1:{origin(lambda sock: sock.recv(10_000))}", etcd.nodes[0].url])
        with pytest.raises(EtcdFull) as caught:
            one.put(key, b"1")
        assert caught.value.may_have_happened


# Several servers


def test_an_unreachable_endpoint_is_skipped(etcd, key):
    (port,) = free_ports(1)
    one = EtcdClient([f"http://127.0.0.1:{port}", etcd.nodes[0].url])
    one.put(key, b"1")
    assert one.endpoint == etcd.nodes[0].url
    assert one.get([key])[key].value == b"1"


def test_a_call_without_a_response_times_out():
    ports = free_ports(2)
    one = EtcdClient([f"http://127.0.0.1:{port}" for port in ports])
    began = time.monotonic()
    with pytest.raises(EtcdUnavailable, match=r"^http://127\.0\.0\.1:\d+: Failed to establish .*refused$") as caught:
        one.put("x", b"")
    assert not caught.value.may_have_happened
    assert time.monotonic() - began < 7


def test_a_server_that_is_not_etcd_is_unavailable(origin):
    port = origin(lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
    with pytest.raises(EtcdUnavailable, match="not a response of etcd"):
        EtcdClient([f"http://127.0.0.1:{port}"]).put("x", b"")


def test_a_frozen_server_is_passed_over_by_calls_and_noticed_by_watches(three, key):
    one = client(three)
    node = three.nodes[0]
    assert one.endpoint == node.url
    with one.watch(key, three.revision() + 1, 1.0) as messages:
        assert next(messages).created
        node.freeze()
        try:
            with pytest.raises(EtcdUnavailable):
                next(messages)
            assert one.endpoint != node.url
            one.fail_over(one.endpoint)
            one.fail_over(one.endpoint)
            assert one.endpoint == node.url
            began = time.monotonic()
            one.put(key, b"1")
            assert RESPONSE_SECONDS * 0.9 < time.monotonic() - began < RESPONSE_SECONDS + 3
            assert one.endpoint != node.url
        finally:
            node.thaw()


def test_without_a_quorum_writes_fail_in_time_and_go_on_with_it(three, key):
    one = client(three)
    frozen = three.nodes[:2]
    for node in frozen:
        node.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(EtcdUnavailable):
            one.put(key, b"1")
        assert time.monotonic() - began < 9
    finally:
        for node in frozen:
            node.thaw()

    def put() -> bool:
        try:
            one.put(key, b"2")
        except EtcdUnavailable:
            return False
        return True

    eventually(put, 20, "a quorum")
    assert one.get([key])[key].value == b"2"


# Passwords


@pytest.fixture
def guarded():
    with guarded_etcd() as one:
        yield one


def test_a_user_with_a_password_has_its_permissions(guarded):
    pop = client(guarded, credentials=Credentials("pop", "secret"))
    pop.put("/edgeproxy/x", b"1")
    assert len(pop.snapshot("/edgeproxy/").items) == 1
    lease, _ = pop.grant(60)
    assert pop.keep_alive(lease) == 60
    with pytest.raises(EtcdDenied, match="permission denied: the role of EDGEPROXY_ETCD_USER must allow"):
        pop.put("/other", b"1")


def test_a_missing_or_wrong_password_is_refused_with_the_variables_to_set(guarded):
    both = "EDGEPROXY_ETCD_USER and EDGEPROXY_ETCD_PASSWORD_FILE"
    with pytest.raises(EtcdDenied, match=f"user name is empty: it has users, so {both} must be set"):
        client(guarded).put("/edgeproxy/x", b"1")
    with pytest.raises(EtcdDenied, match=f"authentication failed, .*: check {both}"):
        client(guarded, credentials=Credentials("pop", "wrong")).put("/edgeproxy/x", b"1")
    assert "secret" not in repr(Credentials("pop", "secret"))


def test_a_user_for_an_etcd_without_users_is_refused(etcd):
    with pytest.raises(EtcdDenied, match=r"authentication is not enabled: it has no users, so .* must not be set"):
        client(etcd, credentials=Credentials("pop", "secret")).put("/edgeproxy/x", b"1")


def test_a_token_that_is_not_good_any_more_is_renewed(guarded):
    pop = client(guarded, credentials=Credentials("pop", "secret"))
    pop.put("/edgeproxy/x", b"1")
    guarded.add_user("other", "secret", "/other/")  # tokens of before a change of users are too old
    pop.put("/edgeproxy/x", b"2")
    (node,) = guarded.nodes
    node.kill()
    node.start()
    guarded.token = ""

    def watches() -> bool:
        try:
            with pop.watch("/edgeproxy/", 1, 5) as messages:
                return next(messages).created
        except EtcdUnavailable:
            return False

    eventually(watches, 20, "the server that was started again knows no tokens")


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1, and its key."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def encrypted(certificate):
    """An etcd that requires TLS with a client certificate."""
    with etcd_with_tls(*certificate) as one:
        yield one


def test_over_tls_with_a_client_certificate(encrypted):
    one = client(encrypted, tls=encrypted.tls)
    one.put("x", b"1")
    with one.watch("x", 1, 5) as messages:
        assert next(messages).created
        assert wait_for_events(messages, 1)[0][2] == b"1"


def test_a_certificate_that_is_not_trusted_and_one_that_is_not_shown(encrypted, certificate):
    with pytest.raises(EtcdUntrusted, match="certificate verify failed"):
        client(encrypted, tls=ssl.create_default_context()).put("x", b"1")
    with pytest.raises(EtcdUnavailable):
        client(encrypted, tls=ssl.create_default_context(cafile=certificate[0])).put("x", b"1")
