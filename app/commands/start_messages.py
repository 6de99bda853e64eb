"""What a person reads who starts an edge: where it listens, or which setting keeps it from that."""

from __future__ import annotations

import os
from typing import cast

import click

from app.commands.env_file import applied_env_file
from app.config import Config, ListenAddress, variable
from app.config.yaml_text import read_yaml
from app.edge.edge import Edge
from app.edge.readiness import readiness
from app.inbound.listener import BindError


def print_ready(edge: Edge) -> None:
    """Print on standard output where clients connect, where the page is, and where its token lies.

    Raises what asking the registry raises.
    """
    config, admin = edge.config, edge.parts.admin
    addresses = [str(address) for found in edge.listeners.addresses.values() for address in found]
    is_ready, details = readiness(edge.parts)
    state = "ready" if is_ready else "not ready ({})".format("; ".join(cast("list[str]", details["reasons"])))
    click.echo(f"{state}: clients connect to {', '.join(addresses)}")
    if admin is not None:
        scheme = "http" if config.admin_tls_cert is None else "https"
        click.echo(f"web page and admin API: {scheme}://{_reachable(admin.address)}/")
        click.echo(f"their token: {config.admin_token_file.absolute()}")


def _reachable(address: ListenAddress) -> ListenAddress:
    """Return an address to connect to, on this machine."""
    return ListenAddress("localhost", address.port) if address.is_wildcard else address


def worded(config: Config, fault: str | BindError) -> str:
    """Return a fault of a start; one of a listener begins with the file and line, or the variable, that sets it."""
    return f"{_origin_of(config, fault)}: {fault}" if isinstance(fault, BindError) else fault


def _origin_of(config: Config, error: BindError) -> str:
    """Return the file and line, or the variable, that has the address of a listener that could not be opened."""
    name = variable(error.setting)
    if config.config_path is not None and error.setting in ("listen_addr", "metrics_listen_addr"):
        line = _line(config, error)
        if line is not None and (error.frontend or name not in os.environ):
            return f"{config.config_path}:{line}"
    file = applied_env_file()
    return file.locate(name) if file is not None else name


def _line(config: Config, error: BindError) -> int | None:
    """Return the line of the configuration file, None if it says nothing or cannot be read any more."""
    assert config.config_path is not None
    try:
        document = read_yaml(config.config_path.read_bytes())
        if not error.frontend:
            return document.line_of.get(("global", "metrics", "listen"))
        names = [one["name"] for one in document.value["frontends"]]
        return document.line_of.get(("frontends", names.index(error.frontend), "listen"))
    except (OSError, LookupError, TypeError, ValueError):  # it has changed meanwhile
        return None
