"""Changes of replicated backends: requested at any edge, written by its replicator, applied by all POPs."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import gevent
import pytest

from app.cluster.etcd import EtcdClient
from app.cluster.store import EtcdBackendStore
from app.domain.model import parse_backend
from app.domain.words import counted
from app.outbound.peewee_backends import row_of
from app.outbound.token_file import FIRST_TOKEN_NAME
from tests.admin_client import Admin
from tests.commands import command
from tests.harness import eventually
from tests.integration.etcd_servers import etcd_running, pops
from tests.traffic import named, who

KEY = "/edgeproxy/v1/backends/"
SERVICE = {"host": "127.0.0.1", "port": 1001, "region": "sa", "country": "BR", "ttl_seconds": 600}


@pytest.fixture(scope="module")
def etcd():
    with etcd_running() as one:
        yield one


@pytest.fixture(scope="module")
def places(etcd, tmp_path_factory):
    """Two POPs, shared by the tests of this file."""
    with pops(tmp_path_factory.mktemp("pops")) as make:
        yield make("gru", etcd.endpoints).start(), make("fra", etcd.endpoints).start()


@pytest.fixture
def etcd_and_pops(etcd, places):
    """The etcd and both POPs, without any backends."""
    for name in places[0].rows():
        places[0].admin.call("DELETE", f"/api/backends/{quote(name)}")
    etcd.delete_all()
    for place in places:
        eventually(lambda place=place: not place.rows(), 40, "nothing is left")
    return etcd, *places


@pytest.fixture
def etcd_and_admins(etcd_and_pops):
    etcd, one, two = etcd_and_pops
    return etcd, one.admin, two.admin


def replicator_of(place, token: str | None) -> Admin:
    return Admin(("127.0.0.1", place.port), token)


def columns(port: int, **more) -> dict[str, object]:
    return {"wg_ip": "127.0.0.1", "port": port, "region": "sa", "country": "BR", **more}


# Operators


def test_a_change_at_one_pop_is_visible_there_on_return_and_soon_at_the_other(etcd_and_pops, origin):
    etcd, one, two = etcd_and_pops
    port = origin(named("a"))
    made = one.admin.call("POST", "/api/backends", {"id": "a", **columns(port)})
    assert (made.status, made.json["id"], made.json["state"]) == (201, "a", "serving")
    assert one.rows()["a"]["port"] == port
    assert etcd.get(KEY + "a")["schema"] == 1
    eventually(lambda: who(two.edge) == "a", what="it serves at the other")
    again = two.admin.call("POST", "/api/backends", {"id": "a", **columns(port)})
    assert again.problem["detail"] == "backend a already exists"

    assert two.admin.call("POST", "/api/backends/a/drain?deadline_seconds=60").status == 204
    assert two.rows()["a"]["deleted"] == 1
    assert 50 < two.rows()["a"]["drain_deadline"] - time.time() <= 60
    eventually(lambda: who(one.edge) == "", what="drained at the other")
    assert one.admin.call("POST", "/api/backends/a/undrain").status == 204
    assert (one.rows()["a"]["deleted"], one.rows()["a"]["drain_deadline"]) == (0, None)
    assert one.admin.call("PUT", "/api/backends/a", columns(port, weight=3)).json["weight"] == 3
    assert one.admin.call("DELETE", "/api/backends/a").status == 204
    assert one.rows() == {}
    assert one.admin.call("DELETE", "/api/backends/a").problem["detail"] == "no such backend: a"
    eventually(lambda: who(two.edge) == "", what="gone at the other")


@pytest.mark.parametrize("name", ["a/b", "a b", "a%2Fb", "a?b=c", "a#b", "/a", "a/", "//", "..", "a/../b"])
def test_any_id_comes_through(etcd_and_admins, name):
    etcd, one, _ = etcd_and_admins
    made = one.call("POST", "/api/backends", {"id": name, **columns(1001)})
    assert made.status == 201, made
    assert etcd.get(KEY + name)["port"] == 1001
    assert one.call("DELETE", f"/api/backends/{quote(name)}").status == 204


def test_every_bad_record_is_removed_by_the_name_under_which_it_is_listed(etcd_and_pops):
    etcd, place, _ = etcd_and_pops
    keys = (b"", b"a\nb", b"a\xffb", "\u2028".encode(), b" a", b"x" * 1000, b"x" * 1001, b"\0", b"..", b"later")
    for key in keys:
        etcd.put_raw(KEY.encode() + key, b'{"schema": 2}')
    listed = eventually(lambda: len(place.status()["bad"]) == len(keys) and place.status()["bad"], what="all listed")
    assert {"(no id)", "a\\nb", "a\\xffb", "\\u2028", " a", "\\x00", "..", "later"} < set(listed)
    url, token = "http://{}:{}".format(*place.admin.address), place.folder / "admin.token"
    by_command, by_http = listed[:5], listed[5:]
    for name in by_command:
        done = command("backends", "--api", url, "--token-file", token, "remove", "--", name)
        assert done.returncode == 0, (name, done.stderr)
        again = command("backends", "--api", url, "--token-file", token, "remove", "--", name)
        assert (again.returncode, again.stderr) == (2, f"backends: no such backend: {name}; nothing was changed\n")
    for name in by_http:
        assert place.admin.call("DELETE", f"/api/backends/{quote(name)}").status == 204, name
    eventually(lambda: place.status()["bad_count"] == 0, what="none is left")


def test_a_key_that_is_not_utf_8_or_empty_is_in_the_way_of_no_load(etcd_and_pops):
    etcd, place, _ = etcd_and_pops
    for key in (b"", b"a\xffb", b"a\nb"):
        etcd.put_raw(KEY.encode() + key, b"junk")
    url, token = "http://{}:{}".format(*place.admin.address), place.folder / "admin.token"
    rows = json.dumps([{"id": "a", **columns(1001)}])
    done = command("backends", "--api", url, "--token-file", token, "load", "--replace", "-", stdin=rows)
    assert done.returncode == 0, done.stderr
    eventually(lambda: place.status()["bad_count"] == 0, what="they are gone")
    assert list(place.rows()) == ["a"]


def test_faults_are_named_as_they_are_on_one_machine(etcd_and_admins):
    _, one, _ = etcd_and_admins
    refused = one.call("PUT", "/api/backends/a", columns(70_000, weight="x"))
    assert {fault["where"] for fault in refused.problem["errors"]} == {"port", "weight"}
    assert one.call("PUT", "/api/backends/a", raw=b"{", Content_Type="application/json").status == 400
    assert one.call("POST", "/api/backends/nobody/drain").status == 404


def test_unknown_fields_are_preserved_and_newer_schemas_are_not_changed(etcd_and_admins):
    etcd, one, _ = etcd_and_admins
    etcd.put_backend("a", 1001, colour="green")
    eventually(lambda: one.call("POST", "/api/backends/a/drain").status == 204, what="drained")
    assert (etcd.get(KEY + "a")["colour"], etcd.get(KEY + "a")["deleted"]) == ("green", 1)
    etcd.put_backend("b", 1001, schema=2)
    refused = one.call("PUT", "/api/backends/b", columns(1002))
    assert (refused.status, "newer than 1" in refused.problem["detail"]) == (409, True)
    assert "retry-after" not in refused.headers
    assert "nothing was changed" in refused.problem["detail"]
    assert one.call("PUT", "/api/registrations/b", SERVICE).status == 409
    assert etcd.get(KEY + "b")["port"] == 1001


def test_changes_of_one_backend_at_two_pops_do_not_get_lost_in_each_other(etcd_and_admins):
    etcd, one, two = etcd_and_admins
    one.call("PUT", "/api/registrations/a", SERVICE)

    def drain() -> list[int]:
        return [one.call("POST", "/api/backends/a/drain").status for _ in range(10)]

    def register() -> list[int]:
        return [two.call("PUT", "/api/registrations/a", {**SERVICE, "port": 1001 + n}).status for n in range(10)]

    working = [gevent.spawn(drain), gevent.spawn(register)]
    gevent.joinall(working, raise_error=True)
    assert [greenlet.value for greenlet in working] == [[204] * 10, [200] * 10]
    assert (etcd.get(KEY + "a")["deleted"], etcd.get(KEY + "a")["port"]) == (1, 1010)


def test_many_are_saved_and_all_others_removed(etcd_and_pops):
    etcd, place, _ = etcd_and_pops
    etcd.put_backend("other", 1001)
    etcd.put_backend("leased", 1001, lease=etcd.grant(600))
    for lease in (0, etcd.grant(600)):
        etcd.put(f"{KEY}bad-{lease}", "no JSON", lease)
    eventually(lambda: len(place.rows()) == 2, what="both are there")
    reader = EtcdClient([node.url for node in etcd.nodes])

    store = EtcdBackendStore(reader, list, row_of, lambda _revision, _seconds: True)
    many = [parse_backend({"id": f"b{number}", **columns(1 + number)}) for number in range(250)]
    store.save(many, replaces_all=True)
    eventually(lambda: sorted(place.rows()) == sorted(one.id for one in many), what="these and no others, at once")
    assert len(reader.snapshot(KEY).items) == len(many), "bad records are gone too"


def test_ten_thousand_backends_are_loaded_by_the_command_at_any_edge_and_replaced(etcd_and_pops, tmp_path):
    etcd, one, two = etcd_and_pops
    lines = [f"b{number},127.0.0.1,{1 + number}" for number in range(10_000)]
    url, token = "http://{}:{}".format(*one.admin.address), one.folder / "admin.token"

    def load(*options: str) -> None:
        (tmp_path / "backends.csv").write_text("\n".join(["id,wg_ip,port", *lines, ""]))
        file = tmp_path / "backends.csv"
        done = command("backends", "--api", url, "--token-file", token, "load", *options, file)
        assert (done.returncode, done.stdout) == (0, f"{counted(len(lines), 'backend')} loaded into {url}\n"), done

    load()
    assert len(one.rows()) == 10_000
    eventually(lambda: two.rows() == one.rows(), what="the same at the other")
    assert etcd.get(KEY + "b9999")["port"] == 10_000
    lines = ["c,127.0.0.1,1"]
    load("--replace")
    assert list(one.rows()) == ["c"]
    eventually(lambda: list(two.rows()) == ["c"], what="the same at the other")


# Who may


def test_the_replicator_asks_for_the_same_tokens_and_writes_the_same_lines(etcd_and_pops):
    _, place, _ = etcd_and_pops
    reader, operator = place.admin.bearer("reader", "read"), place.admin.bearer("operator", "operate")
    assert place.admin.call("PUT", "/api/backends/a", columns(1001)).status == 200
    assert reader.call("DELETE", "/api/backends/a").status == 403
    assert replicator_of(place, reader.token).call("DELETE", "/api/backends/a").status == 403
    assert replicator_of(place, None).call("DELETE", "/api/backends/a").status == 401
    assert replicator_of(place, operator.token).call("DELETE", "/api/backends/a").status == 204

    def audit() -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in place.errors.read_text().splitlines()]
        return [
            (line["token"], line["action"]) for line in lines if line["event"] == "admin" and line.get("target") == "a"
        ]

    eventually(
        lambda: {(FIRST_TOKEN_NAME, "put_backend"), ("operator", "remove_backend")} <= set(audit()), what="audit lines"
    )

    def own_lines() -> list[int]:
        lines = [line for line in place.edge.log() if line["event"] == "admin" and line["action"] == "put_backend"]
        return [line["status"] for line in lines if line["target"] == "a"]

    eventually(lambda: own_lines()[-1:] == [200], what="the edge's own line")


def test_without_its_replicator_an_edge_reads_and_changes_nothing(etcd, tmp_path):
    with pops(tmp_path) as make:
        place = make("gru", etcd.endpoints)
        edge = place.start_edge()
        refused = place.admin.call("PUT", "/api/backends/a", columns(1001))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert f"the replicator on 127.0.0.1:{place.port} does not respond" in refused.problem["detail"]
        assert place.admin.get("/api/pools")
        details = edge.ready()["replica"]
        assert (details["age_seconds"], details["error"]) == (None, "the replicator has not reported yet")


# Services


def test_a_registration_is_renewed_by_repeating_it_and_expires_otherwise(etcd_and_pops, origin):
    etcd, one, two = etcd_and_pops
    etcd.put_backend("other", origin(named("other")))
    service = {**SERVICE, "port": origin(named("a")), "country": "UY", "ttl_seconds": 2}
    first = one.admin.call("PUT", "/api/registrations/a", service)
    assert (first.status, first.json["is_new"]) == (200, True)
    granted = first.json["ttl_seconds"]
    assert granted >= 2
    eventually(lambda: sorted(two.rows()) == ["a", "other"], what="it is at the other")
    give_up_at = time.monotonic() + 2 * granted
    while time.monotonic() < give_up_at:
        said = two.admin.call("PUT", "/api/registrations/a", service)
        assert said.json == {"ttl_seconds": granted, "is_new": False}, "any POP may be told"
        gevent.sleep(granted / 3)
    ended = time.monotonic()
    eventually(lambda: sorted(one.rows()) == sorted(two.rows()) == ["other"], what="it is gone")
    assert time.monotonic() - ended <= granted + 1


def test_a_heartbeat_writes_nothing(etcd_and_admins):
    etcd, one, _ = etcd_and_admins
    one.call("PUT", "/api/registrations/a", SERVICE)
    before = etcd.record(KEY + "a")
    for _ in range(3):
        assert one.call("PUT", "/api/registrations/a", SERVICE).json == {"ttl_seconds": 600, "is_new": False}
    assert etcd.record(KEY + "a") == before


def test_a_lost_lease_is_granted_again(etcd_and_admins):
    etcd, one, _ = etcd_and_admins
    one.call("PUT", "/api/registrations/a", SERVICE)
    etcd.call("/v3/lease/revoke", {"ID": etcd.record(KEY + "a")["lease"]})
    assert etcd.get(KEY + "a") is None
    assert one.call("PUT", "/api/registrations/a", SERVICE).json == {"ttl_seconds": 600, "is_new": True}
    assert etcd.get(KEY + "a")["port"] == 1001


def test_another_time_to_live_is_another_lease(etcd_and_admins):
    etcd, one, _ = etcd_and_admins
    one.call("PUT", "/api/registrations/a", SERVICE)
    before = etcd.record(KEY + "a")["lease"]
    changed = one.call("PUT", "/api/registrations/a", {**SERVICE, "ttl_seconds": 900})
    assert changed.json == {"ttl_seconds": 900, "is_new": False}
    assert etcd.record(KEY + "a")["lease"] != before


def test_an_operators_drain_outlasts_renewals_of_the_service(etcd_and_pops):
    _, place, _ = etcd_and_pops
    place.admin.call("PUT", "/api/registrations/a", SERVICE)
    place.admin.call("POST", "/api/backends/a/drain")
    place.admin.call("PUT", "/api/registrations/a", {**SERVICE, "weight": 5})
    assert (place.rows()["a"]["deleted"], place.rows()["a"]["weight"]) == (1, 5)
    place.admin.call("POST", "/api/backends/a/undrain")
    assert place.rows()["a"]["deleted"] == 0


def test_a_service_drains_itself_and_signs_off(etcd_and_pops):
    etcd, place, other = etcd_and_pops
    place.admin.call("PUT", "/api/registrations/a", SERVICE)
    place.admin.call("PUT", "/api/registrations/a", {**SERVICE, "draining": True})
    assert place.rows()["a"]["deleted"] == 1
    place.admin.call("PUT", "/api/registrations/a", SERVICE)
    assert place.rows()["a"]["deleted"] == 0
    assert place.admin.call("DELETE", "/api/registrations/a").status == 204
    assert etcd.get(KEY + "a") is None
    eventually(lambda: place.rows() == other.rows() == {}, 2, "gone at once, though it was the last")
    assert place.admin.call("DELETE", "/api/registrations/a").problem["detail"] == "no such registration: a"


def test_a_service_cannot_register_an_operators_backend(etcd_and_admins):
    _, one, _ = etcd_and_admins
    one.call("PUT", "/api/backends/a", columns(1001))
    refused = one.call("PUT", "/api/registrations/a", SERVICE)
    assert (refused.status, refused.problem["detail"]) == (409, "backend a exists and is not a registration")
    assert one.call("DELETE", "/api/registrations/a").status == 404


def test_faults_of_a_registration_are_named_as_it_calls_them(etcd_and_admins):
    _, one, _ = etcd_and_admins
    refused = one.call("PUT", "/api/registrations/a", {**SERVICE, "host": "nowhere at all", "port": 0})
    assert {fault["where"] for fault in refused.problem["errors"]} == {"host", "port"}
    refused = one.call("PUT", "/api/registrations/a", {**SERVICE, "ttl_seconds": 1})
    assert [fault["where"] for fault in refused.problem["errors"]] == ["ttl_seconds"]


def test_from_registering_to_the_first_connection_at_another_pop_takes_less_than_a_second(etcd_and_pops, origin):
    _, one, two = etcd_and_pops
    service = {**SERVICE, "port": origin(named("a"))}
    began = time.monotonic()
    one.admin.call("PUT", "/api/registrations/a", service)
    eventually(lambda: who(two.edge) == "a", what="it serves at the other")
    assert time.monotonic() - began < 1
