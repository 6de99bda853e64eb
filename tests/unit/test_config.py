"""The environment variables: defaults, parsing, and all faults reported at once, including misspelt names."""

from __future__ import annotations

import ipaddress
import re
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app import config
from app.config import Config, ConfigError, DatabaseUrl, ListenAddress, Settings, load

DEFAULTS: dict[str, Any] = {
    "CONFIG": None,
    "ENV_FILE": Path(".env"),
    "LISTEN_ADDR": (ListenAddress("0.0.0.0", 8080), ListenAddress("::", 8080)),
    "DB_PATH": Path("routing.db"),
    "DB_URL": None,
    "REGION": "sa",
    "APP": "",
    "DB_RELOAD_SECS": 5,
    "GEOIP_PATH": "",
    "BINDING_TTL_SECS": 600,
    "BINDING_GC_INTERVAL_SECS": 60,
    "BINDING_IPV6_PREFIX": 128,
    "BINDING_MAX": 1_000_000,
    "BINDING_SNAPSHOT": None,
    "CONNECT_TIMEOUT_SECS": 3,
    "CONNECT_ATTEMPTS": 3,
    "IDLE_TIMEOUT_SECS": 3600,
    "LINGER_TIMEOUT_SECS": 60,
    "DRAIN_WITHDRAW_SECS": 0,
    "DRAIN_TIMEOUT_SECS": 30,
    "MAX_CONNECTIONS": 0,
    "MAX_CONNECTIONS_PER_CLIENT": 0,
    "CONNECTION_RATE_PER_CLIENT": 0,
    "PROXY_PROTOCOL_FROM": (),
    "SEND_PROXY": "off",
    "SOFT_LIMIT_SPILL": False,
    "HEALTH_CHECK": "off",
    "HEALTH_CHECK_PATH": "/",
    "HEALTH_CHECK_INTERVAL_SECS": 10,
    "METRICS_LISTEN_ADDR": ListenAddress("127.0.0.1", 9090),
    "ADMIN_LISTEN_ADDR": ListenAddress("127.0.0.1", 8081),
    "ADMIN_TLS_CERT": None,
    "ADMIN_TLS_KEY": None,
    "ADMIN_INSECURE": False,
    "ADMIN_TOKEN_FILE": Path("admin.token"),
    "GATEWAY_DB_PATH": Path("gateway.db"),
    "API_URL": "",
    "API_TOKEN": SecretStr(""),
    "API_CA_FILE": None,
    "BGP_CONFIG": None,
    "DNS_LISTEN_ADDR": (),
    "DNS_DOMAIN": "internal",
    "DNS_TTL_SECS": 5,
    "ETCD_ENDPOINTS": (),
    "ETCD_USER": "",
    "ETCD_PASSWORD_FILE": None,
    "ETCD_TLS_CA": None,
    "ETCD_TLS_CERT": None,
    "ETCD_TLS_KEY": None,
    "REPLICATOR_LISTEN_ADDR": ListenAddress("127.0.0.1", 8082),
    "LOG_PATH": None,
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "json",
    "DEBUG": False,
}


def configured(**variables: str) -> Config:
    return load({f"EDGEPROXY_{name}": text for name, text in variables.items()})


