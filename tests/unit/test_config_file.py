"""The configuration file: valid contents, and all faults at once with line, path, value, rule and nearest name."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from app.config import ConfigError, HealthCheck, HttpOptions, ListenAddress, Server, TcpOptions
from app.config.file import METRICS, Faults, _models_in, read_file, read_mapping, validate, warnings_of
from app.config.model import FileConfig, Frontend, Pool

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "docs" / "example.yaml"

MINIMAL: dict[str, list[dict[str, Any]]] = {
    "frontends": [{"name": "web", "listen": "127.0.0.1:80", "backend": "pool"}],
    "backends": [{"name": "pool", "servers": [{"address": "10.0.0.1:80"}]}],
}


def configured(frontend: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **others: Any) -> FileConfig:
    """Return the minimal configuration with additional keys, written as YAML and read back."""
    content = {
        "frontends": [{**MINIMAL["frontends"][0], **(frontend or {})}],
        "backends": [{**MINIMAL["backends"][0], **(pool or {})}],
        **others,
    }
    return read_file(yaml.safe_dump(content).encode(), "edge.yaml")


def front(**keys: Any) -> Frontend:
    return configured(frontend=keys).frontends[0]


def check(**keys: Any) -> HealthCheck:
    return configured(pool={"health_check": keys}).pools()[0].health_check


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_file(text.encode(), "edge.yaml")
    return caught.value.faults


def fault(frontend: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **others: Any) -> str:
    """Return the only fault of the minimal configuration with additional keys, without file and line."""
    with pytest.raises(ConfigError) as caught:
        configured(frontend, pool, **others)
    (one,) = caught.value.faults
    return one.split(": ", 1)[1]


# What is there


def test_the_least_file() -> None:
    config = configured()
    assert config.frontends == (Frontend(name="web", listen=(ListenAddress("127.0.0.1", 80),), backend="pool"),)
    assert config.pools() == (Pool(name="pool", servers=(Server(address=ListenAddress("10.0.0.1", 80)),)),)
    frontend, pool = config.frontends[0], config.backends[0]
    assert (frontend.protocol, frontend.algorithm, frontend.affinity) == ("tcp", "round_robin", False)
    assert frontend.tcp == TcpOptions(
        connect_timeout_seconds=3,
        connect_attempts=3,
        idle_timeout_seconds=3600,
        linger_timeout_seconds=60,
        send_proxy="off",
    )
    assert frontend.http == HttpOptions(
        head_timeout_seconds=10, keep_alive_timeout_seconds=60, response_timeout_seconds=60, max_head_bytes=32_768
    )
    assert pool.health_check == HealthCheck(
        type="off",
        interval_seconds=10,
        timeout_seconds=5,
        unhealthy_threshold=3,
        healthy_threshold=2,
        cooldown_seconds=30,
    )
    assert pool.health_check.expected_status == set(range(200, 400))
    assert (config.global_.log_level, config.global_.log_format) == ("info", "json")
    assert config.global_.metrics.listen == ListenAddress("127.0.0.1", 9090)


def test_the_example_is_valid_and_has_every_section() -> None:
    config = read_file(EXAMPLE.read_bytes(), "example.yaml")
    assert warnings_of(config) == []
    web, redis, nearest = config.frontends
    assert web.http.request_headers.set == {"X-Edge": "sao-paulo"}
    assert web.http.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"),)
    assert redis.algorithm == "ip_hash"
    assert (nearest.affinity, web.affinity) == (True, False)
    assert [server.weight for server in config.backends[0].servers] == [5, 1, 0, 1]
    assert [server.backup for server in config.backends[0].servers] == [False, False, False, True]
    assert config.pools()[0].health_check.passive_statuses == {502, 503, 504}
    assert config.backends[2].app == "shop"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("1.5s", 1.5),
        ("2m", 120),
        ("1h", 3600),
        ("10d", 864_000),
        ("1m30s", 90),
        ("1h0.5s", 3600.5),
        (" 3s ", 3),
        (7, 7),
        (0.25, 0.25),
    ],
)
def test_a_duration(written: object, seconds: float) -> None:
    assert front(tcp={"idle_timeout": written}).tcp.idle_timeout_seconds == seconds


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (204, {204}),
        ("204", {204}),
        ("200-203", {200, 201, 202, 203}),
        ([200, "301-303"], {200, 301, 302, 303}),
        ([], set()),
    ],
)
def test_statuses(written: object, expected: set[int]) -> None:
    assert check(type="http", passive_statuses=written).passive_statuses == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("affinity: on", True),
        ("affinity: off", False),
        ("affinity: 'on'", True),
        ("affinity: 'off'", False),
        ("affinity: true", True),
        ("algorithm: geo", True),
        ("{algorithm: geo, affinity: off}", False),
        ("{algorithm: ip_hash, affinity: on}", True),
    ],
)
def test_affinity_is_by_default_on_for_geo_and_off_otherwise(text: str, expected: bool) -> None:
    assert front(**yaml.safe_load(text)).affinity is expected


@pytest.mark.parametrize("written", ["off", False])
def test_off_is_a_word_whether_yaml_thinks_so_or_not(written: object) -> None:
    assert front(tcp={"send_proxy": written}).tcp.send_proxy == "off"
    assert check(type=written).type == "off"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("*:80", ["0.0.0.0:80", "[::]:80"]),
        ("127.0.0.1:80,[::1]:80", ["127.0.0.1:80", "[::1]:80"]),
        (["127.0.0.1:80", "[::1]:80"], ["127.0.0.1:80", "[::1]:80"]),
    ],
)
def test_one_text_or_a_list_of_addresses(written: object, expected: list[str]) -> None:
    assert [str(address) for address in front(listen=written).listen] == expected


def test_networks_are_a_text_or_a_list() -> None:
    expected = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert front(proxy_protocol_from="10.0.0.0/8, ::1").proxy_protocol_from == expected
    assert front(proxy_protocol_from=["10.0.0.0/8", "::1"]).proxy_protocol_from == expected


def test_a_health_check_inherits_missing_keys_from_the_defaults() -> None:
    config = configured(
        pool={"health_check": {"type": "tcp", "interval": "1s"}},
        health_check_defaults={"interval": "7s", "timeout": "2s", "cooldown": "1m", "unhealthy_threshold": 9},
    )
    found = config.pools()[0].health_check
    assert (found.type, found.interval_seconds, found.timeout_seconds, found.cooldown_seconds) == ("tcp", 1, 2, 60)
    assert (found.unhealthy_threshold, found.healthy_threshold) == (9, 2)


# Faults


def test_every_fault_is_named_at_once_in_the_order_of_the_file() -> None:
    text = """\
