"""Commands for the tokens of the admin API: list, create, revoke."""

from __future__ import annotations

from pathlib import Path

import click

from app.commands.caller import Caller, api_options
from app.commands.output import json_option, print_table, report
from app.outbound.admin_api import segment


@click.group()
@api_options
@click.pass_context
def tokens(context: click.Context, url: str | None, token_file: Path | None, ca_file: Path | None) -> None:
    """Manage the tokens of the admin API of a running edge."""
    context.obj = Caller("tokens", url, token_file, ca_file)


@tokens.command("list")
@json_option
@click.pass_obj
def list_(edge: Caller, as_json: bool) -> None:
    """List the tokens, without their values."""
    found = edge.call("GET", "/api/tokens")
    rows = [(one["name"], one["scopes"], one["created_at"]) for one in found["items"]]
    report(found, as_json, lambda: print_table(("name", "scopes", "created"), rows))


@tokens.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="read, operate or deploy; may be repeated.")
@json_option
@click.pass_obj
def create(edge: Caller, name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Create a token and print it. It cannot be shown again."""
    made = edge.call("POST", "/api/tokens", {"name": name, "scopes": scopes})
    report(made, as_json, made["token"])


@tokens.command("revoke")
@click.argument("name")
@click.pass_obj
def revoke(edge: Caller, name: str) -> None:
    """Revoke a token, at once."""
    edge.call("DELETE", f"/api/tokens/{segment(name)}")
    click.echo(f"token {name}: revoked")
