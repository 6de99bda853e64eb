"""`python -m app register`: real services and a real edge, which are killed and restarted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest

from app.commands import register as module
from app.outbound.child_process import ChildProcess
from app.registration.client import RegistrationClient
from tests.commands import command
from tests.harness import ROOT, eventually, write_backends
from tests.integration.registered_services import (
    Home,
    home,
    is_alive,
    named_server,
    python,
    start,
)
from tests.traffic import free_ports, load, named, serving, who

__all__ = ["home", "start"]

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def port(home) -> int:
    """A port for a service, which is not registered yet."""
    write_backends(home.database, [])
    home.edge.wait_for_backends(0)
    return free_ports(1)[0]


# The way of a service


def test_a_service_is_run_registered_drained_ended_and_deregistered(home, port, start):
    options = ("--region", "SA", "--country", "br", "--weight", 3, "--soft-limit", 50, "--hard-limit", 60)
    service = start(home, "--app", "web", "--port", port, *options, command=named_server("a", port))
    service.wait_for("is registered at")
    assert who(home.edge) == "a"
    (row,) = home.rows().values()
    assert row["id"] == f"web-{socket.gethostname()}-{port}"
    said = ("app", "region", "country", "wg_ip", "port", "weight", "soft_limit", "hard_limit", "lease_ttl")
    assert [row[name] for name in said] == ["web", "sa", "BR", "127.0.0.1", port, 3, 50, 60, 15]

    service.process.send_signal(signal.SIGTERM)
    service.wait_for("is draining")
    assert who(home.edge) == ""
    with socket.create_connection(("127.0.0.1", port)) as direct:
        direct.sendall(b"still there?")
        assert direct.recv(100) == b"a\n"
    assert service.wait() == 128 + signal.SIGTERM
    assert home.rows() == {}
    assert [line for line in service.said.splitlines() if not line.startswith("register: ")] == [str(port)]


def test_no_connection_is_lost_when_a_service_ends_under_load(home, port, start):
    other = free_ports(1)[0]
    services = {
        name: start(home, "--id", name, "--port", at, "--drain-seconds", 1, command=named_server(name, at))
        for name, at in (("one", port), ("other", other))
    }
    for service in services.values():
        service.wait_for("is registered at")
    home.edge.wait_for_backends(2)
    with load(home.edge, clients=8) as clients:
        eventually(lambda: min(clients.responses[name] for name in services) > 20, what="both serve")
        for name, service in services.items():
            assert service.stop() == 128 + signal.SIGTERM
            before = clients.responses.total()
            eventually(lambda before=before: clients.responses.total() > before + 50, what="more of it")
            if name == "one":
                again = start(home, "--id", name, "--port", port, command=named_server(name, port))
                again.wait_for("is registered at")
                home.edge.wait_for_backends(2)
        assert clients.responses[""] == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_that_dies_is_deregistered_at_once_and_its_exit_code_is_ours(home, port, start, number):
    service = start(home, "--port", port, command=named_server("a", port))
    service.wait_for("is registered at")
    began = time.monotonic()
    os.kill(service.program, number)
    assert service.wait() == 128 + number
    assert home.rows() == {}
    assert time.monotonic() - began < 5


def test_a_program_that_ends_before_its_port_opens_is_not_registered(home, port, start):
    assert start(home, "--port", port, command=python("raise SystemExit(7)")).wait() == 7
    assert home.rows() == {}


def test_a_port_that_never_opens_ends_the_program(home, port, start):
    source = f"import os; print('pid', os.getpid(), flush=True); {SLEEP}"
    service = start(home, "--port", port, "--start-seconds", 0.5, command=python(source))
    assert service.wait() == 1
    assert f"port {port} of 127.0.0.1 is not open after 0.5 s: Connection refused" in service.said
    assert not is_alive(int(service.said.split()[1]))
    assert home.rows() == {}


def test_it_ends_on_a_signal_before_the_port_opens(home, port, start):
    service = start(home, "--port", port, command=python("print('up', flush=True); " + SLEEP))
    service.wait_for("up")
    assert service.stop(signal.SIGINT) != 0
    assert home.rows() == {}


def test_a_second_signal_waits_for_nothing(home, port, start):
    service = start(home, "--port", port, "--drain-seconds", 600, command=named_server("a", port))
    service.wait_for("is registered at")
    service.process.send_signal(signal.SIGTERM)
    service.wait_for("is draining")
    assert service.stop() == 128 + signal.SIGTERM
    assert home.rows() == {}


def test_other_signals_are_the_programs(home, port, start):
    source = (
        "import signal, socket, sys\n"
        "server = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):\n"
        "    signal.signal(number, lambda number, _frame: print('got', signal.Signals(number).name, flush=True))\n"
        "signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(5))\n"
        "while True: signal.pause()"
    )
    service = start(home, "--port", port, "--drain-seconds", 0, command=[*python(source), str(port)])
    service.wait_for("is registered at")
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        service.process.send_signal(number)
        service.wait_for(f"got {number.name}")
    assert service.stop() == 5


def test_a_program_does_not_outlive_its_registrar_and_expires(home, port, start):
    service = start(home, "--port", port, "--ttl", 2, command=named_server("a", port))
    service.wait_for("is registered at")
    pid = service.program
    service.kill()
    eventually(lambda: not is_alive(pid), what="the program is ended too")
    eventually(lambda: not home.rows(), what="it has expired")


def test_a_program_that_will_not_end_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "END_SECONDS", 0.2)
    ready = tmp_path / "ready"
    source = f"import signal; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w'); {SLEEP}"
    run = module._Run(("127.0.0.1", 1), 0)
    run.registration = RegistrationClient(1)
    run.child = ChildProcess(python(source))
    gevent.spawn(run._await_child, run.child)
    eventually(ready.exists)
    assert run._end_child() == 128 + signal.SIGKILL


def test_a_service_that_is_late_is_waited_for(home, port, start):
    source = f"import sys, time, runpy; sys.argv = {named_server('late', port)[2:]!r}; time.sleep(1); "
    service = start(home, "--port", port, command=python(source + "runpy.run_path(sys.argv[0], run_name='__main__')"))
    service.wait_for("is registered at")
    assert who(home.edge) == "late"


# Without a program


def test_a_running_service_is_registered_while_its_port_is_open(home, port, start):
    def serve() -> subprocess.Popen[bytes]:
        return subprocess.Popen(named_server("a", port), stdout=subprocess.DEVNULL)

    running = serve()
    try:
        service = start(home, "--port", port, "--id", "a", "--ttl", 2)
        service.wait_for("is registered at")
        assert who(home.edge) == "a"
        running.kill()
        running.wait()
        eventually(lambda: not home.rows(), what="it expires")
        service.wait_for("the service does not respond")
        running = serve()
        eventually(lambda: who(home.edge) == "a", what="it serves again")
        assert service.stop() == 0
        assert home.rows() == {}
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()


# The edge


def test_an_edge_that_is_down_at_first_and_has_no_token_yet(tmp_path, start):
    home = Home(tmp_path)
    (port,) = free_ports(1)
    service = start(home, "--port", port, command=named_server("a", port))
    service.wait_for(f"cannot read the token: {home.token}: No such file or directory; will retry")
    try:
        home.start()
        service.wait_for("is registered at")
        assert who(home.edge) == "a"
    finally:
        home.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_edge_that_is_restarted_serves_on(home, port, start, number):
    service = start(home, "--port", port, "--ttl", 3, command=named_server("a", port))
    service.wait_for("is registered at")
    home.edge.stop(number)
    gevent.sleep(3.5)  # longer than the time to live: nobody is there to let it expire
    home.start()
    home.edge.wait_for_backends(1)
    assert who(home.edge) == "a"
    service.wait_for("is still registered at")
    gevent.sleep(3.5)
    assert who(home.edge) == "a"


def test_a_lost_registration_is_made_again(home, port, start):
    service = start(home, "--port", port, "--id", "a", "--ttl", 2, command=named_server("a", port))
    service.wait_for("is registered at")
    assert home.admin.call("DELETE", "/api/registrations/a").status == 204
    assert who(home.edge) == ""
    service.wait_for("a was lost at the edge and is registered again")
    assert who(home.edge) == "a"


def test_of_two_instances_with_one_id_one_serves_at_any_time_and_one_stays(home, port, start):
    other = free_ports(1)[0]
    one = start(home, "--id", "a", "--ttl", 2, "--port", port, command=named_server("one", port))
    one.wait_for("is registered at")
    two = start(home, "--id", "a", "--ttl", 2, "--port", other, command=named_server("two", other))
    two.wait_for("is still registered at")
    seen = set()
    eventually(lambda: seen.add(who(home.edge)) or {"one", "two"} <= seen, what="the last to speak has it")
    assert list(home.rows()) == ["a"]
    two.stop()
    eventually(lambda: who(home.edge) == "one", what="who stays has it again")


def test_an_edge_that_is_not_there_any_more_does_not_keep_anybody_from_ending(tmp_path, start):
    home = Home(tmp_path)
    (port,) = free_ports(1)
    try:
        home.start()
        service = start(home, "--port", port, command=named_server("a", port))
        service.wait_for("is registered at")
        home.edge.kill()
        began = time.monotonic()
        assert service.stop() == 128 + signal.SIGTERM
        assert time.monotonic() - began < 10
    finally:
        home.kill()


# Other places


def test_a_service_over_ipv6(home, port, start):
    service = start(home, "--host", "::1", "--port", port, command=named_server("six", port, 0, "::1"))
    service.wait_for("is registered at")
    assert who(home.edge) == "six"
    (row,) = home.rows().values()
    assert row["wg_ip"] == "::1"


def test_an_edge_whose_service_was_killed_moves_on(home, port, start):
    """A failed connect ejects the backend before its TTL expires."""
    with serving(named("other"), "127.0.0.1") as other:
        started = subprocess.Popen(named_server("a", port), stdout=subprocess.DEVNULL)
        try:
            service = start(home, "--port", port, "--id", "a", "--ttl", 600)
            service.wait_for("is registered at")
            home.admin.call("PUT", "/api/registrations/b", {"host": "127.0.0.1", "port": other, "ttl_seconds": 600})
            home.edge.wait_for_backends(2)
        finally:
            started.kill()
            started.wait()
        assert [who(home.edge, f"127.0.9.{number}") for number in range(1, 20)] == ["other"] * 19


# What was given is wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing option '--port'"),
        (("--port", 0), "0 is not in the range"),
        (("--port", 1, "--ttl", 1), "1 is not in the range"),
        (("--port", 1, "--drain-seconds", -1), "-1"),
        (("--port", 1, "--host", "nowhere at all"), "--host 'nowhere at all': must be "),
        (("--port", 1, "--weight", -1, "--soft-limit", -2), "--soft-limit -2: must be a whole number"),
        (("--port", 1, "--id", " "), "--id ' ': must not be empty"),
        (("--port", 1, "--api", "ftp://edge"), "'ftp://edge' is not the URL of an edge"),
        (("--port", 1, "--token-file", "/nowhere"), "cannot read the token: /nowhere: No such file or directory"),
        (("--port", 1, "--", "/no/such/program"), "/no/such/program: No such file or directory"),
    ],
)
def test_bad_values_are_named_before_anything_is_run(arguments, words):
    done = command("register", *arguments, API_TOKEN="x")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("variables", "words", "code"),
    [
        ({"API_TOKEN": "wrong"}, "(401)", 1),
        ({}, "backend a exists and is not a registration (409)", 1),
    ],
)
def test_a_refused_registration_ends_the_command(home, port, start, variables, words, code):
    home.admin.call("PUT", "/api/backends/a", {"wg_ip": "127.0.0.1", "port": 1, "country": "NZ"})
    service = start(home, "--port", port, "--id", "a", command=named_server("a", port), **variables)
    assert service.wait() == code
    assert words in service.said
    assert home.rows()["a"]["port"] == 1


# For services in Python


def test_a_service_in_python_without_gevent(home, port, start):
    script = Path(__file__).with_name("self_registering.py")
    process = subprocess.Popen(
        [sys.executable, script, home.url, home.token, str(port)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        eventually(lambda: who(home.edge) == "python", what="it serves")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert home.rows() == {}
    finally:
        process.kill()
        process.wait()