global: {log_level: loud}
frontends:
  - nam: web
    listen: 80
    backend: poool
    algoritm: geo
  - name: "a b"
    listen: "*:81"
    backend: pool
    soft_limit_spill: yes
  - 7
  -
backends:
  - name: pool
    servers:
      - address: 10.0.0.1:80
      - adress: 10.0.0.2:80
    health_check: {path: /x, interval: 5 s}
  - name: pool
    app: ""
frontend: []
"""
    assert faults(text) == [
        "edge.yaml:1: global.log_level='loud': needs debug, info, warning or error",
        "edge.yaml:3: frontends[0].name: is required",
        "edge.yaml:3: frontends[0].nam: no such key, did you mean name?",
        "edge.yaml:4: frontends[0].listen=80: '80': needs an address and a port from 0 to 65535, "
        "as in *:8080, 127.0.0.1:8080 or [::1]:8080",
        "edge.yaml:5: frontends[0].backend='poool': no backend has this name, did you mean pool?",
        "edge.yaml:6: frontends[0].algoritm: no such key, did you mean algorithm?",
        "edge.yaml:7: frontends[1].name='a b': needs 1 to 63 letters of ASCII, digits, dots, hyphens and underscores",
        "edge.yaml:10: frontends[1].soft_limit_spill='yes': needs on or off",
        "edge.yaml:11: frontends[2]=7: needs keys and values below it",
        "edge.yaml:12: frontends[3]: has no value: set one, or remove the key",
        "edge.yaml:17: backends[0].servers[1].address: is required",
        "edge.yaml:17: backends[0].servers[1].adress: no such key, did you mean address?",
        "edge.yaml:18: backends[0].health_check.interval='5 s': needs a duration such as 500ms, 10s, 1m30s, 2h or 10d, "
        "or a number of seconds",
        "edge.yaml:18: backends[0].health_check.path='/x': works with type: http only",
        "edge.yaml:19: backends[1].name='pool': backends[0] already has this name",
        "edge.yaml:21: frontend: no such key, did you mean frontends?",
    ]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"name": "a b"}, "frontends[0].name='a b': needs 1 to 63 letter"),
        ({"name": "x" * 64}, "frontends[0].name="),
        ({"listen": []}, "frontends[0].listen=[]: needs at least one address:port"),
        ({"listen": ["localhost:80"]}, "frontends[0].listen=['localhost:80']: 'localhost:80': 'localhost' is not"),
        ({"listen": "[::ffff:127.0.0.1]:80"}, "frontends[0].listen="),
        ({"protocol": "udp"}, "frontends[0].protocol='udp': needs tcp or http"),
        ({"backend": "other"}, "frontends[0].backend='other': no backend has this name"),
        ({"algorithm": "random"}, "frontends[0].algorithm='random': needs geo"),
        ({"affinity": "yes please"}, "frontends[0].affinity='yes please': needs on or off"),
        ({"affinity": 1}, "frontends[0].affinity=1: needs on or off"),
        ({"soft_limit_spill": True}, "frontends[0].soft_limit_spill=true: works with algorithm: geo only"),
        ({"proxy_protocol_from": ["10.0.0.1/8"]}, "frontends[0].proxy_protocol_from="),
        ({"limits": {"max_connections": "4"}}, "frontends[0].limits.max_connections='4': needs a whole number"),
        ({"limits": {"max_connections": True}}, "frontends[0].limits.max_connections=true: needs a whole number"),
        ({"limits": {"max_connections": -1}}, "frontends[0].limits.max_connections=-1: must be at least"),
        ({"limits": {"connection_rate_per_client": float("nan")}}, "frontends[0].limits.connection_rate_per_client=.n"),
        ({"limits": {"connection_rate_per_client": "5"}}, "frontends[0].limits.connection_rate_per_client='5': needs"),
        ({"limits": None}, "frontends[0].limits: has no value"),
        ({"limits": 5}, "frontends[0].limits=5: needs keys and values"),
        ({"tcp": {"connect_timeout": 0}}, "frontends[0].tcp.connect_timeout=0: must be at least"),
        ({"tcp": {"connect_timeout": True}}, "frontends[0].tcp.connect_timeout=true: needs a duration"),
        ({"tcp": {"connect_timeout": "3"}}, "frontends[0].tcp.connect_timeout='3': needs a duration"),
        ({"tcp": {"connect_timeout": "9999999h"}}, "frontends[0].tcp.connect_timeout="),
        ({"tcp": {"connect_timeout_seconds": 3}}, "frontends[0].tcp.connect_timeout_seconds: no such key, did you mean "
         "connect_timeout?"),
        ({"tcp": {"connect_attempts": 11}}, "frontends[0].tcp.connect_attempts=11: must be at most"),
        ({"tcp": {"send_proxy": True}}, "frontends[0].tcp.send_proxy=true: needs off, v1 or v2"),
        ({"http": {}}, "frontends[0].http: works with protocol: http only"),
        ({"protocol": "http", "http": {"max_head_bytes": 1023}}, "frontends[0].http.max_head_bytes=1023: must be"),
        ({"colour": "red"}, "frontends[0].colour: no such key"),
        ({"a\nb": "red"}, r"frontends[0].'a\nb': no such key"),
    ],
)  # fmt: skip
def test_a_fault_of_a_frontend(keys: dict[str, Any], expected: str) -> None:
    assert fault(frontend=keys).startswith(expected)


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ({"algorithm": "leastconn"}, "did you mean least_connections?"),
        ({"algorithm": "goe"}, "did you mean geo?"),
        ({"algorithm": "RoundRobin"}, "did you mean round_robin?"),
        ({"protocol": "htp"}, "did you mean http?"),
        ({"proxy_protocol_from": "10.0.0.1/8"}, "10.0.0.1/8 has host bits set, did you mean 10.0.0.0/8?"),
        ({"listen": "http://10.0.0.1:80"}, "is a URL: write 10.0.0.1:80, and protocol: http at the frontend"),
    ],
)
def test_a_fault_says_what_was_probably_meant(keys: dict[str, Any], hint: str) -> None:
    assert hint in fault(frontend=keys)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("http://10.0.0.1:8000", "10.0.0.1:8000, and protocol: http at the frontend"),
        ("http://a.example/path", "a.example:80, and protocol: http at the frontend"),
        ("HTTPS://[2001:db8::1]", "[2001:db8::1]:443"),
        ("tcp://a.example", "a.example:PORT"),
    ],
)
def test_a_url_of_a_server_is_answered_by_what_to_write(written: str, instead: str) -> None:
    found = fault(pool={"servers": [{"address": written}]})
    assert found == f"backends[0].servers[0].address={written!r}: is a URL: write {instead}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"set": {"Host": "x"}}, "Host is managed by the edge and cannot be changed"),
        ({"set": {"transfer-encoding": "x"}}, "transfer-encoding is managed by the edge and cannot be changed"),
        ({"remove": ["CONTENT-LENGTH"]}, "CONTENT-LENGTH is managed by the edge and cannot be changed"),
        ({"remove": ["connection", "A b"]}, "'A b' is not a valid header name (RFC 9110, section 5.6.2)"),
        ({"set": {"": "x"}}, "'' is not a valid header name"),
        ({"set": {"X:": "x"}}, "'X:' is not a valid header name"),
        ({"set": {"X-A": "a\r\nB: c"}}, r"X-A: 'a\r\nB: c' needs printable ASCII"),
        ({"set": {"X-A": "a\0"}}, "X-A: "),
        ({"set": {"X-A": " a"}}, "X-A: ' a' needs printable ASCII, without spaces at either end"),
        ({"set": {"X-A": "é"}}, "X-A: "),
        ({"set": {"X-A": "a", "x-a": "b"}}, "x-a is listed twice"),
        ({"set": {"X-A": "a"}, "remove": ["x-a"]}, "x-a is listed twice"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("direction", ["request_headers", "response_headers"])
def test_a_header_that_may_not_be_changed_so(direction: str, changes: dict[str, Any], expected: str) -> None:
    found = fault(frontend={"protocol": "http", "http": {direction: changes}})
    assert found.removeprefix(f"frontends[0].http.{direction}: ").startswith(expected)


def test_the_value_of_a_header_may_be_empty_or_have_spaces_within() -> None:
    wanted = {"X-A": "", "X-B": "a \t b", "X-C": "!"}
    assert front(protocol="http", http={"request_headers": {"set": wanted}}).http.request_headers.set == wanted


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"app": "shop"}, "backends[0]: needs either servers or app"),
        ({"servers": []}, "backends[0].servers=[]: needs at least one"),
        ({"servers": {"a": 1}}, "backends[0].servers: needs a list"),
        ({"servers": [{"address": "10.0.0.1:1"}, {"address": "10.0.0.1:1"}]}, "backends[0].servers=["),
        ({"servers": [{"address": "10.0.0.1:0"}]}, "backends[0].servers[0].address='10.0.0.1:0': needs the address"),
        ({"servers": [{"address": "*:80"}]}, "backends[0].servers[0].address='*:80': needs exactly one"),
        ({"servers": [{"address": "0.0.0.0:80"}]}, "backends[0].servers[0].address='0.0.0.0:80': needs the address"),
        ({"servers": [{"address": "a_example:80"}]}, "backends[0].servers[0].address='a_example:80'"),
        ({"servers": [{"address": "a.example:0"}]}, "backends[0].servers[0].address='a.example:0'"),
        ({"servers": [{"address": "a.example:65536"}]}, "backends[0].servers[0].address='a.example:65536'"),
        ({"servers": [{"address": "a.example"}]}, "backends[0].servers[0].address='a.example'"),
        ({"servers": [{"address": "a.b:1"}, {"address": "A.B:1"}]}, "backends[0].servers=["),
        ({"servers": [{"address": "10.0.0.1:1", "weight": 257}]}, "backends[0].servers[0].weight=257: must be at"),
        ({"servers": [{"address": "10.0.0.1:1", "weight": -1}]}, "backends[0].servers[0].weight=-1: must be at"),
        ({"health_check": {"type": "ping"}}, "backends[0].health_check.type='ping': needs off, tcp or http"),
        ({"health_check": {"type": True}}, "backends[0].health_check.type=true: needs off, tcp or http"),
        ({"health_check": {"type": "tcp", "body": "ok"}}, "backends[0].health_check.body='ok': works with type: http"),
        ({"health_check": {"type": "http", "path": "x"}}, "backends[0].health_check.path='x': needs a path"),
        ({"health_check": {"type": "http", "path": "/a b"}}, "backends[0].health_check.path='/a b': needs a path"),
        ({"health_check": {"type": "http", "expected_status": 99}}, "backends[0].health_check.expected_status=99: 99:"),
        ({"health_check": {"type": "http", "expected_status": "300-200"}}, "backends[0].health_check.expected_status="),
        ({"health_check": {"type": "http", "expected_status": True}}, "backends[0].health_check.expected_status=true"),
        ({"health_check": {"passive_statuses": [600]}}, "backends[0].health_check.passive_statuses=[600]: 600: needs"),
        ({"health_check": {"healthy_threshold": 0}}, "backends[0].health_check.healthy_threshold=0: must be"),
    ],
)  # fmt: skip
def test_a_fault_of_a_pool(keys: dict[str, Any], expected: str) -> None:
    assert fault(pool=keys).startswith(expected)


def test_the_names_of_frontends_are_unique() -> None:
    second = {**MINIMAL["frontends"][0], "listen": "127.0.0.1:81"}
    found = fault(frontends=[MINIMAL["frontends"][0], second])
    assert found == "frontends[1].name='web': frontends[0] already has this name"


def test_duplicate_keys_and_invalid_values_are_reported_once_beside_other_faults() -> None:
    text = """\
