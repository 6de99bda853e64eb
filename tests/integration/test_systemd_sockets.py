"""Sockets that systemd, which the test plays, has opened and passes: none of their clients is refused."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import Any

import gevent
import pytest

from app.config import ConfigError
from app.outbound.systemd_sockets import take_passed_sockets
from tests.commands import clean_environment
from tests.harness import eventually, frontend
from tests.integration.service_manager import answer, place, start_as_systemd
from tests.traffic import free_ports


def test_clients_that_connected_before_the_start_are_served(managed, listening):
    web, other = listening(), listening()
    clients = [socket.create_connection(sock.getsockname(), 30) for sock in (web, other) for _ in range(50)]
    for client in clients:
        client.sendall(b"who?")
    edge = managed(other, web, listen=place(web, other))
    assert [client.recv(100) for client in clients] == [b"a\n"] * 100
    for client in clients:
        client.close()
    assert edge.event("sockets passed by systemd: ")["listeners"] == [place(other), place(web)]


def test_both_wildcards_of_a_port(managed):
    """As the unit of the repository has them for `*:8080`."""
    (port,) = free_ports(1)
    with (
        socket.create_server(("0.0.0.0", port)) as four,
        socket.create_server(("::", port), family=socket.AF_INET6) as six,
    ):
        edge = managed(four, six, listen=f"*:{port}")
        assert edge.has_open(four)
        assert edge.has_open(six)
        assert [answer((host, port)) for host in ("127.0.0.1", "::1")] == ["a", "a"]


def test_a_restart_under_new_connections_refuses_none(managed, listening):
    """The socket outlives the edge, so clients wait in its queue."""
    web = listening()
    answers: list[str] = []

    def connect_over_and_over() -> None:
        while not is_over:
            answers.append(answer(web.getsockname()))

    is_over = False
    former = managed(web, listen=place(web))
    clients = [gevent.spawn(connect_over_and_over) for _ in range(8)]
    for _ in range(2):
        served = len(answers)
        eventually(lambda served=served: len(answers) > served + 50)
        assert former.stop() == 0
        former = managed(web, listen=place(web))
    is_over = True
    gevent.joinall(clients, raise_error=True)
    assert set(answers) == {"a"}


def test_a_reload_keeps_the_sockets_of_its_addresses_and_closes_the_others(managed, listening):
    kept, dropped = listening(), listening()

    def config(*socks: socket.socket) -> dict[str, Any]:
        return {
            "frontends": [frontend("web", "all") | {"listen": place(*socks)}],
            "backends": [{"name": "all", "app": ""}],
        }

    edge = managed(kept, dropped, config=config(kept, dropped))
    edge.wait_for_backends(1)
    assert answer(dropped.getsockname()) == "a"
    assert edge.reload(config(kept))["event"].startswith("configuration reloaded")
    eventually(lambda: not edge.has_open(dropped))
    assert edge.has_open(kept)
    assert answer(kept.getsockname()) == "a"


def test_a_socket_that_fits_no_frontend_is_a_warning_and_closed(managed, listening):
    web, stray = listening(), listening()
    edge = managed(web, stray, listen=place(web))
    warning = edge.event("the socket on ")
    assert warning["level"] == "WARNING"
    assert warning["listener"] == place(stray)
    assert place(stray) in warning["event"]
    assert not edge.has_open(stray)
    assert answer(web.getsockname()) == "a"


def faults(sockets: list[socket.socket], *command: str, **variables: str) -> tuple[int, list[str]]:
    """Return the exit code of a command that systemd starts and that ends, and what it prints on standard error."""
    environment = clean_environment(GEOIP_PATH="off") | variables
    process = start_as_systemd([*command], environment, sockets)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors.decode().splitlines()


def test_what_is_no_listening_tcp_socket_is_refused_each_with_its_reason(tmp_path, listening):
    with ExitStack() as stack:
        datagrams, silent = (stack.enter_context(socket.socket(type=kind)) for kind in (2, 1))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        for sock, address in ((datagrams, ("127.0.0.1", 0)), (silent, ("127.0.0.1", 0)), (local, str(tmp_path / "s"))):
            sock.bind(address)
        local.listen()
        dual = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        web, port = listening(), dual.getsockname()[1]
        sockets = [datagrams, silent, local, dual, web, web]
        code, lines = faults(sockets, "serve", LISTEN_FDS="7", LISTEN_FDNAMES="dns:quiet:::web")
    tcp = "is no TCP socket: the edge takes those of ListenStream=address:port"
    assert code == 2
    assert lines == [
        f"edgeproxy: LISTEN_FDS=7: descriptor {text}"
        for text in (
            f"3 (dns): {tcp}",
            "4 (quiet): does not listen: the edge takes those of ListenStream=, with Accept=no",
            f"5: {tcp}",
            f"6: [::]:{port} takes IPv4, too: set BindIPv6Only=ipv6-only, and ListenStream=0.0.0.0:{port}",
            f"8: listens on {place(web)}, as an earlier one does",
            "9: Bad file descriptor",
        )
    ]


@pytest.mark.parametrize("count", ["x", "0", "-1", "1e3", "9" * 5000])
def test_a_count_of_sockets_that_is_none_is_refused(count):
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "HOME": "/"}
    with pytest.raises(ConfigError, match=r"LISTEN_FDS='.*': needs the number of sockets passed, 1 or more"):
        take_passed_sockets(environment)
    assert environment == {"HOME": "/"}


def test_sockets_for_another_process_are_ignored():
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "x", "LISTEN_FDNAMES": "web"}
    assert take_passed_sockets(environment) == {}
    assert environment == {}
    with pytest.raises(ConfigError, match="LISTEN_PID='x': needs the id of a process"):
        take_passed_sockets({"LISTEN_PID": "x", "LISTEN_FDS": "1"})


def test_check_does_not_call_the_address_of_a_passed_socket_taken(listening):
    web, metrics = listening(), listening()
    addresses = {"EDGEPROXY_LISTEN_ADDR": place(web), "EDGEPROXY_METRICS_LISTEN_ADDR": place(metrics)}
    code, lines = faults([web, metrics], "check", LISTEN_FDS="2", **addresses)
    assert code == 0
    assert len(lines) == 1, "metrics are bound by the edge itself"
    assert f"cannot listen on {place(metrics)} (metrics): Address already in use" in lines[0]
