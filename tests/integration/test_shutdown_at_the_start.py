"""A start that cannot succeed ends at once: exit code 2, and one clear line for each fault."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.commands import command, edgeproxy
from tests.harness import eventually, row
from tests.traffic import named, who

ANYWHERE = {"LISTEN_ADDR": "127.0.0.1:0", "METRICS_LISTEN_ADDR": "127.0.0.1:0", "GEOIP_PATH": "off"}


@pytest.fixture
def taken():
    """An address that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "{}:{}".format(*server.getsockname())


@pytest.mark.parametrize("variable", ["LISTEN_ADDR", "METRICS_LISTEN_ADDR"])
def test_a_port_already_taken_is_one_line_that_names_the_variable_and_the_address(taken, tmp_path, variable):
    done = edgeproxy(
        "serve", **ANYWHERE | {variable: taken, "LOG_PATH": str(tmp_path / "log"), "DB_PATH": str(tmp_path / "no.db")}
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"edgeproxy: EDGEPROXY_METRICS_LISTEN_ADDR: cannot listen on {taken} (metrics): Address already in use"
        if "METRICS" in variable
        else f"edgeproxy: EDGEPROXY_LISTEN_ADDR: frontend edge: cannot listen on {taken}: Address already in use"
    ]


def test_the_second_address_of_the_list_may_be_the_taken_one(taken, tmp_path):
    done = edgeproxy(
        "serve",
        **ANYWHERE
        | {
            "LISTEN_ADDR": f"127.0.0.1:0,{taken}",
            "LOG_PATH": str(tmp_path / "log"),
            "DB_PATH": str(tmp_path / "no.db"),
        },
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"edgeproxy: EDGEPROXY_LISTEN_ADDR: frontend edge: cannot listen on {taken}: Address already in use"
    ]


def test_a_port_of_the_env_file_that_is_taken_is_named_with_the_file(taken, tmp_path):
    file = tmp_path / "variables"
    file.write_text(f"EDGEPROXY_LISTEN_ADDR={taken}\nEDGEPROXY_DB_PATH={tmp_path / 'no.db'}\n")
    done = edgeproxy("serve", **ANYWHERE | {"ENV_FILE": str(file), "LOG_PATH": str(tmp_path / "log")})
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"edgeproxy: {file}: EDGEPROXY_LISTEN_ADDR: frontend edge: cannot listen on {taken}: Address already in use"
    ]


def test_the_addresses_of_the_dns_and_the_admin_api_are_named_by_their_variables(taken, tmp_path):
    paths = {"LOG_PATH": "log", "DB_PATH": "no.db", "GATEWAY_DB_PATH": "gateway.db", "ADMIN_TOKEN_FILE": "token"}
    files = {name: str(tmp_path / path) for name, path in paths.items()}
    for name in ("DNS_LISTEN_ADDR", "ADMIN_LISTEN_ADDR"):
        done = edgeproxy("serve", **ANYWHERE | files | {name: taken})
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"edgeproxy: EDGEPROXY_{name}: cannot listen on {taken}")


def test_an_address_that_is_not_of_this_machine_is_one_line_too():
    done = edgeproxy("serve", **ANYWHERE | {"LISTEN_ADDR": "192.0.2.1:0"})
    assert done.returncode == 2
    assert (
        "EDGEPROXY_LISTEN_ADDR: frontend edge: cannot listen on 192.0.2.1:0: Cannot assign requested address"
        in done.stderr
    )


def test_every_fault_of_the_configuration_is_named_with_variable_value_and_rule():
    bad = {
        "LISTEN_ADDR": "localhost:http",
        "METRICS_LISTEN_ADDR": "*:9090",
        "DB_RELOAD_SECS": "-1",
        "BINDING_IPV6_PREFIX": "129",
        "CONNECT_ATTEMPTS": "many",
        "DRAIN_TIMEOUT_SECS": "nan",
        "PROXY_PROTOCOL_FROM": "10.0.0.1/8",
        "SEND_PROXY": "v3",
        "SOFT_LIMIT_SPILL": "perhaps",
        "REGION": "s a",
        "LISTEN_ADR": "127.0.0.1:1",
    }
    for done in (edgeproxy("serve", **bad), command("check", **bad)):
        assert (done.returncode, done.stdout) == (2, "")
        lines = done.stderr.splitlines()
        assert len(lines) == len(bad)
        for name, value in bad.items():
            (line,) = [line for line in lines if line.startswith(f"edgeproxy: EDGEPROXY_{name}")]
            assert value in line or "no such variable, did you mean EDGEPROXY_LISTEN_ADDR?" in line


def test_more_connections_than_descriptors_allow_is_a_fault():
    done = edgeproxy("serve", **ANYWHERE | {"MAX_CONNECTIONS": "100000000"})
    assert done.returncode == 2
    assert "EDGEPROXY_MAX_CONNECTIONS" in done.stderr
    assert "the file-descriptor limit allows" in done.stderr


def test_both_families_are_served_by_a_star_and_an_ipv6_backend_by_ipv4_clients(edge, origin):
    proxy = edge([row("six", origin(named("six"), host="::1"), wg_ip="::1")], listen="*:0", GEOIP_PATH="off")
    assert [host for host, _ in proxy.addresses] == ["0.0.0.0", "::"]
    for family_address in (("127.0.0.1", proxy.addresses[0][1]), ("::1", proxy.addresses[1][1])):
        with socket.create_connection(family_address, 10) as client:
            client.sendall(b"who?")
            assert client.recv(100) == b"six\n"
    assert {line["client"] for line in eventually(lambda: proxy.access_lines()[1:] and proxy.access_lines())} == {
        "127.0.0.1",
        "::1",
    }


def test_a_signal_right_after_the_start_is_a_clean_end(edge, origin):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    assert proxy.stop(signal.SIGTERM) == 0
    assert who(edge(GEOIP_PATH="off")) == "a"
