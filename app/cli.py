"""The command line: which commands there are. `python -m app --help` lists them."""

import click

from app.commands import (
    backends,
    configuration,
    endpoints,
    explain,
    handlers,
    mesh,
    register,
    replicate,
    serve,
    services,
    simulate,
    tokens,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A geo-aware, sticky TCP and HTTP proxy. Configured by EDGEPROXY_ variables and a YAML file."""


for command in (
    serve.serve,
    configuration.check,
    configuration.schema,
    explain.explain,
    simulate.simulate,
    backends.backends,
    endpoints.endpoints,
    services.services,
    tokens.tokens,
    handlers.handler,
    register.register,
    replicate.replicate,
    mesh.mesh,
):
    main.add_command(command)
