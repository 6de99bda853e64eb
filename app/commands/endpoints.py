"""Commands for the endpoints of a running edge and their handlers: create, deploy, roll back and so on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click

from app.commands.caller import Caller, api_options
from app.commands.output import json_option, print_fields, print_table, report, utc
from app.domain.words import counted
from app.outbound.admin_api import segment

_ID = click.argument("endpoint_id", metavar="ID")
_NUMBER = click.argument("number", type=click.IntRange(min=1))
_SOURCE = click.File("r", encoding="utf-8-sig")
_COUNTS = ("active", "served", "errors", "refused")
_FIELDS = ("name", "domain", "path", "methods", "timeout_seconds", "max_concurrency", "max_body_bytes", "is_enabled")
"""The fields that an operator sets."""


@click.group()
@api_options
@click.pass_context
def endpoints(context: click.Context, url: str | None, token_file: Path | None, ca_file: Path | None) -> None:
    """Create endpoints of a running edge, and deploy the handlers that respond to their requests."""
    context.obj = Caller("endpoints", url, token_file, ca_file)


def _path(endpoint_id: str, *more: object) -> str:
    return "/".join(["/api/endpoints", segment(endpoint_id), *map(str, more)])


@endpoints.command("list")
@json_option
@click.pass_obj
def list_(edge: Caller, as_json: bool) -> None:
    """List the endpoints with the counters of their handlers."""
    found = edge.call("GET", "/api/endpoints")
    columns = ("id", "domain", "path", "methods", "serves", *_COUNTS, "draining")
    report(found, as_json, lambda: print_table(columns, map(_row, found["items"])))


def _row(endpoint: dict[str, Any]) -> list[object]:
    shown = [endpoint[name] for name in ("id", "domain", "path", "methods")]
    return [*shown, _serving(endpoint), *(endpoint[name] for name in _COUNTS), len(endpoint["draining"])]


def _serving(endpoint: dict[str, Any]) -> str:
    if not endpoint["is_enabled"]:
        return "disabled"
    if endpoint["serving"] is None:
        return "nothing"
    version = f"version {endpoint['serving']['number']}"
    return version if endpoint["frontends"] else f"{version}, to no frontend"


@endpoints.command("show")
@_ID
@json_option
@click.pass_obj
def show(edge: Caller, endpoint_id: str, as_json: bool) -> None:
    """Show an endpoint."""
    found = edge.call("GET", _path(endpoint_id))
    fields = [(name, found[name]) for name in ("id", *_FIELDS, *_COUNTS)]
    draining = [
        f"version {one['number']}: {counted(one['active'], 'request')}, since {utc(one['draining_since'])}"
        for one in found["draining"]
    ]
    report(found, as_json, lambda: print_fields([*fields, ("serves", _serving(found)), ("draining", draining)]))


def _endpoint_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the fields of an endpoint; those not given are None."""
    for option in (
        click.option("--enabled/--disabled", "is_enabled", default=None, help="Whether the endpoint accepts requests."),
        click.option("--max-body-bytes", type=int, help="Largest body of a request; larger ones get 413."),
        click.option("--max-concurrency", type=int, help="Concurrent requests; more get 503. 0 = no limit."),
        click.option("--timeout", "timeout_seconds", type=float, help="Time limit of a request in seconds; then 504."),
        click.option("--method", "methods", multiple=True, help="Method; may be repeated [default: GET]."),
        click.option("--domain", help="Host name, or *.host for all its subdomains; empty = every host."),
        click.option("--name", help="Display name."),
    ):
        command = option(command)
    return command


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that were given on the command line, as the API takes them."""
    given = {name: value for name, value in fields.items() if value is not None and value != ()}
    if given.get("domain") == "":
        given["domain"] = None
    return given


@endpoints.command("create")
@_ID
@click.option("--path", required=True, help="Path rule in Werkzeug's syntax, such as /users/<int:id>.")
@_endpoint_options
@json_option
@click.pass_obj
def create(edge: Caller, /, endpoint_id: str, as_json: bool, **fields: Any) -> None:
    """Create an endpoint. Until a handler is deployed, its requests get 503."""
    made = edge.call("POST", "/api/endpoints", {"id": endpoint_id, **_given(fields)})
    report(made, as_json, f"endpoint {endpoint_id}: created")


@endpoints.command("update")
@_ID
@click.option("--path", help="Path rule in Werkzeug's syntax, such as /users/<int:id>.")
@_endpoint_options
@json_option
@click.pass_obj
def update(edge: Caller, /, endpoint_id: str, as_json: bool, **fields: Any) -> None:
    """Change the given fields of an endpoint. Its version goes on serving."""
    given = _given(fields)
    if not given:
        raise click.UsageError("give at least one field to change")
    known = edge.call("GET", _path(endpoint_id))
    changed = edge.call("PUT", _path(endpoint_id), {name: known[name] for name in _FIELDS} | given)
    report(changed, as_json, f"endpoint {endpoint_id}: changed")


@endpoints.command("delete")
@_ID
@click.pass_obj
def delete(edge: Caller, endpoint_id: str) -> None:
    """Delete an endpoint and its versions. Requests in progress finish."""
    edge.call("DELETE", _path(endpoint_id))
    click.echo(f"endpoint {endpoint_id}: deleted")


@endpoints.command("versions")
@_ID
@json_option
@click.pass_obj
def versions(edge: Caller, endpoint_id: str, as_json: bool) -> None:
    """List the stored versions of an endpoint's handler, oldest first."""
    found = edge.call("GET", _path(endpoint_id, "versions"))
    rows = [(v["number"], utc(v["created_at"]), utc(v["deployed_at"]), v["checksum"]) for v in found["items"]]
    report(found, as_json, lambda: print_table(("version", "created", "deployed", "sha-256"), rows))


