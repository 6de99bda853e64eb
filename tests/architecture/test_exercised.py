"""Every variable, metric, route and command that the documentation names is used by some test that runs things."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.cli import main
from app.config import Settings, variable
from app.domain import metric_names
from tests.commands import commands_of

TESTS = Path(__file__).resolve().parent.parent
SOURCES = {
    path.relative_to(TESTS): path.read_text()
    for path in sorted(TESTS.rglob("*.py"))
    if path.parent != Path(__file__).parent
}


def is_used(pattern: str) -> bool:
    return any(re.search(pattern, source) for source in SOURCES.values())


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_variable_is_set_by_a_test(field):
    name = field.upper()
    assert is_used(rf"""\b{variable(field)}\b|\b{name}=|["']{name}["']"""), f"no test sets {variable(field)}"


@pytest.mark.parametrize("metric", metric_names.ALL, ids=lambda metric: metric.name)
def test_a_metric_is_read_by_a_test(metric):
    constant = next(key for key, value in vars(metric_names).items() if value == metric.name)
    assert is_used(rf"\b{metric.exposed_name}\b|\b(metric_)?names\.{constant}\b"), (
        f"no test reads {metric.exposed_name}"
    )


@pytest.mark.parametrize("route", ["/metrics", "/live", "/ready"])
def test_a_route_is_fetched_by_a_test(route):
    assert is_used(rf"""["'](GET )?{route}["' ]""")


@pytest.mark.parametrize(
    "command",
    [*commands_of(main), *(name for group in commands_of(main).values() for name in commands_of(group))],
)
def test_a_command_is_run_by_a_test(command):
    assert is_used(rf"""["']{command}["']|["'][a-z .-]* {command}( |["'])"""), f"no test runs {command}"