def faults(**variables: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configured(**variables)
    assert str(caught.value) == "\n".join(caught.value.faults)
    return caught.value.faults


def addresses(text: str) -> list[str]:
    return [str(one) for one in configured(LISTEN_ADDR=text).listen_addr]


# What is there


def test_an_empty_environment_is_the_defaults() -> None:
    effective = load({"PATH": "/bin", "PORT": "5000", "edgeproxy": "x", "EDGEPROXYX": "y"})
    assert {config.variable(name)[10:]: getattr(effective, name) for name in Settings.model_fields} == DEFAULTS


def test_every_variable_has_a_description() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("LISTEN_ADDR", "127.0.0.1:80", (ListenAddress("127.0.0.1", 80),)),
        ("DB_PATH", "/var/lib/edge/routing.db", Path("/var/lib/edge/routing.db")),
        ("DB_URL", " ", None),
        ("DB_URL", "postgres://edge@db/routing", DatabaseUrl("postgresql://edge@db/routing")),
        ("REGION", " EU ", "eu"),
        ("REGION", "", ""),
        ("APP", " shop ", "shop"),
        ("DB_RELOAD_SECS", "0.5", 0.5),
        ("GEOIP_PATH", "off", "off"),
        ("GEOIP_PATH", "/usr/share/GeoLite2-Country.mmdb", "/usr/share/GeoLite2-Country.mmdb"),
        ("BINDING_TTL_SECS", "1", 1),
        ("BINDING_GC_INTERVAL_SECS", "1.5", 1.5),
        ("BINDING_IPV6_PREFIX", "64", 64),
        ("BINDING_MAX", "0", 0),
        ("BINDING_SNAPSHOT", "bindings.jsonl", Path("bindings.jsonl")),
        ("BINDING_SNAPSHOT", "", None),
        ("CONNECT_TIMEOUT_SECS", "0.25", 0.25),
        ("CONNECT_ATTEMPTS", "1", 1),
        ("IDLE_TIMEOUT_SECS", "60", 60),
        ("LINGER_TIMEOUT_SECS", "5", 5),
        ("DRAIN_WITHDRAW_SECS", "10", 10),
        ("DRAIN_TIMEOUT_SECS", "0", 0),
        ("DRAIN_TIMEOUT_SECS", "1m30s", 90),
        ("BINDING_TTL_SECS", "10d", 864_000),
        ("IDLE_TIMEOUT_SECS", " 1.5h ", 5400),
        ("CONNECT_TIMEOUT_SECS", "3s", 3),
        ("DB_RELOAD_SECS", "250ms", 0.25),
        ("DNS_TTL_SECS", "1m", 60),
        ("MAX_CONNECTIONS", "1", 1),
        ("MAX_CONNECTIONS_PER_CLIENT", "20", 20),
        ("CONNECTION_RATE_PER_CLIENT", "2.5", 2.5),
        ("PROXY_PROTOCOL_FROM", "", ()),
        ("SEND_PROXY", "V2", "v2"),
        ("SOFT_LIMIT_SPILL", "true", True),
        ("HEALTH_CHECK", "TCP", "tcp"),
        ("HEALTH_CHECK_PATH", "/healthz?full=1", "/healthz?full=1"),
        ("HEALTH_CHECK_INTERVAL_SECS", "0.5", 0.5),
        ("METRICS_LISTEN_ADDR", "[::1]:0", ListenAddress("::1", 0)),
        ("ADMIN_LISTEN_ADDR", "", None),
        ("ADMIN_LISTEN_ADDR", "[::1]:8443", ListenAddress("::1", 8443)),
        ("ADMIN_INSECURE", "true", True),
        ("ADMIN_TLS_CERT", "/etc/edge/cert.pem", Path("/etc/edge/cert.pem")),
        ("ADMIN_TLS_CERT", "", None),
        ("ADMIN_TOKEN_FILE", "/run/edge/token", Path("/run/edge/token")),
        ("GATEWAY_DB_PATH", "/var/lib/edge/gateway.db", Path("/var/lib/edge/gateway.db")),
        ("DNS_LISTEN_ADDR", "*:53", (ListenAddress("0.0.0.0", 53), ListenAddress("::", 53))),
        ("DNS_LISTEN_ADDR", " ", ()),
        ("DNS_DOMAIN", "Edge.Example.", "edge.example"),
        ("DNS_TTL_SECS", "0", 0),
        (
            "ETCD_ENDPOINTS",
            "http://10.0.0.1:2379, https://[fd00::1]:2379/,",
            ("http://10.0.0.1:2379", "https://[fd00::1]:2379"),
        ),
        ("REPLICATOR_LISTEN_ADDR", "[::1]:9000", ListenAddress("::1", 9000)),
        ("LOG_PATH", "logs/edge.jsonl", Path("logs/edge.jsonl")),
        ("LOG_PATH", " ", None),
        ("LOG_LEVEL", "warning", "warning"),
        ("LOG_FORMAT", "Text", "text"),
        ("DEBUG", "1", True),
    ],
)
def test_each_variable_is_read(name: str, text: str, value: object) -> None:
    beside = {"HEALTH_CHECK": "http"} if name == "HEALTH_CHECK_PATH" else {}
    assert getattr(configured(**{name: text}, **beside), name.lower()) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://edge@db.example:5433/routing", "postgresql://edge@db.example:5433/routing"),
        ("postgresql:///routing?host=/run/postgresql", "postgresql:///routing?host=/run/postgresql"),
        ("postgresql://edge:s3cret@db/routing", "postgresql://***@db/routing"),
        ("postgresql://edge:s3c%2Fr%40et@a,b:1/routing", "postgresql://***@a,b:1/routing"),
        ("postgresql://db/routing?user=edge&password=s3cret", "postgresql://db/routing?user=edge&password=***"),
    ],
)
def test_the_password_of_a_database_is_not_shown(text: str, shown: str) -> None:
    url = configured(DB_URL=text).db_url
    assert isinstance(url, DatabaseUrl)
    assert (str(url), url.text) == (shown, text)
    assert "s3c" not in repr(url)