frontends:
  - name: !!int web
    listen: "*:80"
    listen: "*:81"
    backend: pool
    algoritm: geo
backends:
  - {name: pool, app: ""}
"""
    assert faults(text) == [
        "edge.yaml:2: frontends[0].name: the tag int is not supported",
        "edge.yaml:4: frontends[0].listen: is a duplicate of the key in line 3",
        "edge.yaml:6: frontends[0].algoritm: no such key, did you mean algorithm?",
    ]


@pytest.mark.parametrize(
    "written", ["yes", "no", "off", "True", "1.10", "010", "0x10", "1_0", "1:30", "1e3", "+1", "2024-01-01", ".inf"]
)
def test_where_text_is_asked_for_a_scalar_is_the_text_that_is_written(written: str) -> None:
    text = f"""\
frontends:
  - {{name: web, listen: "*:80", protocol: http, backend: p, http: {{response_headers: {{set: {{X-A: {written}}}}}}}}}
backends:
  - {{name: p, app: {written}, health_check: {{type: http, body: {written}}}}}
"""
    config = read_file(text.encode(), "edge.yaml")
    found = [config.frontends[0].http.response_headers.set["X-A"], config.backends[0].app]
    assert [*found, config.backends[0].health_check.body] == [written] * 3
    assert {type(one) for one in found} == {str}


NUMBERS = {"weight": "1", "max_connections": "1", "connection_rate": "1", "interval": "1", "expected_status": "200"}


@pytest.mark.parametrize("written", ["010", "0b11", "0x10", "0o17", "1_0", "1:30", "1e1", "'5'", "'yes'", "9" * 30])
@pytest.mark.parametrize("key", NUMBERS)
def test_where_a_number_is_asked_for_only_decimal_digits_are_one(key: str, written: str) -> None:
    text = """\
