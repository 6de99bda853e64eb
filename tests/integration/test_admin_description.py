"""The description of the admin API at /openapi.json: it is valid and true, and no request it allows causes a fault."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.admin_client import SCOPES, admin_of, admin_variables, edge_with_admin
from tests.harness import ROOT, row

RUN = "from schemathesis.cli import schemathesis; schemathesis()"
"""Runs in its own process: it has threads and sockets that gevent would have to patch first."""
OWN_CHECKS = "ignored_auth,missing_required_header"
"""Covered by tests/integration/test_admin_access.py: these calls without a token would meet the limit on failures (429
where a 401 is expected).
"""
MORE_THAN_A_SCHEMA_SAYS = """
[generation]
codec = "ascii"

[[operations]]
include-path-regex = "^/api/endpoints"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path-regex = "^/api/services(/[^/]*)?$"
include-method = ["POST", "PUT"]
generation.mode = "negative"
"""
"""No pattern says that a parameter's name occurs once in a path rule, that a source has a handler, or which characters
beyond ASCII are printable. A service that matches would be connected to, wherever it is.
"""


@pytest.fixture
def admin(edge, tmp_path):
    proxy = edge([row("a", 1), row("b", 2)], **admin_variables(tmp_path))
    yield admin_of(proxy, tmp_path)
    assert [line for line in proxy.log() if line.get("level") in ("ERROR", "CRITICAL")] == []


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> dict[str, Any]:
    """The description."""
    with edge_with_admin(tmp_path_factory.mktemp("described"), [row("a", 1)]) as (_, admin):
        return dict(admin.get("/openapi.json"))


def test_it_is_openapi_3_1_with_a_scope_problems_and_an_id_for_every_operation(described):
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
        assert "In place of 401" in problems["429"]["description"]
        assert {
            status: next(iter(response["headers"])) for status, response in problems.items() if "headers" in response
        } == {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}


def test_every_reference_resolves(described):
    text = json.dumps(described)
    for part in text.split('"$ref": "')[1:]:
        place = described
        for name in part.partition('"')[0].removeprefix("#/").split("/"):
            place = place[name]
    assert '"$ref": "' in text


# Examples


def faults(described: dict[str, Any], schema: dict[str, Any], value: object) -> list[str]:
    """Return what a schema of the description refuses in a value."""
    whole = {**schema, "components": described["components"]}
    return [fault.message for fault in Draft202012Validator(whole).iter_errors(value)]


def with_examples(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the schemas that have examples."""
    if isinstance(node, dict):
        if isinstance(node.get("examples"), list):
            yield node
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        yield from with_examples(inner)


def test_every_example_of_the_description_matches_its_schema(described):
    found = list(with_examples(described))
    assert len(found) >= 10
    for schema in found:
        for example in schema["examples"]:
            assert faults(described, schema, example) == [], example


def examples_of_documents() -> Iterator[tuple[str, str, object]]:
    """Yield method, path and body of what the documents send to the API, by curl or by a command."""
    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])
    for method, path, body in re.findall(r"^api (?:-X (\w+) )?\S+?(/api/\S+) --json '(.+?)'", text, re.MULTILINE):
        yield method or "POST", path, json.loads(body)
    for body, verb, words in re.findall(
        r"^echo '(.+?)' \| python -m app services (create|replace) (.+) -$", text, re.M
    ):
        name, kind = words.split()
        service = {"kind": kind, "settings": json.loads(body)}
        if verb == "create":
            yield "POST", "/api/services", {"name": name, **service}
        else:
            yield "PUT", f"/api/services/{name}", service
    for words in re.findall(r"^python -m app endpoints create (.+)$", text, re.MULTILINE):
        endpoint_id, *options = shlex.split(words)
        given = {name.removeprefix("--"): value for name, value in zip(options[::2], options[1::2], strict=True)}
        yield "POST", "/api/endpoints", {"id": endpoint_id, **given}


def operation_of(described: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    for template, operations in described["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method.lower() in operations:
            return dict(operations[method.lower()])
    raise LookupError(f"{method} {path}")


def test_every_example_of_the_documents_matches_its_schema(described):
    found = list(examples_of_documents())
    assert {path.split("/")[2] for _, path, _ in found} == {
        "backends", "endpoints", "registrations", "services", "tokens",
    }  # fmt: skip
    for method, path, body in found:
        schema = operation_of(described, method, path)["requestBody"]["content"]["application/json"]["schema"]
        assert faults(described, schema, body) == [], (method, path, body)


def test_the_examples_of_the_description_are_accepted(admin):
    fields = admin.get("/openapi.json")["components"]["schemas"]["NewEndpoint"]["properties"]
    for number, path in enumerate(fields["path"]["examples"]):
        for domain in fields["domain"]["examples"]:
            endpoint = {"id": f"e{number}-{len(domain)}", "path": path, "domain": domain}
            assert admin.call("POST", "/api/endpoints", endpoint).status == 201, endpoint


# Generated calls


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
            *("--exclude-checks", OWN_CHECKS, "--max-examples", "3", "--no-color"),
            *("--phases", "examples,coverage,fuzzing"),  # 2,400 calls are of the coverage; no links for the stateful
            *("--continue-on-failure", "--suppress-health-check", "all", "--seed", "1", "--warnings", "off"),
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert admin.get("/api/status")