@pytest.mark.parametrize(
    "text",
    [
        "routing.db",
        "mysql://edge:s3cret@db/routing",
        "postgresql://edge:s3c%ret@db/x",
        "postgresql://edge:s3c@ret@db/x",
        "postgresql://edge:s3c/ret@db/x",
    ],
)
def test_an_invalid_postgresql_url_is_a_fault_that_does_not_quote_it(text: str) -> None:
    assert faults(DB_URL=text) == [
        "EDGEPROXY_DB_URL='***': must be postgresql://user@host/database; write special characters as %XX"
    ]


# Addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*:8080", ["0.0.0.0:8080", "[::]:8080"]),
        ("0.0.0.0:8080", ["0.0.0.0:8080"]),
        ("[::]:8080", ["[::]:8080"]),
        ("[::1]:8080", ["[::1]:8080"]),
        ("[2001:DB8::0:1]:1", ["[2001:db8::1]:1"]),
        ("127.0.0.1:0", ["127.0.0.1:0"]),
        ("127.0.0.1:65535", ["127.0.0.1:65535"]),
        (" 10.0.0.1:80 , [::1]:81,*:82,", ["10.0.0.1:80", "[::1]:81", "0.0.0.0:82", "[::]:82"]),
    ],
)
def test_a_list_of_addresses(text: str, expected: list[str]) -> None:
    assert addresses(text) == expected
    assert addresses(",".join(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "8080",
        ":8080",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:-1",
        "127.0.0.1:65536",
        "127.0.0.1:８０",
        "127.0.0.1:" + "9" * 5000,
        "localhost:80",
        "256.0.0.1:80",
        "2001:db8::1",
        "::1:8080",  # is it port 8080 of ::1, or ::1:8080 without one?
        "[::1:8080",
        "::1]:8080",
        "[127.0.0.1]:80",
        "[[::1]]:80",
        "[*]:80",
        "127.0.0.1:80 127.0.0.2:80",
    ],
)
def test_an_invalid_list_of_addresses_is_refused(text: str) -> None:
    (fault,) = faults(LISTEN_ADDR=text)
    assert fault.startswith("EDGEPROXY_LISTEN_ADDR=")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DNS_LISTEN_ADDR", "localhost:53"),
        ("DNS_LISTEN_ADDR", "53"),
        ("DNS_DOMAIN", ""),
        ("DNS_DOMAIN", "."),
        ("DNS_DOMAIN", "an_underscore"),
        ("DNS_DOMAIN", "a" * 64),
        ("DNS_DOMAIN", ".".join(["a" * 62] * 3)),
        ("DNS_TTL_SECS", "-1"),
        ("DNS_TTL_SECS", "0.5"),
        ("DNS_TTL_SECS", "86401"),
    ],
)
def test_invalid_dns_settings_are_refused(name: str, text: str) -> None:
    (fault,) = faults(**{name: text})
    assert fault.startswith(f"EDGEPROXY_{name}={text!r}: ")


@pytest.mark.parametrize("text", ["*:8081", "127.0.0.1:1,127.0.0.1:2", "8081", "localhost:8081"])
def test_the_admin_api_has_exactly_one_address(text: str) -> None:
    (fault,) = faults(ADMIN_LISTEN_ADDR=text)
    assert fault.startswith(f"EDGEPROXY_ADMIN_LISTEN_ADDR={text!r}: ")


