"""A call never raises for what a handler does: it returns its response, or a 500 or 504 that the log explains."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from loguru import logger
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from app.domain.endpoints import Endpoint
from app.domain.errors import Killed
from app.domain.handler_table import Grant, Version
from app.domain.outcome import State
from app.domain.service_errors import NoSuchService
from app.gateway import description
from app.gateway.call import BodyFailed, Called, call_handler
from app.gateway.context import Context, NoServices
from app.gateway.handler_module import load_handler
from app.gateway.workers import Worker
from tests.harness import eventually


class CannedServices:
    """Returns what was requested."""

    def get(self, kind: str, name: str) -> Any:
        return f"{kind}:{name}"


@pytest.fixture
def records() -> Iterator[list[Any]]:
    """The records logged during the test."""
    found: list[Any] = []
    sink = logger.add(lambda message: found.append(message.record), level="DEBUG", format="{message}")
    yield found
    logger.remove(sink)


def worker() -> Worker:
    return Worker(lambda: None)


def call(
    handler: Any, *, timeout_seconds: float = 5.0, params: Any = (), services: Any = None, **request: Any
) -> Called:
    """Call a handler, given as a function or as the body of one."""
    if isinstance(handler, str):
        body = "".join(f"    {line}\n" for line in handler.splitlines())
        handler = load_handler("thing v4", f"from app.gateway.sdk import *\n\ndef handle(request, context):\n{body}")
    endpoint = Endpoint("thing", "thing", "/thing", timeout_seconds=timeout_seconds)
    grant = Grant(1, endpoint, dict(params), Version(4, "sum", 0.0), handler)
    context = Context("req-1", "thing", 4, grant.params, services or NoServices())
    return call_handler(
        worker(), grant, Request(EnvironBuilder(**{"path": "/thing", **request}).get_environ()), context
    )


def assert_fault(called: Called, status: int, reason: str) -> None:
    assert called.reason == reason
    assert called.response.status == status
    assert isinstance(called.response.body, bytes)
    said = json.loads(called.response.body)
    assert (said["status"], said["reason"], said["request_id"]) == (status, reason, "req-1")


def test_a_handler_sees_the_request_and_the_context():
    called = call(
        "return {'method': request.method, 'q': request.args['q'], 'got': request.get_json(), 'id': context.request_id,"
        " 'params': context.params, 'who': [context.endpoint_id, context.version]}",
        method="POST",
        query_string="q=1",
        json={"a": 1},
        params={"n": 7},
    )
    assert called.reason is None
    assert json.loads(called.response.body) == {
        "method": "POST", "q": "1", "got": {"a": 1}, "id": "req-1", "params": {"n": 7}, "who": ["thing", 4],
    }  # fmt: skip


def test_services_are_found_by_kind_and_name():
    called = call(
        "return [context.db('a'), context.cache('b'), context.storage('c'), context.email('d'), context.db()]",
        services=CannedServices(),
    )
    assert json.loads(called.response.body) == [
        "database:a", "cache:b", "storage:c", "email:d", "database:main",
    ]  # fmt: skip


def test_a_missing_service_is_named():
    with pytest.raises(NoSuchService, match="there is no service sessions"):
        NoServices().get("cache", "sessions")


def test_what_a_handler_logs_carries_endpoint_version_and_request(records):
    call("context.logger.info('seen {}', 1)\ncontext.logger.warning('again')")
    assert [(one["message"], one["level"].name, one["extra"]) for one in records] == [
        (text, level, {"endpoint": "thing", "version": 4, "request_id": "req-1"})
        for text, level in (("seen 1", "INFO"), ("again", "WARNING"))
    ]


def test_an_exception_is_a_500_and_a_traceback_in_the_log(records):
    called = call("value = {}\nreturn value['missing']")
    assert_fault(called, 500, "handler_failed")
    [record] = records
    traceback = record["extra"].pop("traceback")
    assert record["extra"] == {"endpoint": "thing", "version": 4, "request_id": "req-1", "reason": "handler_failed"}
    assert record["message"] == "endpoint thing: version 4 failed: KeyError: 'missing'"
    assert "return value['missing']" in traceback
    assert traceback.endswith("\nKeyError: 'missing'\n")
    assert b"missing" not in called.response.body, "the client is told nothing of the inside"


@pytest.mark.parametrize(
    "body",
    [
        "raise SystemExit(3)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "import gevent\nraise gevent.GreenletExit",
        "raise BaseException('of its own')",
        "return object()",
        "return 'a', 99",
        "def f(): return f()\nf()",
        "return {'a': f'{1/0}'}",
    ],
)
def test_any_failure_is_a_500(body, records):
    assert_fault(call(body), 500, "handler_failed")
    assert len(records) == 1


@pytest.mark.parametrize(
    ("raised", "status", "reason", "retry"),
    [
        ("ServiceBusy('main', 'full')", 503, "service_busy", "1"),
        ("ServiceDown('main', 'refused')", 503, "service_down", "1"),
        ("ServiceTimeout('main', 'late')", 504, "service_timeout", None),
        ("ServiceError('main', 'no such table')", 500, "handler_failed", None),
        ("NoSuchService('none')", 500, "handler_failed", None),
    ],
)
def test_an_uncaught_service_error_decides_the_response(raised, status, reason, retry, records):
    called = call(f"raise {raised}")
    assert_fault(called, status, reason)
    assert dict(called.response.headers).get("Retry-After") == retry
    assert len(records) == 1


def test_an_abort_is_a_response_and_not_a_failure(records):
    called = call("abort(404, 'nothing')")
    assert (called.response.status, called.reason) == (404, None)
    assert dict(called.response.headers) == {"Content-Type": "application/json"}
    said = {"status": 404, "error": "Not Found", "detail": "nothing", "request_id": "req-1"}
    assert json.loads(called.response.body) == said
    assert records == []


def test_an_abort_keeps_its_headers():
    called = call("from werkzeug.exceptions import MethodNotAllowed\nraise MethodNotAllowed(['GET'])")
    assert dict(called.response.headers)["Allow"] == "GET"
    assert json.loads(called.response.body)["status"] == 405


def test_a_response_or_body_of_its_own_stays_as_it_is():
    assert call("abort(404, response=Response('my page', 404))").response.body == b"my page"
    own = "class Mine(werkzeug.exceptions.NotFound):\n    def get_body(self, *_):\n        return 'mine'\nraise Mine()"
    assert call(f"import werkzeug.exceptions\n{own}").response.body == b"mine"
    moved = call("from werkzeug.routing import RequestRedirect\nraise RequestRedirect('/there')")
    assert (moved.response.status, dict(moved.response.headers)["Location"]) == (308, "/there")


def test_an_abort_that_cannot_be_written_is_a_failure(records):
    assert_fault(call("abort(404, response=Response('x', 999))"), 500, "handler_failed")


def test_a_stream_in_an_abort_is_watched_too(records):
    called = call("abort(Response((1 / n for n in range(1)), 503))")
    assert called.response.status == 503
    with pytest.raises(BodyFailed):
        list(called.response.body)
    assert len(records) == 1


def test_a_body_that_is_not_json_is_the_clients_fault():
    assert call("return request.json", method="POST", data="{", content_type="application/json").response.status == 400


def test_a_handler_that_takes_too_long_gives_a_504(records):
    called = call("import time\ntime.sleep(60)", timeout_seconds=0.05)
    assert_fault(called, 504, "handler_timeout")
    [record] = records
    assert record["message"].startswith("endpoint thing: version 4 took longer than 0.05 s:\n")
    assert "time.sleep(60)" in record["message"], "where it hung"


def test_a_handler_that_catches_exceptions_does_not_catch_its_timeout():
    assert_fault(
        call("import time\ntry:\n    time.sleep(60)\nexcept Exception:\n    return 'caught'", timeout_seconds=0.05),
        504,
        "handler_timeout",
    )


def test_a_timeout_of_the_handler_itself_is_its_failure():
    assert_fault(call("import socket\nraise socket.timeout('own')"), 500, "handler_failed")
    own = "import gevent\nwith gevent.Timeout(0.01):\n    gevent.sleep(60)"
    assert_fault(call(own), 500, "handler_failed")
    called = call("import gevent\ndef parts():\n    yield 'a'\n    raise gevent.Timeout(1)\nreturn parts()")
    with pytest.raises(BodyFailed):
        list(called.response.body)


@pytest.mark.parametrize(("nap", "status"), [(0.1, 200), (0.3, 200), (5, 504)])
def test_one_that_waits_while_another_holds_the_loop_gets_its_response_if_it_is_ready_by_then(nap, status):
    """Its limit passes meanwhile. What it waits for comes first when the loop runs again: before gevent's timeout."""

    def hold() -> None:
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            pass

    other = gevent.spawn_later(0.02, hold)
    assert call(f"import time\ntime.sleep({nap})\nreturn 'nap'", timeout_seconds=0.2).response.status == status
    assert other.ready()


