"""Commands for the tokens of the admin API: list, create and revoke at a running edge; reset in its database."""

from __future__ import annotations

from pathlib import Path

import click

from app.commands.caller import Caller, admin_token_file, api_options
from app.commands.output import EXIT_FAILED, fail, json_option, print_table, report
from app.config import Settings, variable
from app.domain.stored import StoreError
from app.outbound.admin_api import segment
from app.outbound.peewee_tokens import SqliteTokenStore
from app.outbound.token_file import make_first_token, write_token

COMMANDS = "tokens"
DEFAULT_DATABASE = Settings.model_fields["gateway_db_path"].default


@click.group()
@api_options
@click.pass_context
def tokens(context: click.Context, url: str | None, token_file: Path | None, ca_file: Path | None) -> None:
    """Manage the tokens of the admin API of a running edge."""
    context.obj = Caller(COMMANDS, url, token_file, ca_file)


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
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the token to this file, which its owner alone may read, instead of printing it.",
)
@json_option
@click.pass_obj
def create(edge: Caller, name: str, scopes: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Create a token and print it. It cannot be shown again."""
    if output is not None and not output.absolute().parent.is_dir():
        edge.fail(f"{output}: there is no such folder")
    made = edge.call("POST", "/api/tokens", {"name": name, "scopes": scopes})
    if output is None:
        report(made, as_json, made["token"])
        return
    try:
        write_token(output, made.pop("token"))
    except OSError as error:
        edge.call("DELETE", f"/api/tokens/{segment(name)}")  # nobody knows its text
        fail(COMMANDS, f"{output}: {error.strerror}; token {name} was revoked", code=EXIT_FAILED)
    report(made, as_json, f"token {name}: written to {output}")


@tokens.command("revoke")
@click.argument("name")
@click.pass_obj
def revoke(edge: Caller, name: str) -> None:
    """Revoke a token, at once."""
    edge.call("DELETE", f"/api/tokens/{segment(name)}")
    click.echo(f"token {name}: revoked")


@tokens.command("reset")
@click.option(
    "--db",
    "database",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    envvar=variable("gateway_db_path"),
    default=DEFAULT_DATABASE,
    help=f"Database of the edge [default: {variable('gateway_db_path')}, else {DEFAULT_DATABASE}].",
)
def reset(database: Path) -> None:
    """Replace every token by a new one with every scope, for who has lost them all.

    Changes the database on this machine, without asking the edge, and keeps everything else in it. The new token is
    written to the file that EDGEPROXY_ADMIN_TOKEN_FILE names, else admin.token.
    """
    file = admin_token_file()
    try:
        count = SqliteTokenStore(database).replace_all(make_first_token(file))
    except OSError as error:
        fail(COMMANDS, f"the token cannot be written to {file}: {error.strerror}", code=EXIT_FAILED)
    except StoreError as error:
        fail(COMMANDS, str(error), code=EXIT_FAILED)
    click.echo(f"the new token is in {file}; former tokens removed: {count}")