@pytest.mark.parametrize("text", ["0.0.0.0:8081", "[::]:8081", "192.0.2.1:8081", "[2001:db8::1]:8081"])
def test_the_admin_api_is_for_this_machine_unless_asked_for_otherwise(text: str) -> None:
    (fault,) = faults(ADMIN_LISTEN_ADDR=text)
    assert fault == (
        f"EDGEPROXY_ADMIN_LISTEN_ADDR={text!r}: is not a loopback address and needs TLS: set "
        "EDGEPROXY_ADMIN_TLS_CERT, or EDGEPROXY_ADMIN_INSECURE=true"
    )
    for way in ({"EDGEPROXY_ADMIN_INSECURE": "true"}, {"EDGEPROXY_ADMIN_TLS_CERT": "cert.pem"}):
        load({"EDGEPROXY_ADMIN_LISTEN_ADDR": text, **way})


def test_a_key_without_its_certificate_is_refused() -> None:
    (fault,) = faults(ADMIN_TLS_KEY="key.pem")
    assert fault == "EDGEPROXY_ADMIN_TLS_KEY='key.pem': needs EDGEPROXY_ADMIN_TLS_CERT too"


@pytest.mark.parametrize(
    "text", ["10.0.0.1:2379", "http://10.0.0.1", "ftp://etcd:2379", "http://etcd:2379/v3", "http://a b:1"]
)
def test_an_invalid_list_of_etcd_endpoints_is_refused(text: str) -> None:
    (fault,) = faults(ETCD_ENDPOINTS=text)
    assert fault.startswith(f"EDGEPROXY_ETCD_ENDPOINTS={text!r}: ")
    assert "needs URLs such as http://10.50.0.1:2379" in fault


def test_incomplete_etcd_settings_are_refused() -> None:
    assert faults(
        ETCD_USER="pop", ETCD_TLS_CA="ca.pem", ETCD_TLS_KEY="key.pem", REPLICATOR_LISTEN_ADDR="10.0.0.1:1"
    ) == [
        "EDGEPROXY_ETCD_USER='pop': needs EDGEPROXY_ETCD_PASSWORD_FILE too",
        "EDGEPROXY_ETCD_TLS_KEY='key.pem': needs EDGEPROXY_ETCD_TLS_CERT too",
        "EDGEPROXY_ETCD_USER='pop': needs EDGEPROXY_ETCD_ENDPOINTS too",
        "EDGEPROXY_ETCD_TLS_CA='ca.pem': needs EDGEPROXY_ETCD_ENDPOINTS too",
        "EDGEPROXY_REPLICATOR_LISTEN_ADDR='10.0.0.1:1': must be a loopback address with a port",
    ]
    (fault,) = faults(REPLICATOR_LISTEN_ADDR="127.0.0.1:0")
    assert fault == "EDGEPROXY_REPLICATOR_LISTEN_ADDR='127.0.0.1:0': must be a loopback address with a port"
    etcd = {"ETCD_ENDPOINTS": "https://etcd:2379", "ETCD_TLS_CERT": "cert.pem"}
    (fault,) = faults(ETCD_PASSWORD_FILE="password", **etcd)
    assert fault == "EDGEPROXY_ETCD_PASSWORD_FILE='password': needs EDGEPROXY_ETCD_USER too"
    assert configured(ETCD_USER="pop", ETCD_PASSWORD_FILE="password", **etcd).is_replicated


def test_a_replica_is_a_file():
    said = faults(ETCD_ENDPOINTS="http://127.0.0.1:2379", DB_URL="postgresql://edge@db.example/routing")
    assert said == ["EDGEPROXY_DB_URL: works only without EDGEPROXY_ETCD_ENDPOINTS, whose replica is an SQLite file"]


@pytest.mark.parametrize("text", ["127.0.0.2:0", "[::1]:0"])
def test_every_loopback_address_is_this_machine(text: str) -> None:
    load({"EDGEPROXY_ADMIN_LISTEN_ADDR": text})


@pytest.mark.parametrize("text", ["", "*:9090", "127.0.0.1:9090,127.0.0.1:9091", "9090"])
def test_metrics_have_exactly_one_address(text: str) -> None:
    (fault,) = faults(METRICS_LISTEN_ADDR=text)
    assert fault.startswith(f"EDGEPROXY_METRICS_LISTEN_ADDR={text!r}: ")


def test_networks() -> None:
    trusted = configured(PROXY_PROTOCOL_FROM=" 10.0.0.0/8, 127.0.0.2,2001:db8::/32 ,").proxy_protocol_from
    assert trusted == tuple(map(ipaddress.ip_network, ["10.0.0.0/8", "127.0.0.2/32", "2001:db8::/32"]))


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "anyone", "10.0.0.0/8;127.0.0.1", "*"])
def test_an_invalid_list_of_networks_is_refused(text: str) -> None:
    (fault,) = faults(PROXY_PROTOCOL_FROM=text)
    assert fault.startswith(f"EDGEPROXY_PROXY_PROTOCOL_FROM={text!r}: ")


