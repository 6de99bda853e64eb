"""The use case deploy, on a real file and a supervised actor: what fails on the way leaves the old version serving."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from loguru import logger

from actors.handlers import HandlersActor
from actors.runtime import Address, AskTimeoutError
from actors.supervisor import Supervisor
from app.domain.endpoints import Endpoint, EndpointConflict
from app.domain.handler_table import Grant, HandlerTable, NoEndpoint, NotDeployed
from app.domain.stored import StoreError
from app.gateway import deployment as deploying
from app.gateway import handler_module, workers
from app.gateway.deployment import AlreadyExists, Deployment, NotFound
from app.gateway.dispatch import Dispatch
from app.gateway.handler_module import MAX_SOURCE_BYTES, HandlerError, Stage
from app.gateway.router import Router
from app.outbound.peewee_gateway import SqliteGatewayStore
from app.outbound.worker_thread import WorkerThread
from tests.harness import eventually

HELLO = Endpoint("hello", "hello", "/hello")


def answering(word: str, head: str = "") -> str:
    return f"{head}\ndef handle(request, context):\n    return {word!r}\n"


class Gateway:
    """A deployment on a file, with an actor of its own; a second one on the same file is a restart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = Address("handlers")
        table = HandlerTable(Router())
        self.supervisor = Supervisor(lambda _name: None)
        self.supervisor.supervise(self.address, lambda: HandlersActor.start(table))
        worker = WorkerThread()
        self.run, self.store = worker.run, worker.run(SqliteGatewayStore, path)
        self.deployment = Deployment(self.store, worker.run, self.address)
        self.dispatch = Dispatch(self.address)
        self.deployment.restore()

    def acquire(self, path: str = "/hello") -> Any:
        return self.dispatch.acquire("h", path, "GET")

    def response(self, path: str = "/hello") -> str:
        """Return what a request is answered."""
        grant = self.acquire(path)
        assert isinstance(grant, Grant), grant
        try:
            return str(grant.handler(None, None))
        finally:
            self.dispatch.release(grant.grant_id, failed=False)

    def on_disk(self) -> dict[str, int | None]:
        """Return what is to serve, by endpoint."""
        return {endpoint.id: number for endpoint, number in self.run(self.store.endpoints)}

    def close(self) -> None:
        self.supervisor.stop()
        self.run(self.store.close)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path / "gateway.db")
    yield made
    made.close()


@pytest.fixture
def served(gateway: Gateway) -> Gateway:
    """One endpoint whose version 1 answers `one`."""
    gateway.deployment.create(HELLO)
    gateway.deployment.deploy_source("hello", answering("one"))
    return gateway


def test_from_nothing_to_a_response(gateway):
    assert gateway.acquire() == NoEndpoint()
    gateway.deployment.create(HELLO)
    assert gateway.acquire() == NotDeployed("hello")
    version = gateway.deployment.deploy_source("hello", answering("one"))
    assert (version.number, version.deployed_at is not None) == (1, True)
    assert gateway.response() == "one"
    [view] = gateway.deployment.endpoints()
    assert view.serving is not None
    assert (view.serving.version.number, view.serving.version.checksum) == (1, version.checksum)
    assert view.served == 1


def test_the_next_version_replaces_it_and_is_kept(served):
    served.deployment.deploy_source("hello", answering("two"))
    assert served.response() == "two"
    assert [one.number for one in served.deployment.versions("hello")] == [1, 2]
    assert served.deployment.version("hello", 1).source == answering("one")


