"""Replication of backends: backends in etcd serve at every POP, and continue to while etcd is down."""

from __future__ import annotations

import os
import signal
import sqlite3
import time

import gevent
import pytest

from tests.commands import backends, edgeproxy
from tests.harness import eventually, row, write_backends
from tests.integration.etcd_servers import etcd_running, etcd_with_tls, guarded_etcd, make_certificate, pops
from tests.traffic import free_ports, load, named, who

KEY = "/edgeproxy/v1/backends/"
GOOD_RECORDS = 'edgeproxy_replica_records{state="good"}'


@pytest.fixture(scope="module")
def etcd():
    with etcd_running() as one:
        yield one


@pytest.fixture
def clean(etcd):
    """The etcd of this module, without any keys."""
    etcd.delete_all()
    return etcd


@pytest.fixture
def own():
    """An etcd for this test, to be damaged."""
    with etcd_running() as one:
        yield one


@pytest.fixture
def pop(tmp_path):
    with pops(tmp_path) as make:
        yield make


def follows(pop):
    """Wait until the replicator has had contact with etcd within the last second."""
    eventually(lambda: time.time() - pop.status()["contact_at"] < 1, 15, "the replica follows")


def test_backends_in_etcd_serve_at_two_edges(clean, pop, origin):
    one, two = pop("gru", clean.endpoints).start(), pop("fra", clean.endpoints).start()
    clean.put_backend("a", origin(named("a")))
    for place in (one, two):
        eventually(lambda place=place: who(place.edge) == "a", what="it serves")
        eventually(lambda place=place: place.edge.metrics().get(GOOD_RECORDS) == 1, what="it knows how many there are")
        assert place.edge.metrics()["edgeproxy_replica_age_seconds"] < 5
        assert place.edge.ready()["replica"]["age_seconds"] < 5
    clean.delete(KEY + "a")
    for place in (one, two):
        eventually(lambda place=place: who(place.edge) == "", what="it serves no more")


def test_without_etcd_the_replicator_idles_with_one_line(pop):
    alone = pop("gru", "")
    alone.start_replicator()
    (line,) = eventually(alone.log, what="its line")
    assert line["event"] == "idle: EDGEPROXY_ETCD_ENDPOINTS is not set, so nothing is replicated"
    assert alone.replicator.poll() is None
    assert alone.stop_replicator() == 0
    assert alone.log() == [line]
    assert not alone.database.exists()


def test_an_etcd_that_was_never_reachable_is_logged_with_the_reason(pop):
    lost = pop("gru", "http://127.0.0.1:1")
    lost.start_replicator()
    line = eventually(lambda: lost.event("replica: no contact with etcd"), 15, "it is said")
    assert "Connection refused; keeping the last 0 backends" in line["event"]


# Following


def test_a_killed_replicator_resumes(clean, pop):
    clean.put_backend("a", 1001)
    clean.put_backend("b", 1002)
    place = pop("gru", clean.endpoints)
    place.start_replicator()
    eventually(lambda: len(place.rows()) == 2, what="the snapshot")
    clean.put_backend("a", 1003)
    eventually(lambda: place.rows()["a"]["port"] == 1003, what="an event")
    eventually(lambda: place.event("replica: snapshot"), what="its line is written")
    place.stop_replicator(9)
    clean.put_backend("a", 1004)
    clean.put_backend("c", 1005)
    clean.delete(KEY + "b")
    place.start_replicator()
    eventually(lambda: {name: one["port"] for name, one in place.rows().items()} == {"a": 1004, "c": 1005}, what="all")
    eventually(lambda: len(place.events("replica: in contact")) == 2, what="its line is written")
    assert len(place.events("replica: snapshot")) == 1


def test_changes_before_a_compaction_are_read_by_a_snapshot(clean, pop):
    for name in "abcdef":
        clean.put_backend(name, 1001)
    place = pop("gru", clean.endpoints)
    place.start_replicator()
    eventually(lambda: len(place.rows()) == 6, what="the snapshot")
    assert place.stop_replicator() == 0
    clean.put_backend("a", 1002)
    clean.delete(KEY + "b")
    clean.compact()
    place.start_replicator()
    eventually(lambda: place.rows()["a"]["port"] == 1002, what="the change")
    assert sorted(place.rows()) == [*"acdef"]
    eventually(lambda: len(place.events("replica: snapshot")) == 2, what="its line is written")
    assert any("compacted" in line["event"] for line in place.log())