# Faults


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DB_PATH", ""),
        ("DB_PATH", " "),
        ("REGION", "são paulo"),
        ("REGION", "x" * 64),
        ("DB_RELOAD_SECS", "0"),
        ("DB_RELOAD_SECS", "-1"),
        ("DB_RELOAD_SECS", "5 s"),
        ("DB_RELOAD_SECS", "1_0"),
        ("DB_RELOAD_SECS", "30s1m"),
        ("DB_RELOAD_SECS", "366d"),
        ("DNS_TTL_SECS", "1500ms"),
        ("DB_RELOAD_SECS", ""),
        ("BINDING_TTL_SECS", "nan"),
        ("BINDING_GC_INTERVAL_SECS", "inf"),
        ("BINDING_IPV6_PREFIX", "0"),
        ("BINDING_IPV6_PREFIX", "129"),
        ("BINDING_MAX", "-1"),
        ("BINDING_MAX", "10000001"),
        ("CONNECT_TIMEOUT_SECS", "1e9"),
        ("CONNECT_ATTEMPTS", "0"),
        ("CONNECT_ATTEMPTS", "2.5"),
        ("IDLE_TIMEOUT_SECS", "never"),
        ("LINGER_TIMEOUT_SECS", "0"),
        ("DRAIN_WITHDRAW_SECS", "-0.1"),
        ("DRAIN_WITHDRAW_SECS", "nan"),
        ("DRAIN_TIMEOUT_SECS", "inf"),
        ("DRAIN_TIMEOUT_SECS", "nan"),
        ("MAX_CONNECTIONS", "many"),
        ("MAX_CONNECTIONS", "-1"),
        ("MAX_CONNECTIONS_PER_CLIENT", "-1"),
        ("CONNECTION_RATE_PER_CLIENT", "-1"),
        ("CONNECTION_RATE_PER_CLIENT", "nan"),
        ("SEND_PROXY", "v3"),
        ("SEND_PROXY", ""),
        ("SOFT_LIMIT_SPILL", "perhaps"),
        ("CONFIG", "/nonexistent/edge.yaml"),
        ("HEALTH_CHECK", "ping"),
        ("HEALTH_CHECK_PATH", "healthz"),
        ("HEALTH_CHECK_INTERVAL_SECS", "0"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("DEBUG", ""),
    ],
)
def test_a_value_out_of_its_range_is_named_with_variable_and_value(name: str, text: str) -> None:
    (fault,) = faults(**{name: text})
    head, _, rule = fault.partition(": ")
    assert head == f"EDGEPROXY_{name}={text.strip().lower() if name == 'REGION' else text!r}" or repr(text) in head
    assert head.startswith(f"EDGEPROXY_{name}=")
    assert rule


@pytest.mark.parametrize("field", [field for field in Settings.model_fields if field != "config"])
def test_no_fault_of_a_variable_has_the_words_of_a_library(field: str) -> None:
    for text in (
        "",
        "x y",
        "-1",
        "1e99",
        "nan",
        "5.5",
        "0",
        "9" * 5000,
        "http://a",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
    ):
        try:
            configured(**{field.upper(): text})
        except ConfigError as error:
            assert not [one for one in error.faults if re.search(r"Input should|String should|Value error|parse", one)]


def test_a_misspelt_word_of_a_variable_has_a_suggestion() -> None:
    assert faults(HEALTH_CHECK="htpp") == ["EDGEPROXY_HEALTH_CHECK='htpp': needs off, tcp or http, did you mean http?"]
    (fault,) = faults(IDLE_TIMEOUT_SECS="5 minutes")
    assert fault.startswith("EDGEPROXY_IDLE_TIMEOUT_SECS='5 minutes': needs a duration such as 500ms, 10s, 1m30s, 2h")


