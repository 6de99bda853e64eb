"""What all routes share: registration with scope and description, JSON responses, problem details, the audit.

A route is a function that takes the pydantic models `path`, `query` and `body` and returns a model, None (204) or a
response. flask-openapi validates requests with the models and describes them in /openapi.json.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from http import HTTPStatus
from typing import Annotated, Any, Final, NoReturn, TypeVar, cast

import gevent
import msgspec
from flask import Request, Response, g, request
from flask_openapi import Info, OpenAPI, SecurityScheme, Tag
from loguru import logger
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from actors.runtime import AskTimeoutError
from app.admin.access import Authenticator
from app.admin.audit import AuditLine, audit_line
from app.admin.problems import MEDIA_TYPE, Problem, ProblemDetails, invalid
from app.domain.client import unmapped
from app.domain.stored import RowDamaged, StoreError, StoreFull
from app.domain.tokens import Scope, Token
from app.ports import RepositoryConflict, RepositoryDenied, RepositoryError, RepositoryFull

OPENAPI_VERSION: Final = "3.1.1"
LARGEST_BODY_BYTES: Final = 1024 * 1024
LARGEST_BULK_BYTES: Final = 16 * LARGEST_BODY_BYTES
"""Ten thousand backends whose texts are as long as they may be are 14.2 MiB."""
BODY_SECONDS: Final = 10.0
"""Limit for receiving a body, for each LARGEST_BODY_BYTES that it may have."""
RETRY_AFTER_SECONDS: Final = 1

CHANGING: Final = ("POST", "PUT", "PATCH", "DELETE")
_EVERYWHERE: Final = (400, 401, 403, 422, 429, 500, 503)
"""Problem statuses of any route."""
_WITH_BODY: Final = (408, 413, 415)
_WHY: Final = {
    401: "The request has no valid token",
    403: "The token lacks the scope of the operation",
    429: "In place of 401, after ten requests without a valid token from one address. A valid token always passes",
    503: "A database or an actor does not respond now",
}
_HEADERS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
_UNMENDED_BY_RETRY: Final = {
    RepositoryConflict: 409,
    RepositoryFull: 507,
    RepositoryDenied: 500,
    RowDamaged: 409,
    StoreFull: 507,
}
"""RFC 9110 15.5.10 and 15.6.1, RFC 4918 11.5: the same request fails until somebody has changed something else."""

View = TypeVar("View", bound=Callable[..., Any])


class Model(BaseModel):
    """A request or response; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


def _canonical(address: str) -> str:
    return unmapped(str(ipaddress.ip_address(address)))


IpAddress = Annotated[
    str,
    AfterValidator(_canonical),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}),
]
"""An IP address, converted to the edge's spelling."""


def with_whole_numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert whole floats to int: in JSON (RFC 8259) and JSON Schema 5.0 and 5 are the same number."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in given.items()
    }


class Page(Model):
    """Selects a part of a list."""

    first: int = Field(default=0, ge=0, le=2**31 - 1, description="Number of items to skip")
    count: int = Field(default=100, ge=1, le=1000, description="Maximum number of items to return")


def next_page(page: Page, total: int) -> int | None:
    """Return `first` of the next page, None if this is the last."""
    return page.first + page.count if page.first + page.count < total else None


