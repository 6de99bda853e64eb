"""Commands for the services that handlers use: create, test, replace and delete them at a running edge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

import click

from app.commands.caller import Caller, api_options
from app.commands.output import json_option, print_fields, print_table, report
from app.outbound.admin_api import segment

_NAME = click.argument("name")
_KIND = click.argument("kind")
_SETTINGS = click.argument("file", type=click.File("r", encoding="utf-8-sig"))
_COUNTS = ("connected", "in_use", "depth", "served", "errors", "timeouts", "busy", "down")


@click.group()
@api_options
@click.pass_context
def services(context: click.Context, url: str | None, token_file: Path | None, ca_file: Path | None) -> None:
    """Manage the services of a running edge: the databases, caches, storages and mail servers of its handlers."""
    context.obj = Caller("services", url, token_file, ca_file)


def _path(name: str, *more: str) -> str:
    return "/".join(["/api/services", segment(name), *more])


@services.command("list")
@json_option
@click.pass_obj
def list_(edge: Caller, as_json: bool) -> None:
    """List the services with the state of their connections."""
    found = edge.call("GET", "/api/services")
    rows = [
        (one["name"], one["kind"], one["settings"]["engine"], *(one[name] for name in _COUNTS), _state(one))
        for one in found["items"]
    ]
    report(found, as_json, lambda: print_table(("name", "kind", "engine", *_COUNTS, "state"), rows))


def _state(service: dict[str, Any]) -> str:
    state = "up" if service["is_up"] else f"down: {service['reason']}"
    return f"{state} (being replaced)" if service["is_being_replaced"] else state


@services.command("show")
@_NAME
@json_option
@click.pass_obj
def show(edge: Caller, name: str, as_json: bool) -> None:
    """Show a service and its settings, with secrets masked."""
    found = edge.call("GET", _path(name))
    fields = [("name", found["name"]), ("kind", found["kind"]), ("state", _state(found))]
    fields += [(count, found[count]) for count in _COUNTS]
    report(found, as_json, lambda: print_fields([*fields, *found["settings"].items()]))


@services.command("create")
@_NAME
@_KIND
@_SETTINGS
@json_option
@click.pass_obj
def create(edge: Caller, name: str, kind: str, file: TextIO, as_json: bool) -> None:
    """Create a service with the settings in FILE, a JSON object (- is standard input).

    KIND is database, cache, storage or email. If the service cannot be reached, the edge keeps trying.
    """
    made = edge.call("POST", "/api/services", {"name": name, "kind": kind, "settings": _settings(edge, file)})
    report(made, as_json, f"service {name}: created, {_state(made)}")


@services.command("replace")
@_NAME
@_KIND
@_SETTINGS
@click.option("--even-if-down", is_flag=True, help="Replace even if the new settings give no connection.")
@json_option
@click.pass_obj
def replace(edge: Caller, name: str, kind: str, file: TextIO, even_if_down: bool, as_json: bool) -> None:
    """Give a service the settings in FILE. New connections are opened before the old ones are closed."""
    body = {"kind": kind, "settings": _settings(edge, file)}
    replaced = edge.call("PUT", _path(name), body, {"even_if_down": str(even_if_down).lower()})
    report(replaced, as_json, f"service {name}: replaced, {_state(replaced)}")


def _settings(edge: Caller, file: TextIO) -> dict[str, Any]:
    """Parse the settings in a file. Exits with 2."""
    try:
        settings = json.loads(edge.read(file))
    except ValueError as error:
        edge.fail(f"the settings are not JSON: {error}")
    if not isinstance(settings, dict):
        edge.fail("the settings must be a JSON object")
    return settings


@services.command("test")
@_NAME
@json_option
@click.pass_obj
def test(edge: Caller, name: str, as_json: bool) -> None:
    """Open a connection of a service and check that the server responds."""
    result = edge.call("POST", _path(name, "test"))
    report(result, as_json, f"service {name}: responds after {result['seconds'] * 1000:.1f} ms")


@services.command("delete")
@_NAME
@click.pass_obj
def delete(edge: Caller, name: str) -> None:
    """Close the connections of a service and delete it."""
    edge.call("DELETE", _path(name))
    click.echo(f"service {name}: deleted")