@pytest.mark.parametrize(
    ("source", "stage", "text"),
    [
        ("def handle(:\n", Stage.COMPILE, "line 1"),
        (answering("x", "import no_such_thing"), Stage.COMPILE, "no_such_thing"),
        (answering("x", "1 / 0"), Stage.IMPORT, "ZeroDivisionError"),
        ("x = 1\n", Stage.ENTRY_POINT, "def handle(request, context)"),
        ("# \ud800", Stage.COMPILE, "not Unicode text"),
        ("#" * (MAX_SOURCE_BYTES + 1), Stage.COMPILE, "longer than"),
    ],
)
def test_a_source_that_fails_leaves_the_old_version_serving(served, source, stage, text):
    with pytest.raises(HandlerError) as caught:
        served.deployment.deploy_source("hello", source)
    assert caught.value.stage is stage
    assert text in caught.value.traceback
    assert (served.response(), served.on_disk()) == ("one", {"hello": 1})


def test_upload_then_compile_then_deploy(served):
    good = served.deployment.upload("hello", answering("two"))
    bad = served.deployment.upload("hello", "1 / 0")
    assert served.deployment.compile("hello", good.number) == good
    with pytest.raises(HandlerError, match="import: ZeroDivisionError"):
        served.deployment.compile("hello", bad.number)
    assert served.response() == "one"
    assert served.deployment.deploy("hello", good.number).number == 2
    assert served.response() == "two"


def test_rolling_back_goes_to_the_version_that_was_deployed_before(served):
    served.deployment.deploy_source("hello", answering("two"))
    served.deployment.upload("hello", answering("never deployed"))
    assert served.deployment.roll_back("hello").number == 1
    assert served.response() == "one"
    assert served.on_disk() == {"hello": 1}


def test_each_roll_back_goes_one_further_back(served):
    for text in ("two", "three"):
        served.deployment.deploy_source("hello", answering(text))
    assert [served.deployment.roll_back("hello").number for _ in range(2)] == [2, 1]
    with pytest.raises(NotFound, match="no version was deployed before version 1"):
        served.deployment.roll_back("hello")
    assert served.response() == "one"


def test_a_roll_back_goes_to_what_served_before_whatever_its_number(served):
    for text in ("two", "three"):
        served.deployment.deploy_source("hello", answering(text))
    served.deployment.roll_back("hello")
    served.deployment.roll_back("hello")
    served.deployment.deploy_source("hello", answering("four"))
    assert served.deployment.roll_back("hello").number == 1
    served.deployment.deploy("hello", 3)
    served.deployment.deploy("hello", 3)
    served.deployment.deploy("hello", 1)
    assert [served.deployment.roll_back("hello").number for _ in range(2)] == [3, 1]


def test_a_roll_back_does_not_return_to_a_version_taken_out_of_service(served):
    served.deployment.deploy_source("hello", answering("two"))
    served.deployment.take_out("hello", 2)
    assert served.on_disk() == {"hello": None}
    assert served.deployment.roll_back("hello").number == 1


def test_a_failed_roll_back_changes_nothing(served):
    served.deployment.deploy_source("hello", answering("two"))
    served.deployment.upload("hello", "1 / 0")
    with pytest.raises(HandlerError):
        served.deployment.deploy("hello", 3)
    assert (served.response(), served.on_disk()) == ("two", {"hello": 2})
    assert served.deployment.roll_back("hello").number == 1


def test_rolling_back_after_undeploying_brings_the_last_one_back(served):
    served.deployment.undeploy("hello")
    assert served.deployment.roll_back("hello").number == 1
    assert served.response() == "one"


def test_there_is_nothing_to_roll_back_to(served):
    with pytest.raises(NotFound, match="no version was deployed before version 1"):
        served.deployment.roll_back("hello")
    assert served.response() == "one"


def test_undeploying_lets_requests_end(served):
    grant = served.acquire()
    served.deployment.undeploy("hello")
    assert served.acquire() == NotDeployed("hello")
    assert grant.handler(None, None) == "one"
    served.dispatch.release(grant.grant_id, failed=False)
    assert served.on_disk() == {"hello": None}