def test_the_edge_serves_on_and_starts_again_without_etcd(own, pop, origin):
    own.put_backend("a", origin(named("a")))
    place = pop("gru", own.endpoints).start()
    eventually(lambda: who(place.edge) == "a", what="it serves")
    (node,) = own.nodes
    node.kill()
    eventually(lambda: place.event("replica: no contact with etcd"), 15, "it is noticed")
    assert who(place.edge) == "a"
    eventually(lambda: place.edge.ready()["replica"]["error"], what="the edge says so")
    assert place.edge.ready()["replica"]["age_seconds"] > 4
    refused = place.admin.call("PUT", "/api/backends/b", {"wg_ip": "127.0.0.1", "port": 1})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "refused" in refused.problem["detail"]
    place.edge.kill()
    place.stop_replicator()
    place.start_replicator()
    place.start_edge()
    eventually(lambda: who(place.edge) == "a", what="it serves from what is there")
    node.start()
    follows(place)
    own.put_backend("a", origin(named("b")))
    eventually(lambda: who(place.edge) == "b", what="it follows again")


def test_a_frozen_replicator_is_reported(clean, pop):
    place = pop("gru", clean.endpoints).start()
    eventually(lambda: place.edge.ready()["replica"]["error"] is None, what="all is well")
    place.replicator.send_signal(signal.SIGSTOP)
    eventually(lambda: place.edge.ready()["replica"]["error"], 15, "the edge says why the replica grows old")
    assert place.edge.ready()["replica"]["error"] == "the replicator has stopped reporting"
    place.replicator.send_signal(signal.SIGCONT)
    eventually(lambda: place.edge.ready()["replica"]["error"] is None, what="and that it does not any more")


def test_bad_records_are_skipped_named_and_counted_and_the_rest_serves(clean, pop, origin):
    clean.put(KEY + "broken", "{")
    clean.put_backend("later", 1, schema=2)
    clean.put_backend("a", origin(named("a")))
    place = pop("gru", clean.endpoints).start()
    eventually(lambda: who(place.edge) == "a", what="it serves")
    clean.put_backend("wrong", "x")
    eventually(lambda: place.edge.metrics().get('edgeproxy_replica_records{state="bad"}') == 3, what="they are counted")
    assert place.edge.ready()["replica"]["bad_records"] == {"count": 3, "ids": ["broken", "later", "wrong"]}
    refusals = {line["backend"]: line["event"] for line in place.events("record refused")}
    assert sorted(refusals) == ["broken", "later", "wrong"]
    assert "schema 2, newer than 1" in refusals["later"]
    assert sorted(place.rows()) == ["a"]
    clean.put_backend("a", 0)
    eventually(lambda: place.status()["bad_count"] == 4, what="it is bad now")
    assert who(place.edge) == "a", "its last good version serves on"


def test_a_bad_record_may_be_of_any_size_and_is_named_in_few_words(clean, pop):
    place = pop("gru", clean.endpoints).start()
    clean.put(KEY + "x" * 1_000_000, "junk")
    clean.put_backend("x" * 256, 1)
    clean.put_backend("fat", 1, app="y" * 1_000_000)
    clean.put_backend("good", 1)
    eventually(lambda: "good" in place.rows(), what="the good one is here")
    eventually(lambda: place.status()["bad_count"] == 3, what="the bad ones are counted")
    assert set(place.rows()) == {"good"}
    assert sorted(len(name) for name in place.status()["bad"]) == [3, 255, 255]
    assert all(len(line["event"]) < 700 for line in place.events("record refused"))


