"""Changes that etcd refuses because it is full, has users, or holds what forbids them: which to try again."""

from __future__ import annotations

import json
import time

import pytest

from tests.commands import command
from tests.harness import eventually
from tests.integration.etcd_servers import etcd_running, guarded_etcd, pops

BACKEND = {"wg_ip": "127.0.0.1", "port": 1001}
SERVICE = {"host": "127.0.0.1", "port": 1001, "ttl_seconds": 60}


@pytest.fixture
def pop(tmp_path):
    with pops(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def guarded():
    with guarded_etcd() as one:
        yield one


def first_error(place):
    return eventually(
        lambda: next((line for line in place.log() if line.get("level") == "ERROR"), None), 15, "an error"
    )


def test_a_full_etcd_is_507_at_once_and_the_log_names_the_alarm_first(pop):
    with etcd_running() as etcd:
        etcd.put_backend("a", 1001)
        place = pop("gru", etcd.endpoints).start()
        eventually(place.rows, what="the snapshot")
        etcd.raise_alarm("NOSPACE")
        for path, body in (("/api/backends/b", BACKEND), ("/api/registrations/c", SERVICE)):
            began = time.monotonic()
            refused = place.admin.call("PUT", path, body)
            assert time.monotonic() - began < 2
            assert (refused.status, refused.headers.get("retry-after")) == (507, None), refused
            assert "alarm NOSPACE" in refused.problem["detail"]
            assert refused.problem["detail"].endswith(": nothing was changed")
        assert "alarm NOSPACE" in first_error(place)["event"]
        assert place.admin.call("DELETE", "/api/backends/a").status == 204, "what makes room works"
        etcd.disarm("NOSPACE")
        assert place.admin.call("PUT", "/api/backends/b", BACKEND).status == 200


def test_a_load_that_fails_in_the_middle_says_how_far_it_came(pop):
    with etcd_running() as etcd:
        place = pop("gru", etcd.endpoints).start()
        etcd.put_backend("b150", 1001, schema=2)
        rows = [{"id": f"b{number:03}", **BACKEND} for number in range(250)]
        url, token = "http://{}:{}".format(*place.admin.address), place.folder / "admin.token"
        done = command("backends", "--api", url, "--token-file", token, "load", "-", stdin=json.dumps(rows))
        assert done.returncode == 1
        assert "b150 has schema 2, newer than 1" in done.stderr
        assert "100 of 250 backends were changed before (409)" in done.stderr


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [
        (None, None, "user name is empty: it has users, so EDGEPROXY_ETCD_USER and"),
        ("pop", "guess", "authentication failed, invalid user ID or password: check EDGEPROXY_ETCD_USER and"),
        ("reader", "secret", "permission denied: the role of EDGEPROXY_ETCD_USER must allow to read and write"),
    ],
)
def test_users_that_etcd_refuses_are_500_and_the_log_names_the_variable(guarded, pop, tmp_path, user, password, said):
    if user == "reader":
        guarded.add_user("reader", "secret", "/edgeproxy/", "READ")
    variables = {}
    if user is not None:
        (tmp_path / "password").write_text(password)
        variables = {"ETCD_USER": user, "ETCD_PASSWORD_FILE": tmp_path / "password"}
    place = pop("gru", guarded.endpoints, **variables)
    place.start_replicator()
    place.start_edge()
    assert said in first_error(place)["event"]
    refused = place.admin.call("PUT", "/api/backends/b", BACKEND)
    assert (refused.status, refused.headers.get("retry-after")) == (500, None), refused
    assert said in refused.problem["detail"]
    assert refused.problem["detail"].endswith(": nothing was changed")