def test_what_was_deployed_is_deployed_after_a_restart(served):
    served.deployment.deploy_source("hello", answering("two"))
    served.deployment.create(replace(HELLO, id="empty", path="/empty"))
    before = served.deployment.endpoints()[1].serving.version
    served.close()
    again = Gateway(served.path)
    assert again.response() == "two"
    assert again.acquire("/empty") == NotDeployed("empty")
    assert again.deployment.endpoints()[1].serving.version == before
    again.close()


def test_a_version_that_cannot_be_loaded_any_more_is_logged_and_the_others_serve(served, logged):
    served.deployment.create(replace(HELLO, id="other", path="/other"))
    served.deployment.deploy_source("other", answering("other"))
    with sqlite3.connect(served.path) as database:
        database.execute("UPDATE versions SET source = 'import gone_since' WHERE endpoint_id = 'hello'")
    database.close()
    served.close()
    again = Gateway(served.path)
    assert again.acquire() == NotDeployed("hello")
    assert again.response("/other") == "other"
    assert any("endpoint hello: version 1 cannot be restored" in line and "gone_since" in line for line in logged)
    again.close()


def test_one_of_two_conflicting_endpoints_on_disk_is_skipped_and_reported(served, logged):
    with sqlite3.connect(served.path) as database:
        columns = "name, domain, path, methods, timeout_seconds, max_concurrency, max_body_bytes, is_enabled, deployed"
        rest = "last_number, created_at, updated_at"
        database.execute(f"INSERT INTO endpoints (id, {columns}, {rest}) SELECT 'zz', {columns}, {rest} FROM endpoints")
    database.close()
    served.close()
    again = Gateway(served.path)
    assert again.response() == "one"
    assert any("'zz' conflicts with 'hello'" in line for line in logged)
    again.deployment.remove("hello")
    assert again.acquire() == NotDeployed("zz")
    again.close()


def test_endpoints_change_while_they_serve(served):
    served.deployment.update(replace(HELLO, path="/moved"))
    assert served.acquire() == NoEndpoint()
    assert served.response("/moved") == "one"
    served.deployment.update(replace(HELLO, is_enabled=False))
    assert served.acquire() == NoEndpoint()


def test_an_endpoint_that_is_removed_takes_nothing_more(served):
    grant = served.acquire()
    served.deployment.remove("hello")
    assert served.acquire() == NoEndpoint()
    assert grant.handler(None, None) == "one"
    assert served.on_disk() == {}


def test_a_conflict_is_refused_when_it_is_created_and_nothing_has_changed(served):
    with pytest.raises(EndpointConflict, match="'other' conflicts with 'hello'"):
        served.deployment.create(replace(HELLO, id="other"))
    served.deployment.create(replace(HELLO, id="other", path="/other"))
    with pytest.raises(EndpointConflict):
        served.deployment.update(replace(HELLO, id="other"))
    assert served.on_disk() == {"hello": 1, "other": None}
    assert served.response() == "one"


def test_a_missing_endpoint_or_version_is_reported(served):
    with pytest.raises(AlreadyExists):
        served.deployment.create(replace(HELLO, path="/elsewhere"))
    for attempt in (
        lambda: served.deployment.update(replace(HELLO, id="nobody", path="/x")),
        lambda: served.deployment.remove("nobody"),
        lambda: served.deployment.versions("nobody"),
        lambda: served.deployment.version("hello", 9),
        lambda: served.deployment.upload("nobody", ""),
        lambda: served.deployment.compile("hello", 9),
        lambda: served.deployment.deploy("hello", 9),
        lambda: served.deployment.deploy_source("nobody", answering("x")),
        lambda: served.deployment.roll_back("nobody"),
        lambda: served.deployment.undeploy("nobody"),
    ):
        with pytest.raises(NotFound):
            attempt()


def test_a_store_that_cannot_be_written_leaves_the_old_version_serving(served, monkeypatch):
    uploaded = served.deployment.upload("hello", answering("two"))

    def full(*_arguments: object) -> bool:
        raise StoreError("disk full")

    monkeypatch.setattr(served.store, "set_deployed", full)
    with pytest.raises(StoreError):
        served.deployment.deploy("hello", uploaded.number)
    assert served.response() == "one"