def test_leases_that_expire_together_remove_no_backend(clean, pop, origin):
    ports = {name: origin(named(name)) for name in "abc"}
    leases = {name: clean.grant(600) for name in ports}
    for name, port in ports.items():
        clean.put_backend(name, port, lease=leases[name])
    place = pop("gru", clean.endpoints).start()
    eventually(lambda: place.edge.ready()["candidates"] == 3, what="all serve")
    with load(place.edge) as clients:
        for lease in leases.values():
            clean.call("/v3/lease/revoke", {"ID": lease})
        eventually(lambda: place.status()["suspect_count"] == 3, what="they are doubted")
        eventually(lambda: place.event("3 leases expired together"), what="one line for all")
        eventually(lambda: place.edge.ready()["candidates"] == 3, what="all serve")
        clean.put_backend("a", ports["a"], lease=clean.grant(600))
        eventually(lambda: place.status()["suspects"] == ["b", "c"], what="one has come back")
    assert clients.responses[""] == 0
    rows = place.rows()
    assert rows["a"]["suspect_since"] is None
    assert abs(rows["b"]["suspect_since"] - time.time()) < 30
    eventually(lambda: place.edge.ready()["replica"]["suspects"] == {"count": 2, "ids": ["b", "c"]}, what="it is said")


def test_a_burst_of_expired_leases_is_one_line_however_it_is_spread(clean, pop):
    leases = [clean.grant(600) for _ in range(101)]
    for number, lease in enumerate(leases):
        clean.put_backend(f"b{number:03}", 1001, lease=lease)
    place = pop("gru", clean.endpoints)
    place.start_replicator()
    eventually(lambda: len(place.rows()) == 101, what="the snapshot")
    for group in (leases[:60], leases[60:80], leases[80:100]):  # etcd ends leases in groups, with pauses between them
        for lease in group:
            clean.call("/v3/lease/revoke", {"ID": lease})
        gevent.sleep(1.2)
    eventually(lambda: place.status()["suspect_count"] == 100, what="all are doubted")
    (line,) = eventually(lambda: place.events("100 leases expired together"), what="one line for all")
    assert line["event"].endswith(", b019 and 80 more")
    assert [one["event"] for one in place.log() if " expired" in one["event"]] == [line["event"]]


def test_a_single_suspect_is_said_in_the_singular(clean, pop):
    lease = clean.grant(600)
    clean.put_backend("a", 1001, lease=lease)
    place = pop("gru", clean.endpoints)
    place.start_replicator()
    eventually(place.rows, what="the snapshot")
    assert eventually(lambda: place.event("replica: snapshot"), what="its line")["event"].endswith(", 1 record")
    clean.call("/v3/lease/revoke", {"ID": lease})
    eventually(lambda: place.event("1 lease expired; its backend is kept for now: a"), what="the line")


# Where nothing must get lost


@pytest.mark.parametrize("is_etcd_there", [True, False])
def test_a_lost_routing_database_is_rewritten_and_no_connection_is_refused(own, pop, origin, is_etcd_there):
    for name in "ab":
        own.put_backend(name, origin(named(name)))
    place = pop("gru", own.endpoints).start()
    eventually(lambda: place.edge.ready()["candidates"] == 2, what="both serve")
    if not is_etcd_there:
        own.nodes[0].freeze()
    with load(place.edge) as clients:
        for path in place.folder.glob("routing.db*"):
            path.unlink()
        eventually(lambda: place.event("replica: rewritten"), what="it is missed")
        eventually(lambda: len(place.rows()) == 2, what="it is there again")
        reloads = place.edge.metrics()['edgeproxy_routing_reloads_total{result="ok"}']
        if not is_etcd_there:
            own.nodes[0].thaw()
        own.put_backend("c", origin(named("c")))
        eventually(lambda: place.edge.ready()["candidates"] == 3, 20, "the edge follows the new one")
        assert place.edge.metrics()['edgeproxy_routing_reloads_total{result="ok"}'] > reloads
    assert clients.responses[""] == 0
    assert not list(place.folder.glob(".routing.db.new*"))