class Api:
    """The WSGI application `wsgi`, and the decorators that add routes to it. `write_line` writes audit lines.

    `on_response(status)` is called for every response.
    """

    def __init__(
        self, authenticator: Authenticator, write_line: Callable[[AuditLine], None], on_response: Callable[[int], None]
    ) -> None:
        self._authenticator = authenticator
        self._write_line = write_line
        self._on_response = on_response
        self._scope_of: dict[str, Scope | None] = {}
        self._largest_body: dict[str, int] = {}
        """Bytes, for the routes that take a body."""
        self.wsgi = app = OpenAPI(
            "app.admin",
            info=Info(title="edgeproxy admin API", version="1"),
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")},
            validation_error_model=ProblemDetails,
            validation_error_callback=_refuse_invalid,
            doc_ui=False,
            static_folder=None,
        )
        app.openapi_version = OPENAPI_VERSION  # the library declares 3.2; its output needs only 3.1
        app.request_class = _Request
        app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        app.url_map.merge_slashes = False
        app.url_map.converters["path"] = _AnyName
        app.before_request(self._authorize)
        app.after_request(self._finish)
        app.register_error_handler(Problem, _problem_response)
        app.register_error_handler(HTTPException, _http_exception_response)
        app.register_error_handler(Exception, _exception_response)
        app.add_url_rule("/openapi.json", "openapi", lambda: _json(json.dumps(app.api_doc).encode()), methods=["GET"])
        self._scope_of["openapi"] = None
        self._open_to_all: set[str] = set()

    # Registering

    def get(
        self, rule: str, scope: Scope, *, tag: str, response: type[BaseModel], problems: Iterable[int] = ()
    ) -> Callable[[View], View]:
        """Add a GET route; its view returns a model."""
        return self._route("get", rule, scope, tag, {200: response}, problems)

    def post(
        self,
        rule: str,
        scope: Scope,
        *,
        tag: str,
        response: type[BaseModel] | None = None,
        status: int = 200,
        problems: Iterable[int] = (),
    ) -> Callable[[View], View]:
        """Add a POST route; its view returns a model, sent with `status`, or None (204)."""
        return self._route("post", rule, scope, tag, {status if response else 204: response}, problems)

    def put(
        self,
        rule: str,
        scope: Scope,
        *,
        tag: str,
        response: type[BaseModel],
        problems: Iterable[int] = (),
        is_bulk: bool = False,
    ) -> Callable[[View], View]:
        """Add a PUT route; its view returns a model.

        With `is_bulk`, the body may have LARGEST_BULK_BYTES, and its fields arrive as JSON (msgspec.Raw): to decode
        them at once would block the event loop for too long.
        """
        return self._route("put", rule, scope, tag, {200: response}, problems, is_bulk=is_bulk)

    def delete(
        self,
        rule: str,
        scope: Scope,
        *,
        tag: str,
        response: type[BaseModel] | None = None,
        problems: Iterable[int] = (),
    ) -> Callable[[View], View]:
        """Add a DELETE route; its view returns a model or None (204)."""
        return self._route("delete", rule, scope, tag, {200 if response else 204: response}, problems)

    def get_open(self, rule: str, name: str, view: Callable[[], Response]) -> None:
        """Add a GET route without authentication, for content that reveals nothing about this edge."""
        self.wsgi.add_url_rule(rule, name, view, methods=["GET"])
        self._open_to_all.add(name)

    def get_stream(self, rule: str, scope: Scope, *, tag: str, problems: Iterable[int] = ()) -> Callable[[View], View]:
        """Add a GET route; its view returns a stream of server-sent events."""
        events = {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "A stream of events",
        }
        return self._route("get", rule, scope, tag, {200: events}, problems)

    def _route(
        self,
        method: str,
        rule: str,
        scope: Scope,
        tag: str,
        responses: dict[int, Any],
        problems: Iterable[int],
        *,
        is_bulk: bool = False,
    ) -> Callable[[View], View]:
        def register(view: View) -> View:
            name = view.__name__
            takes_body = "body" in view.__annotations__
            full = (507,) if method != "get" else ()
            documented = {*_EVERYWHERE, *problems, *full, *(_WITH_BODY if takes_body else ())}
            decorate = getattr(self.wsgi, method)(
                rule,
                tags=[Tag(name=tag)],
                operation_id=name,
                endpoint=name,
                security=[{"bearer": [scope]}],
                responses={**responses, **{status: _documented(status) for status in sorted(documented)}},
            )
            decorate(_with_response(view, next(iter(responses))))
            self._scope_of[name] = scope
            if takes_body:
                self._largest_body[name] = LARGEST_BULK_BYTES if is_bulk else LARGEST_BODY_BYTES
            return view

        return register

    # Around each request

    def _authorize(self) -> None:
        """Check the token, its scope and the body. Raises Problem."""
        if request.endpoint in self._open_to_all:
            return
        token = self._authenticator.authenticate(request.headers.get("Authorization"), request.remote_addr or "")
        g.token = token
        scope = self._scope_of.get(request.endpoint or "")
        if scope is not None and scope not in token.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            detail = f"token {token.name} lacks the scope {scope}"
            raise Problem(403, detail, headers={"WWW-Authenticate": challenge})
        if request.method in CHANGING and request.endpoint is not None:
            _read_body(self._largest_body.get(request.endpoint))

    def _finish(self, response: Response) -> Response:
        self._on_response(response.status_code)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        token = cast("Token | None", g.get("token"))
        if request.method in CHANGING and token is not None and not g.get("skips_audit"):
            action = request.endpoint or request.method  # an unknown route has no name
            self._write_line(
                audit_line(
                    token.name, request.remote_addr or "", action, _target(), response.status_code, g.get("problem")
                )
            )
        return response