def test_an_actor_that_does_not_reply_leaves_the_old_version_on_disk(served, monkeypatch):
    uploaded = served.deployment.upload("hello", answering("two"))
    monkeypatch.setattr(deploying, "ASK_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(served.deployment, "_handlers", Address("nobody"))
    with pytest.raises(AskTimeoutError):
        served.deployment.deploy("hello", uploaded.number)
    assert served.on_disk() == {"hello": 1}
    assert served.response() == "one"


def test_a_record_that_vanished_meanwhile_is_reported(served, monkeypatch):
    """Another process may write the file; here it seems to."""
    monkeypatch.setattr(served.store, "set_deployed", lambda *_arguments: False)
    with pytest.raises(NotFound, match="no longer has version 1"):
        served.deployment.deploy("hello", 1)
    monkeypatch.undo()
    served.run(served.store.create_endpoint, replace(HELLO, id="unknown", path="/unknown"))
    with pytest.raises(NotFound, match="no endpoint 'unknown'"):
        served.deployment.deploy_source("unknown", answering("x"))
    assert served.on_disk() == {"hello": 1, "unknown": None}


def test_deploying_what_serves_loads_it_afresh(served, monkeypatch):
    before = served.acquire().handler
    served.deployment.deploy("hello", 1)
    assert served.acquire().handler is not before
    monkeypatch.setattr(deploying, "ASK_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(served.deployment, "_handlers", Address("nobody"))
    with pytest.raises(AskTimeoutError):
        served.deployment.deploy("hello", 1)
    assert served.on_disk() == {"hello": 1}


def test_changes_queue(served):
    """A source that waits in its import does not let the next one overtake it, nor hold up requests."""
    slow = gevent.spawn(served.deployment.deploy_source, "hello", answering("slow", "import time\ntime.sleep(0.2)\n"))
    eventually(lambda: len(served.run(served.store.versions, "hello")) == 2)
    quick = gevent.spawn(served.deployment.deploy_source, "hello", answering("quick"))
    assert served.response() == "one"
    gevent.joinall([slow, quick], raise_error=True)
    assert [job.value.number for job in (slow, quick)] == [2, 3]
    assert served.response() == "quick"


STUBBORN = "import time\nwhile True:\n    try:\n        time.sleep(5)\n    except BaseException:\n        pass\n"


def test_a_source_that_waits_in_its_import_delays_no_other_endpoint(served):
    waiting = gevent.spawn(served.deployment.deploy_source, "hello", "import time\ntime.sleep(60)\n")
    eventually(lambda: len(served.run(served.store.versions, "hello")) == 2)
    served.deployment.create(replace(HELLO, id="other", path="/other"))
    served.deployment.deploy_source("other", answering("other"))
    assert served.response("/other") == "other"
    served.deployment.remove("other")
    assert not waiting.ready()
    waiting.kill()
    served.deployment.remove("hello")


def test_a_source_that_catches_everything_in_its_import_is_refused_in_time(served, monkeypatch):
    monkeypatch.setattr(handler_module, "IMPORT_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(workers, "_GRACE_SECONDS", 0.01)
    logged: list[str] = []
    sink = logger.add(lambda message: logged.append(str(message)), format="{message}")
    for source in (STUBBORN, f"{answering('late')}\n{STUBBORN.replace('while True', 'for _ in range(1)')}"):
        with pytest.raises(HandlerError, match=r"took longer than 0\.1 s"):
            served.deployment.deploy_source("hello", source)
    eventually(lambda: "handler hello v2: its import was abandoned and does not end\n" in logged)
    logger.remove(sink)
    assert served.response() == "one", "what is imported late is not put into service"
    assert served.on_disk() == {"hello": 1}