def test_an_etcd_that_has_nothing_empties_no_table(clean, pop, origin):
    place = pop("gru", clean.endpoints)
    write_backends(place.database, [row("a", origin(named("a"))), row("b", origin(named("b")))])
    place.start()
    eventually(lambda: place.edge.ready()["replica"].get("is_held"), what="the edge says that it is held")
    assert who(place.edge) in {"a", "b"}
    assert place.event("replica: etcd has no backends; keeping the present 2 until it has some")
    clean.put_backend("a", origin(named("c")))
    eventually(lambda: place.status()["suspects"] == ["b"], what="etcd's word counts, slowly")
    assert sorted(place.rows()) == ["a", "b"]


def test_backends_removed_from_the_same_etcd_are_removed_even_if_all_are(clean, pop):
    for name in "ab":
        clean.put_backend(name, 1001)
    place = pop("gru", clean.endpoints)
    place.start_replicator()
    eventually(lambda: len(place.rows()) == 2, what="the snapshot")
    assert place.stop_replicator() == 0
    clean.delete_all()
    clean.put("/other", "")
    clean.compact()
    place.start_replicator()
    eventually(lambda: place.status()["suspects"] == ["a", "b"], what="it goes slowly, not never")
    assert not place.status()["is_held"]


def test_in_quiet_times_the_routing_database_is_left_alone(clean, pop):
    clean.put_backend("a", 1001)
    place = pop("gru", clean.endpoints)
    place.start_replicator()
    eventually(place.rows, what="the snapshot")
    before = {path.name: path.stat().st_mtime_ns for path in place.folder.glob("routing.db*")}
    contacts = set()
    eventually(lambda: contacts.add(place.status()["contact_at"]) or len(contacts) > 2, 15, "heartbeats")
    after = {path.name: path.stat().st_mtime_ns for path in place.folder.glob("routing.db*")}
    assert {name for name in after if after[name] != before.get(name)} == {"routing.db.replica"}


def test_people_do_not_write_to_a_replica_until_it_is_none_any_more(clean, pop):
    clean.put_backend("a", 1001)
    place = pop("gru", clean.endpoints)
    place.start_replicator()
    eventually(place.rows, what="the snapshot")
    refused = backends(place.database, "drain", "a")
    assert refused.returncode == 2
    assert "is a replica of etcd: change backends through the admin API" in refused.stderr
    place.stop_replicator()
    with sqlite3.connect(place.database) as database:  # as the documentation says
        database.execute("DROP TABLE replica_position")
    database.close()
    assert backends(place.database, "drain", "a").returncode == 0


# Who we are


def test_with_a_user_and_a_password(pop, tmp_path):
    password = tmp_path / "password"
    password.write_text("secret\n")
    with guarded_etcd() as etcd:
        etcd.put_backend("a", 1001)
        place = pop("gru", etcd.endpoints, ETCD_USER="pop", ETCD_PASSWORD_FILE=password)
        place.start_replicator()
        eventually(place.rows, what="the snapshot")
        etcd.put_backend("b", 1002)
        eventually(lambda: len(place.rows()) == 2, what="an event")


def test_a_wrong_password_is_logged_at_once_and_only_once(pop, tmp_path):
    password = tmp_path / "password"
    password.write_text("guess")
    with guarded_etcd() as etcd:
        place = pop("gru", etcd.endpoints, ETCD_USER="pop", ETCD_PASSWORD_FILE=password)
        place.start_replicator()
        eventually(lambda: place.event("replica: no contact"), 15, "it goes on trying")
        (line,) = [
            line
            for line in place.log()
            if "authentication failed" in line["event"] and "no contact" not in line["event"]
        ]
        assert line["level"] == "ERROR"
        assert "guess" not in place.errors.read_text()


def test_a_read_only_user_gets_an_error_that_names_the_heartbeat(pop, tmp_path):
    (tmp_path / "password").write_text("secret")
    with guarded_etcd() as guarded:
        guarded.add_user("reader", "secret", "/edgeproxy/", "READ")
        place = pop("gru", guarded.endpoints, ETCD_USER="reader", ETCD_PASSWORD_FILE=tmp_path / "password")
        place.start_replicator()
        line = eventually(lambda: place.event("replica: no contact"), 15, "without a heartbeat there is no contact")
        assert "the heartbeat cannot be written" in line["event"]
        assert "permission denied" in line["event"]