def current_token() -> Token:
    """Return the token of the current request."""
    return cast(Token, g.token)


def _target() -> str:
    """Return the object that the request changes, for the audit."""
    if request.endpoint is None:
        return request.path
    return g.get("target") or " ".join(map(str, (request.view_args or {}).values()))


def set_audit_target(target: str) -> None:
    """Set the audit line's target if it is not in the path."""
    g.target = target


def skip_audit() -> None:
    """Write no audit line: the request changed nothing, such as a heartbeat."""
    g.skips_audit = True


def json_response(body: bytes, status: int = 200) -> Response:
    """Return a response with encoded JSON."""
    return _json(body, status)


def _json(body: bytes, status: int = 200, media_type: str = "application/json") -> Response:
    return Response(body, status, mimetype=media_type)


def _with_response(view: View, status: int) -> View:
    @wraps(view)
    def response(**arguments: Any) -> Response:
        result = view(**arguments)
        if result is None:
            return Response(status=204)
        if isinstance(result, Response):
            return result
        return _json(result.model_dump_json(by_alias=True).encode(), status)

    return cast(View, response)


def _documented(status: int) -> dict[str, Any]:
    """Return the description of a problem."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    described = {
        "description": _WHY.get(status, HTTPStatus(status).phrase),
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
    headers = {name: {"schema": {"type": "string"}} for name in _HEADERS.get(status, ())}
    return {**described, "headers": headers} if headers else described


class _AnyName(BaseConverter):
    """A part of a path with slashes, line breaks or nothing in it: what is stored need not be a valid id."""

    part_isolating = False
    regex = "(?s:.*?)"
    weight = 200


class _Request(Request):
    """A request whose body is decoded once, by `_read_body`."""

    def get_json(self, *_arguments: object, **_options: object) -> Any:
        return g.get("body")


def _read_body(largest: int | None) -> None:
    """Read a body of at most `largest` bytes (None: without one), and decode it. Raises Problem."""
    limit = largest or LARGEST_BODY_BYTES
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    request.max_content_length = limit + 1  # a chunked body is truncated there, not refused
    seconds = BODY_SECONDS * limit / LARGEST_BODY_BYTES
    with gevent.Timeout(seconds, Problem(408, "the body was not received in time", headers={"Connection": "close"})):
        body = request.get_data()
    if len(body) > limit:
        raise _too_large(limit)
    if largest is None:
        if body:
            raise Problem(400, "this request must not have a body")
        return
    if not body:
        return
    if not request.is_json:
        raise Problem(415, "the body must be application/json")
    g.body = _decoded(body, is_bulk=largest > LARGEST_BODY_BYTES)


def _decoded(body: bytes, *, is_bulk: bool) -> dict[str, Any]:
    """Decode a JSON object; with `is_bulk` leave its fields encoded. Raises Problem."""
    try:
        decoded = msgspec.json.decode(body, type=dict[str, msgspec.Raw]) if is_bulk else json.loads(body)
    except msgspec.ValidationError:
        decoded = None
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise Problem(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(decoded, dict):
        raise Problem(422, "the body must be a JSON object")
    return decoded


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body must not be larger than {limit} bytes", headers={"Connection": "close"})


def _refuse_invalid(error: ValidationError) -> NoReturn:
    raise invalid(error) from None


def _problem_response(problem: Problem) -> Response:
    g.problem = "; ".join([problem.detail, *(f"{fault.where}: {fault.rule}" for fault in problem.errors)])
    response = _json(problem.body(), problem.status, MEDIA_TYPE)
    response.headers.update(problem.headers)
    return response


def _http_exception_response(error: HTTPException) -> Response:
    """Return the response for an error of Flask's own: an unknown path, a wrong method."""
    detail = "no such route" if error.code == 404 else error.description
    headers = {name: text for name, text in error.get_headers() if name == "Allow"}
    return _problem_response(Problem(error.code or 500, detail or "refused", headers=headers))


def _exception_response(error: Exception) -> Response:
    if status := next((status for kind, status in _UNMENDED_BY_RETRY.items() if isinstance(error, kind)), None):
        return _problem_response(Problem(status, str(error)))
    if isinstance(error, AskTimeoutError | RepositoryError | StoreError | TimeoutError):
        return _problem_response(Problem(503, str(error), headers={"Retry-After": str(RETRY_AFTER_SECONDS)}))
    logger.opt(exception=error).error("admin: {} {} failed", request.method, request.path)
    return _problem_response(Problem(500, "internal error; the log has the traceback"))
