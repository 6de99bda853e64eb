"""The effective configuration: precedence of command line, environment and file; one frontend without a file."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from app.config import (
    Config,
    ConfigError,
    Frontend,
    HealthCheck,
    Limits,
    ListenAddress,
    Pool,
    Settings,
    TcpOptions,
    load,
)
from app.config.effective import FRONTEND_FIELDS

MINIMAL: dict[str, Any] = {
    "frontends": [{"name": "web", "listen": "127.0.0.1:80", "backend": "pool"}],
    "backends": [{"name": "pool", "servers": [{"address": "10.0.0.1:80"}]}],
}
MINIMAL_TEXT = """\
frontends:
  - {name: web, listen: "127.0.0.1:80", backend: pool}
backends:
  - {name: pool, servers: [{address: "10.0.0.1:80"}]}
"""
WITH_GLOBAL = 'global: {log_level: warning, log_format: text, metrics: {listen: "127.0.0.1:1"}}\n' + MINIMAL_TEXT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "edge.yaml"
    path.write_text(MINIMAL_TEXT)
    return path


def configured(*, overrides: dict[str, str] | None = None, **variables: object) -> Config:
    environment = {f"EDGEPROXY_{name}": str(value) for name, value in variables.items()}
    return load(environment, overrides=overrides)


def faults(*, overrides: dict[str, str] | None = None, **variables: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configured(overrides=overrides, **variables)
    return caught.value.faults


# Without a file


def test_the_environment_alone_gives_one_geo_frontend_and_its_pool() -> None:
    config = load({})
    listen = (ListenAddress("0.0.0.0", 8080), ListenAddress("::", 8080))
    assert config.frontends == (Frontend(name="edge", listen=listen, backend="default", algorithm="geo"),)
    assert config.frontends[0].affinity is True
    assert config.pools == (Pool(name="default", app="", health_check=HealthCheck(cooldown_seconds=10)),)
    assert (config.config_path, config.warnings) == (None, ())


def test_the_variables_shape_the_frontend() -> None:
    (frontend,) = configured(
        LISTEN_ADDR="127.0.0.1:81",
        CONNECT_TIMEOUT_SECS=1,
        CONNECT_ATTEMPTS=2,
        IDLE_TIMEOUT_SECS=3,
        LINGER_TIMEOUT_SECS=4,
        MAX_CONNECTIONS_PER_CLIENT=5,
        CONNECTION_RATE_PER_CLIENT=6.5,
        PROXY_PROTOCOL_FROM="10.0.0.0/8",
        SEND_PROXY="v2",
        SOFT_LIMIT_SPILL="true",
    ).frontends
    assert frontend == Frontend(
        name="edge",
        listen=(ListenAddress("127.0.0.1", 81),),
        backend="default",
        algorithm="geo",
        soft_limit_spill=True,
        proxy_protocol_from=(ipaddress.IPv4Network("10.0.0.0/8"),),
        limits=Limits(max_connections_per_client=5, connection_rate_per_client=6.5),
        tcp=TcpOptions(
            connect_timeout_seconds=1,
            connect_attempts=2,
            idle_timeout_seconds=3,
            linger_timeout_seconds=4,
            send_proxy="v2",
        ),
    )


@pytest.mark.parametrize("app", ["shop", "name with spaces: é", "x" * 200])
def test_the_pool_has_the_name_of_the_app(app: str) -> None:
    config = configured(APP=app)
    assert [(pool.name, pool.app) for pool in config.pools] == [(app, app)]
    assert config.frontends[0].backend == app


def test_active_checks_of_the_environment() -> None:
    (pool,) = configured(HEALTH_CHECK="http", HEALTH_CHECK_PATH="/up", HEALTH_CHECK_INTERVAL_SECS=0.5).pools
    assert pool.health_check == HealthCheck(type="http", path="/up", interval_seconds=0.5, cooldown_seconds=10)
    assert faults(HEALTH_CHECK="tcp", HEALTH_CHECK_PATH="/up") == [
        "EDGEPROXY_HEALTH_CHECK_PATH='/up': works with EDGEPROXY_HEALTH_CHECK=http only"
    ]
    (pool,) = configured(HEALTH_CHECK="tcp").pools
    assert pool.health_check == HealthCheck(type="tcp", cooldown_seconds=10)


@pytest.mark.parametrize(
    ("listen", "metrics", "rule"),
    [
        ("127.0.0.1:80,127.0.0.1:80", "127.0.0.1:1", ": 127.0.0.1:80 is given twice"),
        ("*:80", "[::]:80", ", EDGEPROXY_METRICS_LISTEN_ADDR: [::]:80 is given twice"),
        ("*:80", "127.0.0.1:80", ", EDGEPROXY_METRICS_LISTEN_ADDR: 0.0.0.0:80 clashes with 127.0.0.1:80"),
        ("[::1]:80,[::]:80", "127.0.0.1:1", ": [::]:80 clashes with [::1]:80"),
        ("127.0.0.1:9090", None, ", EDGEPROXY_METRICS_LISTEN_ADDR: 127.0.0.1:9090 is given twice"),
        ("*:8081", "127.0.0.1:1", ", EDGEPROXY_ADMIN_LISTEN_ADDR: 0.0.0.0:8081 clashes with 127.0.0.1:8081"),
    ],
)
def test_two_listeners_of_one_address_are_a_fault(listen: str, metrics: str | None, rule: str) -> None:
    found = faults(LISTEN_ADDR=listen, **{"METRICS_LISTEN_ADDR": metrics} if metrics else {})
    assert found == [f"EDGEPROXY_LISTEN_ADDR{rule}"]


def test_the_other_listeners_of_the_machine_clash_as_well(file: Path) -> None:
    admin = "EDGEPROXY_ADMIN_LISTEN_ADDR: 127.0.0.1:80 is given twice"
    for name in ("DNS_LISTEN_ADDR", "METRICS_LISTEN_ADDR", "REPLICATOR_LISTEN_ADDR"):
        variables = {name: "127.0.0.1:80", "ETCD_ENDPOINTS": "http://127.0.0.1:2379"}
        assert faults(ADMIN_LISTEN_ADDR="127.0.0.1:80", **variables) == [f"EDGEPROXY_{name}, {admin}"]
    assert faults(CONFIG=file, ADMIN_LISTEN_ADDR="127.0.0.1:80") == [
        f"{file}:2: frontends[0].listen: 127.0.0.1:80 clashes with 127.0.0.1:80 of EDGEPROXY_ADMIN_LISTEN_ADDR"
    ]
    file.write_text(WITH_GLOBAL)
    assert faults(CONFIG=file, ADMIN_LISTEN_ADDR="127.0.0.1:1") == [
        f"{file}:1: global.metrics.listen: 127.0.0.1:1 clashes with 127.0.0.1:1 of EDGEPROXY_ADMIN_LISTEN_ADDR"
    ]
    configured(CONFIG=file, REPLICATOR_LISTEN_ADDR="127.0.0.1:80")  # nothing listens there without etcd


# With a file


def test_with_a_file_the_frontends_come_from_it_alone(file: Path) -> None:
    config = configured(CONFIG=file, REGION="eu")
    assert [frontend.name for frontend in config.frontends] == ["web"]
    assert [pool.name for pool in config.pools] == ["pool"]
    assert (config.config_path, config.region, config.warnings) == (file, "eu", ())


def test_variables_that_say_nothing_beside_a_file_are_named_in_one_warning(file: Path) -> None:
    config = configured(CONFIG=file, APP="shop", LISTEN_ADDR="*:9", MAX_CONNECTIONS=7)
    assert config.warnings == (
        f"EDGEPROXY_LISTEN_ADDR, EDGEPROXY_APP: ignored, because the frontends come from {file}",
    )
    assert config.effective_max_connections() == 7
    assert config.frontends == configured(CONFIG=file).frontends


def test_the_variables_of_the_one_frontend_are_variables() -> None:
    assert set(FRONTEND_FIELDS) < set(Settings.model_fields)


@pytest.mark.parametrize(("region", "hint"), [("europe", ", did you mean eu?"), ("mars", "")])
def test_a_region_that_no_client_is_in_is_a_warning(file: Path, region: str, hint: str) -> None:
    expected = (
        f"EDGEPROXY_REGION={region!r}: clients are in sa, us, eu, ap, af, me, oc, so only backends of this very region "
        f"are near this POP{hint}",
    )
    assert configured(REGION=region).warnings == configured(REGION=region, CONFIG=file).warnings == expected
    assert configured(REGION="").warnings == configured(REGION="OC").warnings == ()


def test_probable_mistakes_in_the_file_are_warnings(file: Path) -> None:
    file.write_text(MINIMAL_TEXT + "  - {name: spare, app: spare}\n")
    assert configured(CONFIG=file).warnings == ("backend spare is used by no frontend",)


def test_every_fault_of_environment_and_file_at_once(file: Path) -> None:
    file.write_text(MINIMAL_TEXT.replace("backend:", "bakend:"))
    assert faults(CONFIG=file, REGION="são paulo", PLANET="mars") == [
        "EDGEPROXY_REGION='são paulo': needs at most 63 letters of ASCII, digits, hyphens and underscores",
        "EDGEPROXY_PLANET: no such variable",
        f"{file}:2: frontends[0].backend: is required",
        f"{file}:2: frontends[0].bakend: no such key, did you mean backend?",
    ]


def test_a_file_that_cannot_be_read_is_a_fault_of_the_variable_or_option(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert faults(CONFIG=missing) == [f"EDGEPROXY_CONFIG={str(missing)!r}: No such file or directory"]
    assert faults(overrides={"config": str(missing)}) == [f"--config={str(missing)!r}: No such file or directory"]
    assert faults(CONFIG=tmp_path) == [f"EDGEPROXY_CONFIG={str(tmp_path)!r}: Is a directory"]
    assert faults(CONFIG="a\0b") == [r"EDGEPROXY_CONFIG='a\x00b': embedded null byte"]


def test_a_file_without_end_is_refused() -> None:
    assert faults(CONFIG="/dev/zero") == ["EDGEPROXY_CONFIG='/dev/zero': is not a regular file"]


def test_a_file_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "edge.yaml"
    path.write_bytes(b"#" * (4 << 20) + b"\n")
    assert faults(CONFIG=str(path)) == [f"{path}:1: is larger than 4 MiB"]


# Precedence: command line > environment > file > default


PRECEDENCE = [
    # field, default, file's, environment's, command line's
    ("log_level", "info", "warning", "error", "debug"),
    ("log_format", "json", "text", "json", "text"),
    ("metrics_listen_addr", "127.0.0.1:9090", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
]


@pytest.mark.parametrize(("field", "default", "in_file", "in_environment", "in_command"), PRECEDENCE)
def test_precedence(file: Path, field: str, default: str, in_file: str, in_environment: str, in_command: str) -> None:
    environment, command = {f"EDGEPROXY_{field.upper()}": in_environment}, {field: in_command}
    with_file = {"EDGEPROXY_CONFIG": str(file)}

    def effective(environment: dict[str, str], overrides: dict[str, str] | None = None) -> str:
        return str(getattr(load(environment, overrides=overrides), field))

    assert effective({}) == default
    assert effective(with_file) == default
    assert effective(environment) == in_environment
    assert effective({}, command) == in_command
    file.write_text(WITH_GLOBAL)
    assert effective(with_file) == in_file
    assert effective({**with_file, **environment}) == in_environment
    assert effective(with_file, command) == in_command
    assert effective({**with_file, **environment}, command) == in_command


def test_the_command_line_names_the_file_before_the_environment(file: Path) -> None:
    config = configured(CONFIG="/nonexistent", overrides={"config": str(file)})
    assert config.config_path == file


def test_a_fault_of_the_command_line_names_the_option() -> None:
    (fault,) = faults(overrides={"log_level": "loud"}, LOG_LEVEL="error")
    assert fault.startswith("--log-level='loud': ")


def test_an_address_that_the_environment_gives_the_metrics_counts_for_clashes(file: Path) -> None:
    (fault,) = faults(CONFIG=file, METRICS_LISTEN_ADDR="127.0.0.1:80")
    assert fault.endswith(
        "frontends[0].listen: 127.0.0.1:80 clashes with 127.0.0.1:80 of EDGEPROXY_METRICS_LISTEN_ADDR"
    )


def test_debug_means_log_level_debug(file: Path) -> None:
    file.write_text(WITH_GLOBAL)
    for config in (configured(DEBUG=1), configured(DEBUG=1, CONFIG=file), configured(DEBUG=1, LOG_LEVEL="debug")):
        assert (config.log_level, config.debug) == ("debug", True)
    assert configured(LOG_LEVEL="debug").debug is True
    config = configured(DEBUG=1, overrides={"log_level": "error"})
    assert (config.log_level, config.debug) == ("error", False)


def test_debug_and_another_log_level_contradict_each_other() -> None:
    assert faults(DEBUG=1, LOG_LEVEL="error") == ["EDGEPROXY_DEBUG='1': EDGEPROXY_LOG_LEVEL says error"]


# In a program that embeds the edge


def test_the_content_of_a_file_may_be_given_in_python() -> None:
    config = load({"EDGEPROXY_REGION": "eu", "EDGEPROXY_APP": "x"}, document=MINIMAL)
    assert [frontend.name for frontend in config.frontends] == ["web"]
    assert config.warnings == ("EDGEPROXY_APP: ignored, because the frontends come from the document",)
    with pytest.raises(ConfigError, match=r"^frontend: no such key, did you mean frontends\?$"):
        load({}, document={**MINIMAL, "frontend": []})


def test_equal_sources_give_equal_configurations(file: Path) -> None:
    assert configured(CONFIG=file) == configured(CONFIG=file)
    assert configured(CONFIG=file) != configured(CONFIG=file, REGION="eu")