def test_no_timer_is_left_behind():
    call("return 'quick'", timeout_seconds=0.01)
    gevent.sleep(0.05)


def thrown_into(handler: Callable[[Any, Any], Any], error: BaseException) -> BaseException:
    """Throw into a greenlet that waits in its handler. Returns what the call raises."""
    seen = SimpleNamespace(out=None, waits=False)

    def waiting(_request: Any, _context: Any) -> Any:
        seen.waits = True
        return handler(_request, _context)

    def run() -> None:
        try:
            call(waiting)
        except BaseException as out:
            seen.out = out

    greenlet = gevent.spawn(run)
    eventually(lambda: seen.waits)
    greenlet.kill(error)
    return seen.out  # type: ignore[no-any-return]


def test_an_exception_thrown_in_from_outside_propagates():
    error = Killed(State.KILLED, "drain")
    assert thrown_into(lambda _request, _context: gevent.sleep(60), error) is error


@pytest.mark.parametrize("error", ["Killed", "DownstreamError", "ConnectionEnded", "BackwardsError"])
def test_an_exception_of_the_edges_own_is_a_failure_if_the_handler_raises_it(error, records):
    source = "import app.domain.errors as errors\nfrom app.domain.outcome import State\n"
    source += f"class BackwardsError(errors.Killed): pass\nerrors.BackwardsError = BackwardsError\nE = errors.{error}\n"
    called = call(f"{source}raise E(State.KILLED, 'drain')")
    assert_fault(called, 500, "handler_failed")
    called = call(f"{source}yield 'a'\nraise E(State.KILLED, 'drain')")
    with pytest.raises(BodyFailed):
        list(called.response.body)
    called = call(
        f"{source}made = Response('x')\ndef close(): raise E(State.KILLED, 'drain')\n"
        "made.call_on_close(close)\nreturn made"
    )
    assert called.response.on_close is not None
    called.response.on_close()
    assert len(records) == 3