frontends:
  - name: web
    listen: "*:80"
    backend: p
    limits: {{max_connections: {max_connections}, connection_rate_per_client: {connection_rate}}}
backends:
  - name: p
    servers: [{{address: "10.0.0.1:80", weight: {weight}}}]
    health_check: {{type: http, interval: {interval}, expected_status: {expected_status}}}
"""
    read_file(text.format(**NUMBERS).encode(), "edge.yaml")
    (line,) = faults(text.format(**{**NUMBERS, key: written}))
    assert f"={written}: " in line
    assert ": needs " in line or "must be at most" in line


def test_a_value_is_quoted_unchanged() -> None:
    assert fault(frontend={"protocol": "a: : b"}).startswith("frontends[0].protocol='a: : b': ")


def test_a_file_without_frontends_is_a_fault() -> None:
    assert faults("global: {}") == [
        "edge.yaml:1: frontends: is required",
    ]
    assert faults("frontends: []\nbackends: {}") == [
        "edge.yaml:1: frontends=[]: needs at least one",
        "edge.yaml:2: backends: needs a list",
    ]


def test_probable_mistakes_are_warnings() -> None:
    config = configured(
        frontend={"algorithm": "geo"},
        backends=[
            *MINIMAL["backends"],
            {"name": "spare", "app": ""},
            {"name": "drained", "servers": [{"address": "10.0.0.2:80", "weight": 0}]},
        ],
    )
    assert warnings_of(config) == [
        "backend spare is used by no frontend",
        "backend drained is used by no frontend",
        "backend drained: every server has weight 0, so it takes no new clients",
        "frontend web: algorithm geo needs locations, which listed servers do not have",
    ]


WRONG = [None, True, -1, 0.5, 1e9, "", "x y", "é", "9" * 5000, [], [1], {}, {"a": 1}, "~", ["a b"], "http://a"]


def wrong(model: type[BaseModel]) -> Iterator[Any]:
    """Yield mappings for a model, in each of which one key has a value of another kind."""
    for name, field in model.model_fields.items():
        key = str(field.validation_alias or name)
        yield from ({key: value} for value in WRONG)
        for inner in _models_in(field.annotation):
            yield from ({key: one} for one in wrong(inner))
            yield from ({key: [one]} for one in wrong(inner))


def test_no_fault_has_the_words_of_a_library() -> None:
    raw = re.compile(r"Input should|String should|Value error|a valid (int|num|str|bool)|parse|\{\w+\}")
    found = set()
    for values in wrong(FileConfig):
        try:
            validate(values, listeners=())
        except Faults as error:
            found |= {one.rule.rpartition(": ")[2] for one in error.faults}
    assert len(found) > 20
    assert [rule for rule in found if raw.search(rule)] == []


# Addresses


ADDRESSES = ["0.0.0.0", "127.0.0.1", "127.0.0.2", "::", "::1"]


def are_both_bound(first: str, second: str) -> bool:
    """Return whether Linux can listen on both hosts at one port, as the edge does."""
    with listening(first, 0) as held:
        try:
            listening(second, held.getsockname()[1]).close()
        except OSError:
            return False
        return True


def listening(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize("first", ADDRESSES)
@pytest.mark.parametrize("second", ADDRESSES)
def test_addresses_clash_if_the_kernel_refuses_them(first: str, second: str) -> None:
    clashes = ListenAddress(first, 80).clashes_with(ListenAddress(second, 80))
    # The port that is free at one address may be another process's at the next: what must bind is tried more than once.
    assert any(are_both_bound(first, second) for _ in range(5)) is not clashes


def test_other_ports_never_clash_nor_those_the_kernel_chooses() -> None:
    assert not ListenAddress("::1", 80).clashes_with(ListenAddress("::1", 81))
    assert not ListenAddress("::1", 0).clashes_with(ListenAddress("::1", 0))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", "127.0.0.1:80 clashes with 127.0.0.1:80 of frontends[0].listen"),
        ("*:80", "127.0.0.1:80", "127.0.0.1:80 clashes with 0.0.0.0:80 of frontends[0].listen"),
        ("[::1]:80", "*:80", "[::]:80 clashes with [::1]:80 of frontends[0].listen"),
        ("127.0.0.1:80", "0.0.0.0:9090", "0.0.0.0:9090 clashes with 127.0.0.1:9090 of global.metrics.listen"),
        ("127.0.0.1:80", ["[::1]:81", "[::1]:81"], "[::1]:81 clashes with [::1]:81 of frontends[1].listen"),
    ],
)  # fmt: skip
def test_two_listeners_of_one_address_are_a_fault(first: object, second: object, expected: str) -> None:
    frontends = [{"name": "a", "listen": first, "backend": "pool"}, {"name": "b", "listen": second, "backend": "pool"}]
    assert fault(frontends=frontends) == f"frontends[1].listen: {expected}"


def test_metrics_that_listen_elsewhere_leave_their_address() -> None:
    text = yaml.safe_dump({**MINIMAL, "global": {"metrics": {"listen": "127.0.0.1:80"}}}).encode()
    with pytest.raises(ConfigError, match=r"of global\.metrics\.listen"):
        read_file(text, "edge.yaml")
    assert read_file(text, "edge.yaml", listeners=[(METRICS, ListenAddress("127.0.0.1", 9))])


def looping(*frontends: tuple[str, str, str]) -> list[str]:
    """Return the faults of frontends: name, address, and the server of its pool, without file and line."""
    content = {
        "frontends": [{"name": name, "listen": listen, "backend": name} for name, listen, _ in frontends],
        "backends": [{"name": name, "servers": [{"address": server}]} for name, _, server in frontends],
    }
    try:
        read_file(yaml.safe_dump(content).encode(), "edge.yaml")
    except ConfigError as error:
        return [one.split(": ", 1)[1] for one in error.faults]
    return []


@pytest.mark.parametrize(
    ("listen", "server"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("*:80", "127.0.0.1:80"),
        ("*:80", "127.9.9.9:80"),
        ("[::]:80", "[::1]:80"),
        ("[::1]:80", "localhost:80"),
        ("*:80", "LOCALHOST:80"),
        ("10.0.0.9:79,10.0.0.1:80", "10.0.0.1:80"),
    ],
)
def test_a_frontend_that_would_connect_to_itself_is_a_fault(listen: str, server: str) -> None:
    assert looping(("web", listen, server)) == [
        f"backends[0].servers[0].address={server.lower()!r}: frontend web would connect to itself: "
        "this is its own address"
    ]


@pytest.mark.parametrize(
    ("listen", "server"),
    [("127.0.0.1:80", "127.0.0.2:80"), ("*:80", "127.0.0.1:81"), ("0.0.0.0:80", "[::1]:80"), ("*:80", "a.example:80"),
     ("*:80", "10.0.0.1:80"), ("127.0.0.1:0", "127.0.0.1:80")],
)  # fmt: skip
def test_another_address_is_no_loop(listen: str, server: str) -> None:
    assert looping(("web", listen, server)) == []


def test_frontends_may_follow_one_another_but_not_in_a_circle() -> None:
    chain = [("a", "127.0.0.1:80", "127.0.0.1:81"), ("b", "127.0.0.1:81", "127.0.0.1:82")]
    assert looping(*chain) == []
    closed = looping(*chain, ("c", "127.0.0.1:82", "127.0.0.1:80"))
    assert closed == [
        f"backends[{number}].servers[0].address='127.0.0.1:{port}': frontend {dialling} would connect to itself: "
        f"this is the address of frontend {accepting}, which leads back to it"
        for number, (port, dialling, accepting) in enumerate([(81, "a", "b"), (82, "b", "c"), (80, "c", "a")])
    ]


# Anything


WORDS = st.sampled_from(
    [*FileConfig.model_fields, *Frontend.model_fields, *Pool.model_fields, "interval", "global", "pool", "tcp", "off"]
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=9) | st.just("127.0.0.1:80")
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner), max_leaves=12)


def read_or_refuse(source: bytes) -> None:
    try:
        read_file(source, "f")
    except ConfigError as error:
        assert error.faults
        for line in error.faults:
            assert line.startswith("f:")
            assert line.encode().decode().isprintable()


@settings(deadline=None)
@given(st.dictionaries(WORDS, VALUES))
def test_any_values_are_a_configuration_or_a_list_of_faults(values: dict[str, Any]) -> None:
    read_or_refuse(yaml.safe_dump(values, allow_unicode=True).encode())


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("{}[]:,-&*!|>%@`'\"#\n\t ?ab01<=~.\\xU", max_size=60))
def test_any_text_is_a_configuration_or_a_list_of_faults(text: str) -> None:
    read_or_refuse(text.encode())


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_configuration_or_a_list_of_faults(source: bytes) -> None:
    read_or_refuse(source)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_example_is_a_configuration_or_a_list_of_faults(data: st.DataObject) -> None:
    lines = [
        line for line in EXAMPLE.read_bytes().splitlines(True) if line.strip() and not line.strip().startswith(b"#")
    ]
    at = data.draw(st.integers(0, len(lines) - 1))
    junk = data.draw(st.sampled_from([b"", b"\t", b": ", b"- ", b"[", b"}", b"&a ", b"*a", b"<<: ", b"'", b"!!x "]))
    column = data.draw(st.integers(0, len(lines[at])))
    lines[at] = lines[at][:column] + junk + lines[at][column + data.draw(st.integers(0, 3)) :]
    read_or_refuse(b"".join(lines))


def test_the_same_content_may_come_as_keys_and_values() -> None:
    assert read_mapping(MINIMAL) == configured()
    with pytest.raises(ConfigError) as caught:
        read_mapping({**MINIMAL, "frontend": 1})
    assert caught.value.faults == ["frontend: no such key, did you mean frontends?"]
    with pytest.raises(ConfigError, match="must be JSON-like keys and values"):
        read_mapping({"frontends": configured().frontends})