def test_with_tls_and_a_certificate(pop, tmp_path):
    cert, key = make_certificate(tmp_path)
    with etcd_with_tls(cert, key) as etcd:
        etcd.put_backend("a", 1001)
        place = pop("gru", etcd.endpoints, ETCD_TLS_CA=cert, ETCD_TLS_CERT=cert, ETCD_TLS_KEY=key)
        place.start_replicator()
        eventually(place.rows, what="the snapshot")


@pytest.mark.parametrize("name", ["ETCD_PASSWORD_FILE", "ETCD_TLS_CA", "ETCD_TLS_CERT"])
def test_files_that_are_not_there_stop_the_start(name, tmp_path):
    (tmp_path / "password").write_text("secret")
    beside = {"ETCD_USER": "pop", "ETCD_PASSWORD_FILE": str(tmp_path / "password"), "DB_PATH": str(tmp_path / "r.db")}
    done = edgeproxy("replicate", ETCD_ENDPOINTS="https://127.0.0.1:1", **(beside | {name: "missing"}))
    assert done.returncode == 2
    assert f"replicate: EDGEPROXY_{name}='missing': [Errno 2] No such file or directory" in done.stderr


@pytest.mark.parametrize("name", ["ETCD_PASSWORD_FILE", "ETCD_TLS_CA", "ETCD_TLS_KEY"])
def test_a_fifo_in_place_of_a_file_stops_the_start(name, tmp_path):
    for file in ("password", "cert"):
        (tmp_path / file).write_text("secret")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    beside = {"ETCD_USER": "pop", "ETCD_PASSWORD_FILE": str(tmp_path / "password"), "DB_PATH": str(tmp_path / "r.db")}
    beside |= {"ETCD_TLS_CERT": str(tmp_path / "cert"), name: str(fifo)}
    done = edgeproxy("replicate", ETCD_ENDPOINTS="https://127.0.0.1:1", **beside)
    assert done.returncode == 2
    assert f"replicate: EDGEPROXY_{name}='{fifo}': is not a regular file" in done.stderr


def test_a_port_that_is_taken_stops_the_start(origin, tmp_path):
    port = origin(named("somebody"))
    database, address = str(tmp_path / "routing.db"), f"127.0.0.1:{port}"
    done = edgeproxy("replicate", ETCD_ENDPOINTS="http://127.0.0.1:1", REPLICATOR_LISTEN_ADDR=address, DB_PATH=database)
    assert (done.returncode, done.stderr) == (
        2,
        f"replicate: EDGEPROXY_REPLICATOR_LISTEN_ADDR: cannot listen on 127.0.0.1:{port} (admin): "
        "Address already in use\n",
    )


def test_a_second_replicator_of_the_same_database_says_who_has_it(clean, pop):
    place = pop("gru", clean.endpoints)
    place.start_replicator()
    eventually(lambda: place.event("replicating"), what="the first one has started")
    (other,) = free_ports(1)
    link = place.database.with_name("link.db")
    link.symlink_to(place.database)
    holder = f"the replicator with process id {place.replicator.pid}, which listens on 127.0.0.1:{place.port}"
    for database in (place.database, link):
        second = {"REPLICATOR_LISTEN_ADDR": f"127.0.0.1:{other}", "DB_PATH": str(database)}
        done = edgeproxy("replicate", **(place.variables | second))
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == f"replicate: {database} is replicated already, by {holder}"
    place.stop_replicator(signal.SIGKILL)
    place.start_replicator()
    eventually(lambda: len(place.events("replicating")) == 2, what="the lock ended with its holder")


# The disk


def test_a_junk_database_is_logged_and_rewritten_once_it_is_removed(clean, pop):
    clean.put_backend("a", 1001)
    place = pop("gru", clean.endpoints)
    place.folder.mkdir(exist_ok=True)
    place.database.write_bytes(b"junk" * 1000)
    place.start_replicator()
    line = eventually(lambda: place.event(f"replica: {place.database}: "), what="it is said")
    assert "file is not a database" in line["event"]
    place.database.unlink()
    eventually(place.rows, what="it is made")