def test_all_faults_are_named_at_once() -> None:
    allowed = config.descriptors_for_connections() // 2
    found = faults(
        LISTEN_ADDR="nowhere",
        REGION="são paulo",
        BINDING_TTL_SECS="0",
        CONNECT_ATTEMPTS="x",
        PROXY_PROTOCOL_FROM="anyone",
        MAX_CONNECTIONS=str(allowed + 1),
        METRICS_LISTEN_ADDR="*:1",
        DEBGU="1",
        PLANET="mars",
    )
    named = [fault.partition("=")[0].partition(":")[0].removeprefix("EDGEPROXY_") for fault in found]
    assert sorted(named) == sorted(
        "LISTEN_ADDR REGION BINDING_TTL_SECS CONNECT_ATTEMPTS PROXY_PROTOCOL_FROM MAX_CONNECTIONS METRICS_LISTEN_ADDR "
        "DEBGU PLANET".split()
    )


def test_every_bad_item_of_a_list_is_named() -> None:
    (fault,) = faults(LISTEN_ADDR="127.0.0.1:80,localhost:80,[::1]:99999")
    assert "'localhost:80'" in fault
    assert "'[::1]:99999'" in fault
    assert "'127.0.0.1:80':" not in fault
    (fault,) = faults(PROXY_PROTOCOL_FROM="10.0.0.0/8,anyone,10.0.0.1/8")
    assert "'anyone'" in fault
    assert "10.0.0.1/8 has host bits set" in fault


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("BINDING_TTL", "did you mean EDGEPROXY_BINDING_TTL_SECS?"),
        ("LISTEN_ADRR", "did you mean EDGEPROXY_LISTEN_ADDR?"),
        ("DEBUGG", "did you mean EDGEPROXY_DEBUG?"),
        ("QQQQQQQQ", "no such variable"),
        ("", "no such variable"),
    ],
)
def test_an_unknown_variable_is_a_fault_with_a_suggestion_where_there_is_one(name: str, hint: str) -> None:
    (fault,) = faults(**{name: "1"})
    assert fault.startswith(f"EDGEPROXY_{name}: no such variable")
    assert fault.endswith(hint)


def test_a_variable_in_lower_case_is_unknown_and_not_a_second_way_to_say_it() -> None:
    (fault,) = faults(REGION="eu", region="us")
    assert fault == "EDGEPROXY_region: no such variable, did you mean EDGEPROXY_REGION?"
    with pytest.raises(ConfigError) as caught:
        load({"edgeproxy_region": "us", "EdgeProxy_App": "shop", "edgeproxy": "1"})
    assert caught.value.faults == [
        "edgeproxy_region: no such variable, did you mean EDGEPROXY_REGION?",
        "EdgeProxy_App: no such variable, did you mean EDGEPROXY_APP?",
    ]


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load({}).region = "eu"


# Descriptors


def test_the_connection_limit_is_half_of_the_available_descriptors() -> None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    derived = load({}).effective_max_connections()
    assert 0 < derived * 2 + 2 * config.PIPES + config.RESERVED_DESCRIPTORS <= soft
    assert configured(MAX_CONNECTIONS=str(derived)).effective_max_connections() == derived
    assert configured(MAX_CONNECTIONS="7").effective_max_connections() == 7


def test_more_connections_than_descriptors_allow_is_a_fault_that_says_how_to_raise_them() -> None:
    allowed = load({}).effective_max_connections()
    (fault,) = faults(MAX_CONNECTIONS=str(allowed + 1))
    assert fault.startswith("EDGEPROXY_MAX_CONNECTIONS=")
    assert f"{allowed + 1}" in fault.partition(": ")[0]
    assert f"allows {allowed}" in fault
    assert "ulimit -n" in fault


def test_a_lower_descriptor_limit_lowers_the_connection_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        assert load({}).effective_max_connections() == (
            (512 - 2 * config.PIPES - config.RESERVED_DESCRIPTORS) * 7 // 8 // 2
        ), "an eighth is for idle connections to backends"
        assert len(faults(MAX_CONNECTIONS="129")) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


printable = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*DEFAULTS, "NONSENSE"]), printable))
def test_any_environment_is_a_configuration_or_a_list_of_faults(variables: dict[str, str]) -> None:
    try:
        configured(**variables)
    except ConfigError as error:
        named = {fault.partition("=")[0].partition(":")[0].removeprefix("EDGEPROXY_") for fault in error.faults}
        assert named
        assert named <= variables.keys()
        for name in named - {"NONSENSE"}:
            with pytest.raises(ConfigError):
                configured(**{name: variables[name]})
    else:
        assert "NONSENSE" not in variables
