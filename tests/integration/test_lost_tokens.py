"""Whoever has lost every token of the admin API makes a new one, and loses nothing else."""

from __future__ import annotations

import stat

import pytest

from tests.admin_client import Admin, admin_of, admin_variables
from tests.commands import command
from tests.harness import row

SOURCE = "def handle(request, context):\n    return 'hi'\n"


@pytest.fixture
def reset(tmp_path):
    """Lose every token, and run the command as on the machine of the edge."""

    def run():
        file = tmp_path / "admin.token"
        file.unlink()
        paths = {"GATEWAY_DB_PATH": str(tmp_path / "gateway.db"), "ADMIN_TOKEN_FILE": str(file)}
        done = command("tokens", "reset", **paths)
        assert (done.returncode, done.stderr) == (0, "")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().strip() not in done.stdout
        return done.stdout

    return run


def fill(admin: Admin, folder) -> None:
    """Create an endpoint with two versions, and a service."""
    assert admin.call("POST", "/api/endpoints", {"id": "hi", "path": "/hi"}).status == 201
    for number in (1, 2):
        assert admin.call("POST", "/api/endpoints/hi/deploy", {"source": SOURCE}).json["number"] == number
    service = {"kind": "database", "settings": {"engine": "sqlite", "path": str(folder / "a.db")}}
    assert admin.call("POST", "/api/services", {"name": "main", **service}).status == 201


def assert_filled(admin: Admin) -> None:
    assert [one["id"] for one in admin.get("/api/endpoints")["items"]] == ["hi"]
    assert [one["number"] for one in admin.get("/api/endpoints/hi/versions")["items"]] == [1, 2]
    assert [one["name"] for one in admin.get("/api/services")["items"]] == ["main"]


def test_a_running_edge_takes_the_new_token_without_a_restart_and_refuses_the_lost_ones(edge, tmp_path, reset):
    proxy = edge([row("a", 1)], **admin_variables(tmp_path))
    lost = admin_of(proxy, tmp_path)
    ci = lost.bearer("ci", "read")
    fill(lost, tmp_path)
    assert reset() == f"the new token is in {tmp_path / 'admin.token'}; former tokens removed: 2\n"
    admin = admin_of(proxy, tmp_path)
    assert_filled(admin)
    assert [one.call("GET", "/api/status").status for one in (lost, ci)] == [401, 401]
    assert proxy.stop() == 0
    again = admin_of(edge(**admin_variables(tmp_path)), tmp_path)
    assert again.token == admin.token
    assert_filled(again)


def test_it_is_taken_although_the_lost_tokens_were_tried_too_often(edge, tmp_path, reset):
    proxy = edge([row("a", 1)], **admin_variables(tmp_path))
    wrong = Admin(admin_of(proxy, tmp_path).address, "edge_forgotten")
    assert [wrong.call("GET", "/api/status").status for _ in range(12)][-1] == 429
    reset()
    assert admin_of(proxy, tmp_path).get("/api/status")


def test_an_edge_that_is_stopped_meanwhile_starts_with_the_new_token(edge, tmp_path, reset):
    proxy = edge([row("a", 1)], **admin_variables(tmp_path))
    lost = admin_of(proxy, tmp_path)
    fill(lost, tmp_path)
    assert proxy.stop() == 0
    reset()
    proxy = edge(**admin_variables(tmp_path))
    assert proxy.event("admin: the first token is in") is None
    admin = admin_of(proxy, tmp_path)
    assert admin.token != lost.token
    assert_filled(admin)
    assert Admin(admin.address, lost.token).call("GET", "/api/status").status == 401


def test_a_database_that_is_lost_too_changes_nothing_in_a_running_edge(edge, tmp_path):
    proxy = edge([row("a", 1)], **admin_variables(tmp_path))
    admin = admin_of(proxy, tmp_path)
    for path in tmp_path.glob("gateway.db*"):
        path.unlink()
    assert Admin(admin.address, "edge_wrong").call("GET", "/api/status").status == 401
    assert admin.get("/api/status")
    assert not (tmp_path / "gateway.db").exists()


@pytest.mark.parametrize("content", [None, b"no database " * 100])
def test_what_is_no_database_of_an_edge_is_left_alone(tmp_path, content):
    database, file = tmp_path / "gateway.db", tmp_path / "no" / "admin.token"
    if content is not None:
        database.write_bytes(content)
        file = tmp_path / "admin.token"
    done = command("tokens", "reset", "--db", database, ADMIN_TOKEN_FILE=str(file))
    assert (done.returncode, done.stdout) == (2 if content is None else 1, "")
    assert str(database) in done.stderr
    assert (database.read_bytes() if database.exists() else None) == content


def test_a_token_file_that_cannot_be_written_leaves_the_tokens(edge, tmp_path):
    proxy = edge([row("a", 1)], **admin_variables(tmp_path))
    admin = admin_of(proxy, tmp_path)
    done = command("tokens", "reset", "--db", tmp_path / "gateway.db", ADMIN_TOKEN_FILE=str(tmp_path / "no" / "file"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "the token cannot be written to" in done.stderr
    assert admin.get("/api/status")
