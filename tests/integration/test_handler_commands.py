"""The commands for handler authors: check a file, or run it on one request, without an edge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import command, edgeproxy

SOURCE = """
from app.gateway.sdk import Context, Request, Response, abort


def handle(request: Request, context: Context) -> object:
    if request.path == "/boom":
        raise ValueError("oh no")
    if request.path == "/gone":
        abort(410)
    if request.path == "/stream":
        return iter(["a", "b"])
    if request.path == "/half":
        return (1 / (2 - n) and "x" for n in range(3))
    if request.path == "/cache":
        context.cache("sessions")
    if request.method == "POST":
        return {"got": request.json, "params": context.params, "as": request.headers.get("X-As")}
    return Response("hello " + request.args.get("name", "you"), headers={"X-Host": request.host})
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hello.py"
    path.write_text(SOURCE)
    return path


def run(*arguments: object, stdin: str = ""):
    return command("handler", "run", *arguments, stdin=stdin)


def test_a_handler_file_is_run(file):
    done = edgeproxy("handler", "run", file, "GET", "/?name=me")
    assert (done.returncode, done.stdout) == (0, "hello me")
    assert done.stderr.splitlines() == ["200", "X-Host: localhost", "Content-Type: text/plain; charset=utf-8", ""]


def test_a_valid_file_passes_the_check(file):
    done = command("handler", "check", file)
    assert (done.returncode, done.stdout) == (0, f"{file}: valid\n")


@pytest.mark.parametrize("what", ["check", "run"])
@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def handle(:\n", "invalid syntax (line 1)"),
        ("import no_such_thing\n", "needs the module 'no_such_thing', which is not installed (line 1)"),
        ("x = 1\n", "must define `def handle(request, context)`"),
    ],
)
def test_an_invalid_file_is_reported_with_its_fault(file, what, source, text):
    file.write_text(source)
    done = command("handler", what, file, *(("GET", "/") if what == "run" else ()))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"handler: {file}: ")
    assert text in done.stderr


def test_a_file_that_is_not_text(file):
    file.write_bytes(b"\xff\xfe")
    assert command("handler", "check", file).returncode == 2


def test_the_request_may_be_json_and_the_path_have_parameters(file):
    request = {"method": "post", "path": "/users/7", "headers": {"X-As": "me"}, "json": {"a": 1}}
    done = run(file, "--request", "-", "--rule", "/users/<int:id>", stdin=json.dumps(request))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"got": {"a": 1}, "params": {"id": 7}, "as": "me"})
    request = {"method": "POST", "path": "/", "headers": {"Content-Type": "application/json"}, "body": "[2]"}
    assert json.loads(run(file, "--request", "-", stdin=json.dumps(request)).stdout)["got"] == [2]


def test_a_whole_url_names_the_host(file):
    assert "X-Host: example.com:81" in run(file, "GET", "http://example.com:81/x").stderr


def test_a_failure_is_shown_with_its_lines_and_exits_with_1(file):
    done = run(file, "GET", "/boom")
    assert done.returncode == 1
    assert json.loads(done.stdout)["reason"] == "handler_failed"
    assert 'raise ValueError("oh no")' in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_an_abort_is_a_response(file):
    done = run(file, "GET", "/gone")
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "410")


def test_streams(file):
    done = run(file, "GET", "/stream")
    assert (done.returncode, done.stdout) == (0, "ab")
    done = run(file, "GET", "/half")
    assert (done.returncode, done.stdout) == (1, "xx")
    assert "ZeroDivisionError" in done.stderr


def test_head_has_no_body(file):
    assert run(file, "HEAD", "/").stdout == ""


def test_there_are_no_services(file):
    done = run(file, "GET", "/cache")
    assert done.returncode == 1
    assert "there is no service sessions: no services are configured here" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "text"),
    [
        ((), "", "give either METHOD PATH or --request"),
        (("GET",), "", "give either METHOD PATH or --request"),
        (("GET", "/", "--request", "-"), "{}", "give either METHOD PATH or --request"),
        (("--request", "-"), "{", "the request is not JSON"),
        (("--request", "-"), "[]", "must be an object with keys of method, path"),
        (("--request", "-"), '{"verb": "GET"}', "must be an object with keys of method, path"),
        (("--request", "-"), '{"headers": []}', None),
        (("--request", "-"), '{"headers": ["a"]}', "headers an object"),
        (("--request", "-"), '{"path": 7}', "must be text"),
        (("--request", "-"), '{"body": 7}', "body must be text"),
        (("GET", "/", "--rule", "nowhere"), "", "path='nowhere': must start with /"),
        (("GET", "/a", "--rule", "/b"), "", "/a does not match /b"),
    ],
)
def test_invalid_requests_are_refused(file, arguments, stdin, text):
    done = run(file, *arguments, stdin=stdin)
    if text is None:
        assert done.returncode == 0
        return
    assert done.returncode == 2
    assert text in done.stderr
