"""Loads the configuration for all commands that need it. Defines the options that override environment and file."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping

import click

from app.commands.env_file import applied_env_file
from app.commands.output import fail
from app.config import Config, ConfigError, load


def load_or_exit(overrides: Mapping[str, str] | None = None) -> Config:
    """Load the configuration, or print every fault and exit with 2."""
    _raise_descriptor_limit()
    try:
        return load(os.environ, overrides=overrides)
    except ConfigError as error:
        file = applied_env_file()
        fail("edgeproxy", *(file.locate(fault) if file else fault for fault in error.faults))


def _raise_descriptor_limit() -> None:
    """Raise the descriptor limit to the hard limit. The limits of a configuration are validated against it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def configuration_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that override the environment and the file. They arrive as keyword arguments."""
    for name, metavar, text in (
        ("log-format", "json|text", "Format of the log."),
        ("log-level", "LEVEL", "Lowest level that is logged: debug, info, warning or error."),
        ("config", "FILE", "YAML file of frontends and backends."),
    ):
        command = click.option(f"--{name}", metavar=metavar, help=text)(command)
    return command


def given(options: Mapping[str, str | None]) -> dict[str, str]:
    """Return the options that were given, as overrides for load_or_exit."""
    return {name: text for name, text in options.items() if text is not None}
