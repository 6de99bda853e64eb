"""What all routes share: registration with scope and documentation, JSON answers, problem details, the audit.

A route is a function that takes the pydantic models `path`, `query` and `body` and returns a model, None (204) or a
response. flask-openapi validates by the models and describes them in /openapi.json.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from http import HTTPStatus
from typing import Annotated, Any, Final, NoReturn, TypeVar, cast

import gevent
from flask import Response, g, request
from flask_openapi import Info, OpenAPI, SecurityScheme, Tag
from loguru import logger
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from werkzeug.exceptions import HTTPException

from actors.runtime import AskTimeoutError
from app.admin.access import Gate
from app.admin.audit import AuditLine, audit_line
from app.admin.problems import MEDIA_TYPE, Problem, ProblemDetails, invalid
from app.domain.client import unmapped
from app.domain.stored import StoreError
from app.domain.tokens import Scope, Token
from app.ports import RepositoryError

OPENAPI_VERSION: Final = "3.1.1"
LARGEST_BODY_BYTES: Final = 1024 * 1024
BODY_SECONDS: Final = 10.0
"""For a client to send the whole body."""
RETRY_AFTER_SECONDS: Final = 1

CHANGING: Final = ("POST", "PUT", "PATCH", "DELETE")
_EVERYWHERE: Final = (400, 401, 403, 422, 429, 500, 503)
"""Problems that any route may answer."""
_WITH_BODY: Final = (408, 413, 415)

View = TypeVar("View", bound=Callable[..., Any])


class Model(BaseModel):
    """What goes in or out: nothing but what it names."""

    model_config = ConfigDict(extra="forbid")


def _canonical(address: str) -> str:
    return unmapped(str(ipaddress.ip_address(address)))


IpAddress = Annotated[
    str,
    AfterValidator(_canonical),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}),
]
"""An address as the edge writes it, from one as people do."""


def with_whole_numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON calls whole numbers (RFC 8259 tells 5.0 from 5 as little as JSON Schema does) as such."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in given.items()
    }


class Page(Model):
    """Which part of a list."""

    first: int = Field(default=0, ge=0, le=2**31 - 1, description="Leave out so many")
    count: int = Field(default=100, ge=1, le=1000, description="Return so many at most")


def next_page(page: Page, total: int) -> int | None:
    """Return the `first` of the page after this one, None when it is the last."""
    return page.first + page.count if page.first + page.count < total else None


class Api:
    """The WSGI application `wsgi`, and the decorators that give it routes. `write_line` takes audit lines.

    `on_answer(status)` is called for every request that is answered.
    """

    def __init__(self, gate: Gate, write_line: Callable[[AuditLine], None], on_response: Callable[[int], None]) -> None:
        self._gate = gate
        self._write_line = write_line
        self._on_response = on_response
        self._scope_of: dict[str, Scope | None] = {}
        self._takes_body: set[str] = set()
        self.wsgi = app = OpenAPI(
            "app.admin",
            info=Info(title="edgeproxy admin API", version="1"),
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")},
            validation_error_model=ProblemDetails,
            validation_error_callback=_refuse_invalid,
            doc_ui=False,
            static_folder=None,
        )
        app.openapi_version = OPENAPI_VERSION  # the library speaks 3.2; nothing it writes needs more than 3.1
        app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY_BYTES + 1  # a chunked body is cut there, not refused
        app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        app.url_map.merge_slashes = False
        app.before_request(self._admit)
        app.after_request(self._finish)
        app.register_error_handler(Problem, _answer_problem)
        app.register_error_handler(HTTPException, _answer_http_exception)
        app.register_error_handler(Exception, _answer_exception)
        app.add_url_rule("/openapi.json", "openapi", lambda: _json(json.dumps(app.api_doc).encode()), methods=["GET"])
        self._scope_of["openapi"] = None
        self._open_to_all: set[str] = set()

    # Registering

    def get(
        self, rule: str, scope: Scope, *, tag: str, response: type[BaseModel], problems: Iterable[int] = ()
    ) -> Callable[[View], View]:
        """Decorate a view that answers GET with a model."""
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
        """Decorate a view that answers POST: with a model and this status, or with None, which is 204."""
        return self._route("post", rule, scope, tag, {status if response else 204: response}, problems)

    def put(
        self, rule: str, scope: Scope, *, tag: str, response: type[BaseModel], problems: Iterable[int] = ()
    ) -> Callable[[View], View]:
        """Decorate a view that answers PUT with a model."""
        return self._route("put", rule, scope, tag, {200: response}, problems)

    def delete(
        self,
        rule: str,
        scope: Scope,
        *,
        tag: str,
        response: type[BaseModel] | None = None,
        problems: Iterable[int] = (),
    ) -> Callable[[View], View]:
        """Decorate a view that answers DELETE: with a model, or with None, which is 204."""
        return self._route("delete", rule, scope, tag, {200 if response else 204: response}, problems)

    def get_open(self, rule: str, name: str, view: Callable[[], Response]) -> None:
        """Add what answers GET to everybody, without a token: nothing that depends on this edge."""
        self.wsgi.add_url_rule(rule, name, view, methods=["GET"])
        self._open_to_all.add(name)

    def get_stream(self, rule: str, scope: Scope, *, tag: str, problems: Iterable[int] = ()) -> Callable[[View], View]:
        """Decorate a view that answers GET with server-sent events."""
        events = {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "Events as they come",
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
    ) -> Callable[[View], View]:
        def register(view: View) -> View:
            name = view.__name__
            takes_body = "body" in view.__annotations__
            documented = {*_EVERYWHERE, *problems, *(_WITH_BODY if takes_body else ())}
            decorate = getattr(self.wsgi, method)(
                rule,
                tags=[Tag(name=tag)],
                operation_id=name,
                endpoint=name,
                security=[{"bearer": [scope]}],
                responses={**responses, **{status: _documented(status) for status in sorted(documented)}},
            )
            decorate(_answering(view, next(iter(responses))))
            self._scope_of[name] = scope
            if takes_body:
                self._takes_body.add(name)
            return view

        return register

    # Around each request

    def _admit(self) -> None:
        """Let a request through to its route, or raise Problem."""
        if request.endpoint in self._open_to_all:
            return
        token = self._gate.admit(request.headers.get("Authorization"), request.remote_addr or "")
        g.token = token
        scope = self._scope_of.get(request.endpoint or "")
        if scope is not None and scope not in token.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            detail = f"token {token.name} lacks the scope {scope}"
            raise Problem(403, detail, headers={"WWW-Authenticate": challenge})
        if request.method in CHANGING and request.endpoint is not None:
            _read_body(is_expected=request.endpoint in self._takes_body)

    def _finish(self, response: Response) -> Response:
        self._on_response(response.status_code)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        token = cast("Token | None", g.get("token"))
        if request.method in CHANGING and token is not None and not g.get("is_unchanged"):
            action = request.endpoint or request.method  # a route that there is not has no name
            self._write_line(
                audit_line(
                    token.name, request.remote_addr or "", action, _target(), response.status_code, g.get("problem")
                )
            )
        return response


def current_token() -> Token:
    """Return the token that the request being answered has shown."""
    return cast(Token, g.token)


def _target() -> str:
    """Return what the request changes, for the audit."""
    if request.endpoint is None:
        return request.path
    return g.get("target") or " ".join(map(str, (request.view_args or {}).values()))


def say_target(target: str) -> None:
    """Tell the audit what is being changed, where the path does not say it."""
    g.target = target


def say_unchanged() -> None:
    """Tell the audit that nothing was changed after all, as by a heartbeat."""
    g.is_unchanged = True


def json_response(body: bytes, status: int = 200) -> Response:
    """Return JSON that is encoded already."""
    return _json(body, status)


def _json(body: bytes, status: int = 200, media_type: str = "application/json") -> Response:
    return Response(body, status, mimetype=media_type)


def _answering(view: View, status: int) -> View:
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
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}


def _read_body(*, is_expected: bool) -> None:
    """Read the body in time and see that it is a JSON object. Raises Problem."""
    if (request.content_length or 0) > LARGEST_BODY_BYTES:
        raise _too_large()
    with gevent.Timeout(BODY_SECONDS, Problem(408, "the body did not come in time", headers={"Connection": "close"})):
        body = request.get_data()
    if len(body) > LARGEST_BODY_BYTES:
        raise _too_large()
    if not is_expected:
        if body:
            raise Problem(400, "this request takes no body")
        return
    if not body:
        return
    if not request.is_json:
        raise Problem(415, "the body must be application/json")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise Problem(422, "the body must be a JSON object")


def _too_large() -> Problem:
    return Problem(413, f"a body has {LARGEST_BODY_BYTES} bytes at most", headers={"Connection": "close"})


def _refuse_invalid(error: ValidationError) -> NoReturn:
    raise invalid(error) from None


def _answer_problem(problem: Problem) -> Response:
    g.problem = "; ".join([problem.detail, *(f"{fault.where}: {fault.rule}" for fault in problem.errors)])
    response = _json(problem.body(), problem.status, MEDIA_TYPE)
    response.headers.update(problem.headers)
    return response


def _answer_http_exception(error: HTTPException) -> Response:
    """Answer what Flask itself refuses: an unknown path, a wrong method."""
    detail = "there is nothing here" if error.code == 404 else error.description
    headers = {name: text for name, text in error.get_headers() if name == "Allow"}
    return _answer_problem(Problem(error.code or 500, detail or "refused", headers=headers))


def _answer_exception(error: Exception) -> Response:
    if isinstance(error, AskTimeoutError | RepositoryError | StoreError):
        return _answer_problem(Problem(503, str(error), headers={"Retry-After": str(RETRY_AFTER_SECONDS)}))
    logger.opt(exception=error).error("admin: {} {} failed", request.method, request.path)
    return _answer_problem(Problem(500, "an internal error; the log has its traceback"))