def test_a_streamed_body_that_fails_is_logged_and_truncated(records):
    called = call("def parts():\n    yield 'a'\n    1 / 0\nreturn parts()")
    assert called.reason is None
    parts = iter(called.response.body)
    assert next(parts) == b"a"  # type: ignore[comparison-overlap]
    with pytest.raises(BodyFailed):
        next(parts)
    [record] = records
    assert record["message"] == "endpoint thing: version 4 failed: ZeroDivisionError: division by zero"


@pytest.mark.parametrize("error", ["GeneratorExit", "__import__('gevent').GreenletExit", "SystemExit"])
def test_any_exception_of_a_streamed_body_is_its_failure(error, records):
    parts = iter(call(f"yield 'a'\nraise {error}").response.body)
    assert next(parts) == b"a"  # type: ignore[comparison-overlap]
    with pytest.raises(BodyFailed):
        next(parts)
    assert len(records) == 1


def test_an_abandoned_streamed_body_is_closed():
    closed: list[str] = []

    def handler(_request: Any, _context: Any) -> Any:
        def parts() -> Iterator[str]:
            try:
                while True:
                    yield "a"
            finally:
                closed.append("closed")

        return parts()

    response = call(handler).response
    assert next(iter(response.body)) == b"a"  # type: ignore[comparison-overlap]
    assert not isinstance(response.body, bytes)
    response.body.close()  # type: ignore[attr-defined]
    assert response.on_close is not None
    response.on_close()
    assert closed == ["closed"]


def test_an_exception_without_a_working_str_is_logged_too(records):
    called = call(
        "class Mute(Exception):\n    def __str__(self):\n        return 1 / 0\n    __repr__ = __str__\nraise Mute"
    )
    assert_fault(called, 500, "handler_failed")
    assert "Mute" in records[0]["message"]


SLOW = "class Slow(Exception):\n    def __str__(self):\n        import time\n        time.sleep(60)\n"


def test_an_exception_whose_description_takes_for_ever_is_logged_by_its_class(records, monkeypatch):
    monkeypatch.setattr(description, "DESCRIBE_SECONDS", 0.05)
    assert_fault(call(f"{SLOW}raise Slow"), 500, "handler_failed")
    with pytest.raises(BodyFailed):
        list(call(f"{SLOW}yield 'a'\nraise Slow").response.body)
    for record in records:
        assert record["message"] == "endpoint thing: version 4 failed: Slow"
        assert "raise Slow" in record["extra"]["traceback"]
    assert len(records) == 2


def test_an_exception_that_describes_itself_by_raising_is_logged_too(records):
    assert_fault(
        call("class Odd(Exception):\n    def __str__(self):\n        raise SystemExit\nraise Odd"),
        500,
        "handler_failed",
    )
    assert "Odd" in records[0]["message"]


@pytest.mark.parametrize("wait", ["time.sleep(60)", "\n  try: time.sleep(60)\n  except BaseException: pass"])
def test_a_response_whose_close_takes_for_ever_is_left_behind(wait, records):
    made = f"import time\nmade = Response('x')\ndef close(): {wait}\nmade.call_on_close(close)\nreturn made"
    called = call(made, timeout_seconds=0.05)
    assert (called.reason, called.response.body) == (None, b"x")
    assert called.response.on_close is not None
    called.response.on_close()
    [record] = records
    assert record["message"].startswith("endpoint thing: version 4 took longer than 0.05 s:\n")
    assert "time.sleep(60)" in record["message"]


@pytest.mark.parametrize("error", ["ValueError('closing')", "SystemExit", "BaseException"])
def test_a_response_whose_close_fails_was_sent_nevertheless(records, error):
    called = call(f"made = Response('x')\ndef close():\n    raise {error}\nmade.call_on_close(close)\nreturn made")
    assert called.reason is None
    assert called.response.on_close is not None
    called.response.on_close()
    assert records[0]["message"].removeprefix("endpoint thing: version 4 failed: ").split(":")[0] in error
