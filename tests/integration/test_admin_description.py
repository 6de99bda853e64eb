"""The description of the admin API at /openapi.json: it is valid and true, and no request it allows causes a fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.admin_client import SCOPES, admin_of, admin_variables
from tests.harness import row

RUN = "from schemathesis.cli import schemathesis; schemathesis()"
"""Runs in its own process: it has threads and sockets that gevent would have to patch first."""
OWN_CHECKS = "ignored_auth,missing_required_header,unsupported_method,allow_header_conformance"
"""Covered by tests/integration/test_admin_access.py.

The calls without a token would meet the limit on failures (429 where a 401 is expected); and a backend's id may have
slashes, so that PUT …/x/drain is a method of the backend `x/drain`.
"""
WIDER_THAN_DESCRIBED = "negative_data_rejection"
"""Ids and names may be any printable text, which a pattern cannot express: the description has ASCII."""

MORE_THAN_A_SCHEMA_SAYS = """
[[operations]]
include-path-regex = "^/api/(services|endpoints/.*(deploy|compile|roll-back|versions))"
checks.positive_data_acceptance.enabled = false
"""
"""A source without a handler and unknown settings are refused, although they are text and an object."""


@pytest.fixture
def admin(edge, tmp_path):
    proxy = edge([row("a", 1), row("b", 2)], **admin_variables(tmp_path))
    yield admin_of(proxy, tmp_path)
    assert [line for line in proxy.log() if line.get("level") in ("ERROR", "CRITICAL")] == []


def test_it_is_openapi_3_1_with_a_scope_problems_and_an_id_for_every_operation(admin):
    described = admin.get("/openapi.json")
    assert described["openapi"] == "3.1.1"
    assert described["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    operations = [operation for methods in described["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) >= 45
    for operation in operations:
        assert operation["summary"].endswith(".")
        ((scope,),) = [one["bearer"] for one in operation["security"]]
        assert scope in SCOPES
        problems = {status: response for status, response in operation["responses"].items() if int(status) >= 400}
        assert {"400", "401", "403", "422", "429", "503"} <= set(problems)
        for response in problems.values():
            assert response["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
            }


def test_every_reference_resolves(admin):
    text = admin.call("GET", "/openapi.json").body.decode()
    described = json.loads(text)
    for part in text.split('"$ref": "')[1:]:
        place = described
        for name in part.partition('"')[0].removeprefix("#/").split("/"):
            place = place[name]
    assert '"$ref": "' in text


@pytest.mark.timeout(300)
def test_generated_calls_find_no_fault(admin, tmp_path: Path):
    """Every response has a described status, type and schema; requests that match the description are accepted."""
    description = tmp_path / "openapi.json"
    (tmp_path / "schemathesis.toml").write_text(MORE_THAN_A_SCHEMA_SAYS)
    description.write_bytes(admin.call("GET", "/openapi.json").body)
    done = subprocess.run(
        [
            *(sys.executable, "-c", RUN, "run", str(description), "--url", "http://{}:{}".format(*admin.address)),
            *("--header", f"Authorization: Bearer {admin.token}", "--exclude-path", "/api/logs/stream"),
            *("--exclude-checks", f"{OWN_CHECKS},{WIDER_THAN_DESCRIBED}", "--max-examples", "10", "--no-color"),
            *("--continue-on-failure", "--suppress-health-check", "all", "--seed", "1", "--warnings", "off"),
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert admin.get("/api/status")
