"""Commands for authors of handlers: check a file, and run it on one request without an edge."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import click
from loguru import logger
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from app.commands.output import EXIT_FAILED, fail
from app.domain.endpoints import BadEndpoint, Endpoint, MethodNotAllowed, parse_endpoint
from app.domain.handler_table import Grant, Version
from app.gateway.call import BodyFailed, call_handler
from app.gateway.context import Context, NoServices
from app.gateway.handler_module import HandlerError, LoadedHandler, load_handler
from app.gateway.responses import HandlerResponse
from app.gateway.router import Router
from app.gateway.workers import Worker

_REQUEST_KEYS = ("method", "path", "headers", "body", "json")


def _fail(*lines: str) -> NoReturn:
    fail("handler", *lines)


@click.group()
def handler() -> None:
    """Check and run handlers, the Python files that respond to the requests of an endpoint."""


_FILE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@handler.command("check")
@_FILE
def check(file: Path) -> None:
    """Compile and import FILE and check its entry point, as a deployment would."""
    _load(file)
    click.echo(f"{file}: valid")


@handler.command("run")
@_FILE
@click.argument("method", required=False)
@click.argument("path", required=False)
@click.option(
    "--request",
    "request_file",
    type=click.File("r", encoding="utf-8"),
    help="JSON object with method, path, headers and body (text) or json; - is standard input.",
)
@click.option("--rule", help="Path rule of the endpoint, such as /users/<int:id>, for the parameters of the handler.")
def run(file: Path, method: str | None, path: str | None, request_file: Any, rule: str | None) -> None:
    """Call the handler in FILE with one request, METHOD PATH or --request, and print the response.

    Services are not available. Exits with 1 if the handler failed.
    """
    if (request_file is None) == (path is None):
        raise click.UsageError("give either METHOD PATH or --request")
    request = _request(_given(request_file) if request_file is not None else {"method": method, "path": path})
    endpoint, params = _endpoint(request, rule)
    logger.remove()
    logger.add(sys.stderr, format=_line)
    loaded = _load(file)
    context = Context(str(uuid.uuid4()), endpoint.id, 1, params, NoServices())
    worker = Worker(lambda: None)
    called = call_handler(worker, Grant(1, endpoint, params, Version(1, "", 0.0), loaded), request, context)
    is_complete = _print(called.response, has_body=request.method != "HEAD")
    sys.exit(EXIT_FAILED if called.reason is not None or not is_complete else 0)


def _line(record: Any) -> str:
    """Return loguru's format of an event: with its traceback, if it has one."""
    return "{level}: {message}\n" + ("{extra[traceback]}" if "traceback" in record["extra"] else "{exception}")


def _load(file: Path) -> LoadedHandler:
    try:
        return load_handler(file.name, file.read_text(encoding="utf-8"))
    except HandlerError as error:
        click.echo(error.traceback, err=True, nl=False)
        _fail(f"{file}: {error}")
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"{file}: {error}")


def _given(file: Any) -> dict[str, Any]:
    try:
        given = json.load(file)
    except ValueError as error:
        _fail(f"the request is not JSON: {error}")
    if not isinstance(given, dict) or set(given) - set(_REQUEST_KEYS):
        _fail(f"the request must be an object with keys of {', '.join(_REQUEST_KEYS)}")
    return given


def _request(given: dict[str, Any]) -> Request:
    """Build the request. The path may have a query, and may be a whole URL."""
    headers, body = given.get("headers") or {}, given.get("body")
    method, path = given.get("method") or "GET", given.get("path") or "/"
    if not (isinstance(headers, dict) and isinstance(method, str) and isinstance(path, str)):
        _fail("method and path must be text, headers an object")
    if body is not None and not isinstance(body, str):
        _fail("body must be text; use json for other JSON")
    url = urlsplit(path)
    builder = EnvironBuilder(
        path=url.path or "/",
        base_url=f"{url.scheme or 'http'}://{url.netloc or 'localhost'}/",
        query_string=url.query,
        method=method.upper(),
        headers=[(str(name), str(value)) for name, value in headers.items()],
        data=body,
        json=given.get("json") if body is None else None,
    )
    return Request(builder.get_environ())


def _endpoint(request: Request, rule: str | None) -> tuple[Endpoint, dict[str, Any]]:
    """Return the endpoint, and the parameters in the path."""
    if rule is None:
        return Endpoint("local", "local", request.path, methods=(request.method,)), {}
    try:
        endpoint = parse_endpoint({"id": "local", "path": rule, "methods": [request.method]})
    except BadEndpoint as bad:
        _fail(*map(str, bad.faults))
    match = Router([endpoint]).match(request.host, request.path, request.method)
    if match is None or isinstance(match, MethodNotAllowed):
        _fail(f"{request.path} does not match {rule}")
    return endpoint, dict(match.params)


def _print(response: HandlerResponse, *, has_body: bool) -> bool:
    """Print status and headers to stderr, and the body to stdout. Returns whether the body was complete."""
    click.echo(f"{response.status}", err=True)
    for name, value in response.headers:
        click.echo(f"{name}: {value}", err=True)
    click.echo(err=True)
    parts: Iterable[bytes] = [response.body] if isinstance(response.body, bytes) else response.body
    try:
        for part in parts:
            click.echo(part if has_body else b"", nl=False)
    except BodyFailed:
        return False
    finally:
        if response.on_close is not None:
            response.on_close()
    return True
