"""What an edge tells systemd, which the test plays: that it is ready, reloads, drains, and is alive."""

from __future__ import annotations

import os
import signal
import time

import gevent
import pytest

from app.config import ConfigError
from app.outbound.systemd_notify import take_notifier
from tests.harness import eventually, freeze, frontend, pool, write_backends
from tests.integration.service_manager import ServiceManager, answer, place
from tests.traffic import ask, free_ports, who


def test_ready_is_said_once_clients_are_served(managed, manager):
    port, metrics_port = free_ports(2)
    served: list[object] = []
    manager.on_ready = lambda: served.append(answer(("127.0.0.1", port)))
    edge = managed(listen=f"127.0.0.1:{port}", METRICS_LISTEN_ADDR=f"127.0.0.1:{metrics_port}")
    eventually(lambda: served)
    assert served == ["a"]
    first = manager.heard[0].states
    assert first == {"READY": "1", "STATUS": "1 frontend, 1 candidate backend"}
    assert edge.stop() == 0
    assert manager.said("READY") == ["1"]


def test_a_start_that_fails_is_never_ready(managed, manager, listening):
    with pytest.raises(pytest.fail.Exception, match="ended with 2"):
        managed(listen=place(listening()))
    assert manager.heard == []


def test_the_status_follows_what_happens(managed, manager, routing_db):
    frontends = [frontend("web", "pool"), frontend("api", "pool")]
    edge = managed(config={"frontends": frontends, "backends": [{"name": "pool", "app": ""}]})
    manager.wait_for("STATUS", "2 frontends, 1 candidate backend")
    write_backends(routing_db, [])
    manager.wait_for("STATUS", "2 frontends, 0 candidate backends")
    edge.config_path.write_text("frontends: 7")
    manager.wait_for("STATUS", "2 frontends, 0 candidate backends; the configuration file was refused")


def test_a_reload_begins_with_reloading_and_ends_with_ready(managed, manager):
    config = {"frontends": [frontend("web", "pool")], "backends": [pool("pool", 9)]}
    edge = managed(config=config)
    manager.wait_for("READY", "1")
    before = time.monotonic()
    assert edge.reload({**config, "frontends": [frontend("renamed", "pool")]})["event"].startswith(
        "configuration reloaded"
    )
    manager.wait_for("READY", "1", times=2)
    (begun,) = [one for one in manager.heard if "RELOADING" in one.states]
    assert before <= int(begun.states["MONOTONIC_USEC"]) / 1e6 <= begun.at
    assert edge.reload({"frontends": []})["event"].startswith("configuration refused")
    manager.wait_for("READY", "1", times=3)
    assert manager.said("RELOADING") == ["1", "1"]


def test_sighup_without_a_file_to_read_ends_with_ready_too(managed, manager):
    edge = managed()
    manager.wait_for("READY", "1")
    edge.process.send_signal(signal.SIGHUP)
    manager.wait_for("READY", "1", times=2)
    assert manager.said("RELOADING") == ["1"]


def test_a_drain_says_stopping_and_asks_for_its_time_as_long_as_it_takes(managed, manager):
    edge = managed(DRAIN_TIMEOUT_SECS=600)
    with edge.connect() as staying:
        assert ask(staying) == "a"
        edge.process.send_signal(signal.SIGTERM)
        manager.wait_for("STATUS", "draining: 1 connection open")
        eventually(lambda: len(manager.said("EXTEND_TIMEOUT_USEC")) >= 3, what="more time is asked for")
        assert ask(staying) == "a"
    assert edge.wait() == 0
    assert manager.said("STOPPING") == ["1"]
    (stopping,) = [one.states for one in manager.heard if "STOPPING" in one.states]
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= 5_000_000
    assert manager.said("READY") == ["1"]


def test_an_abstract_address(tmp_path, managed):
    manager = ServiceManager(f"@edgeproxy-test-{os.getpid()}")
    try:
        managed(variables={"NOTIFY_SOCKET": manager.address})
        manager.wait_for("READY", "1")
    finally:
        manager.close()


def test_a_socket_that_cannot_be_reached_is_one_line_of_the_log(managed, manager):
    edge = managed(variables={"NOTIFY_SOCKET": "/nowhere/notify"}, watchdog_seconds=0.02)
    assert who(edge) == "a"
    gevent.sleep(0.2)
    lines = [line["event"] for line in edge.log() if "NOTIFY_SOCKET" in line["event"]]
    assert lines == ["systemd not reached at NOTIFY_SOCKET='/nowhere/notify': No such file or directory"]
    assert manager.heard == []


# Watchdog


def test_the_watchdog_hears_the_event_loop_and_nothing_once_it_stands_still(managed, manager):
    edge = managed(watchdog_seconds=0.5)
    eventually(lambda: len(manager.said("WATCHDOG")) >= 4)
    freeze(edge.process.pid)
    gevent.sleep(0.1)  # what was said before is heard
    count = len(manager.said("WATCHDOG"))
    gevent.sleep(1.0)
    assert len(manager.said("WATCHDOG")) == count
    edge.process.send_signal(signal.SIGCONT)
    eventually(lambda: len(manager.said("WATCHDOG")) > count)


def test_the_watchdog_of_another_process_is_no_concern_of_the_edge():
    environment = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert take_notifier(environment).watchdog_seconds == 0.0
    assert environment == {}, "no child speaks for the edge"


@pytest.mark.parametrize("text", ["0", "-1", "2s", "9" * 5000])
def test_a_faulty_time_of_the_watchdog_is_named(text):
    with pytest.raises(ConfigError, match=r"WATCHDOG_USEC='.*': needs a number of microseconds, 1 or more"):
        take_notifier({"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": text})