@endpoints.command("upload")
@_ID
@click.argument("file", type=_SOURCE)
@json_option
@click.pass_obj
def upload(edge: Caller, endpoint_id: str, file: TextIO, as_json: bool) -> None:
    """Store the handler in FILE (- is standard input) as the next version, without loading it."""
    kept = edge.call("POST", _path(endpoint_id, "versions"), {"source": edge.read(file)})
    report(kept, as_json, f"endpoint {endpoint_id}: version {kept['number']} stored")


@endpoints.command("compile")
@_ID
@_NUMBER
@json_option
@click.pass_obj
def compile_(edge: Caller, endpoint_id: str, number: int, as_json: bool) -> None:
    """Compile and import version NUMBER and check its entry point, without deploying it."""
    good = edge.call("POST", _path(endpoint_id, "versions", number, "compile"))
    report(good, as_json, f"endpoint {endpoint_id}: version {number} is valid")


@endpoints.command("deploy")
@_ID
@click.argument("file", type=_SOURCE, required=False)
@click.option("--version", "number", type=click.IntRange(min=1), help="Deploy this stored version instead of a FILE.")
@json_option
@click.pass_obj
def deploy(edge: Caller, endpoint_id: str, file: TextIO | None, number: int | None, as_json: bool) -> None:
    """Deploy the handler in FILE (- is standard input) as the next version. The previous version drains.

    If the file is not a valid handler, its traceback is printed and nothing is changed.
    """
    if (file is None) == (number is None):
        raise click.UsageError("give either a FILE or --version")
    if file is not None:
        serves = edge.call("POST", _path(endpoint_id, "deploy"), {"source": edge.read(file)})
    else:
        serves = edge.call("POST", _path(endpoint_id, "versions", number, "deploy"))
    _report_deployed(edge, endpoint_id, serves, as_json)


@endpoints.command("rollback")
@_ID
@json_option
@click.pass_obj
def rollback(edge: Caller, endpoint_id: str, as_json: bool) -> None:
    """Deploy the version that was deployed before the current one. The next rollback goes one further back."""
    _report_deployed(edge, endpoint_id, edge.call("POST", _path(endpoint_id, "roll-back")), as_json)


def _report_deployed(edge: Caller, endpoint_id: str, version: dict[str, Any], as_json: bool) -> None:
    said = f"endpoint {endpoint_id}: version {version['number']} is serving"
    if not edge.call("GET", _path(endpoint_id))["is_enabled"]:
        said = f"endpoint {endpoint_id}: version {version['number']} is deployed, but the endpoint is disabled"
    elif not version["frontends"]:
        said = f"endpoint {endpoint_id}: version {version['number']} is deployed, but no frontend has `gateway: on`"
    report(version, as_json, said)


@endpoints.command("undeploy")
@_ID
@click.pass_obj
def undeploy(edge: Caller, endpoint_id: str) -> None:
    """Take the handler out of service. Requests in progress finish."""
    edge.call("POST", _path(endpoint_id, "undeploy"))
    click.echo(f"endpoint {endpoint_id}: undeployed")
