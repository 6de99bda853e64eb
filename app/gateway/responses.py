"""Converts what a handler returned into a response: status, headers and body.

A werkzeug Response is used as it is; a dict or list becomes JSON, text HTML in UTF-8 (as in Flask), bytes
`application/octet-stream`, an iterator a streamed body, None a 204. `(body, status)`, `(body, headers)` and
`(body, status, headers)` are accepted too. An HTTPException, such as that of `abort`, becomes JSON like the edge's own
errors. The HTTP frontend frames the message: connection headers are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"
BYTES: Final = "application/octet-stream"

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_OF_THE_CONNECTION: Final = frozenset(
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
)
_WITHOUT_BODY: Final = (204, 304)


class BadHandlerResponse(TypeError):
    """A handler returned something that is not a response."""


class HandlerResponse(NamedTuple):
    """A response to send. `body` is complete, or an iterator of parts to send one by one.

    The headers contain `Content-Length` only with an iterator whose length the handler gave. Call `on_close` once,
    after the body was sent or abandoned.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes | Iterator[bytes]
    on_close: Callable[[], None] | None = None


def response_of(returned: object, request: Request) -> HandlerResponse:
    """Convert what a handler returned into a response. Raises BadHandlerResponse."""
    if isinstance(returned, tuple):
        body, status, headers = _parts(returned)
        if isinstance(body, tuple):
            raise BadHandlerResponse("the body in a tuple must not be a tuple itself")
        response = response_of(body, request)
        names = {name.lower() for name, _ in headers}
        kept = [(name, value) for name, value in response.headers if name.lower() not in names]
        if status in _WITHOUT_BODY:
            return response._replace(status=status, headers=[*kept, *headers], body=b"")
        return response._replace(status=response.status if status is None else status, headers=[*kept, *headers])
    if isinstance(returned, str):
        return HandlerResponse(200, [("Content-Type", HTML)], returned.encode(errors="surrogateescape"))
    if isinstance(returned, dict | list):
        return HandlerResponse(200, [("Content-Type", JSON)], _json(returned))
    if returned is None:
        return HandlerResponse(204, [], b"")
    if isinstance(returned, bytes | bytearray | memoryview):
        return HandlerResponse(200, [("Content-Type", BYTES)], bytes(returned))
    if isinstance(returned, HTTPException):
        if returned.code is None and returned.response is None:
            raise BadHandlerResponse(f"{type(returned).__name__} has no status code")
        returned = returned.get_response(request.environ)
    if isinstance(returned, Response):
        return _of_response(returned, request)
    if isinstance(returned, Iterator):
        return HandlerResponse(200, [("Content-Type", BYTES)], _encoded(returned), getattr(returned, "close", None))
    raise BadHandlerResponse(
        f"a handler must return a Response, dict, list, str, bytes, tuple or None, not {returned!r:.100}"
    )


def error_of(error: HTTPException, request: Request, request_id: str) -> HandlerResponse | None:
    """Return an error as JSON, in the form of the edge's own; None if it has a response or a body of its own."""
    is_werkzeugs = error.response is None and type(error).get_body is HTTPException.get_body
    if not is_werkzeugs or error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return None
    headers = [(name, value) for name, value in error.get_headers(request.environ) if name.lower() != "content-type"]
    said = {"status": error.code, "error": error.name, "detail": str(error.description or ""), "request_id": request_id}
    return HandlerResponse(_status(error.code), [("Content-Type", JSON), *_headers(headers)], _json(said) + b"\n")


def _json(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadHandlerResponse(f"the returned value cannot be encoded as JSON: {error}") from error


def _parts(returned: tuple[Any, ...]) -> tuple[object, int | None, list[tuple[str, str]]]:
    match returned:
        case (body, int() | str() as status):
            return body, _status(status), []
        case (body, headers):
            return body, None, _headers(headers)
        case (body, status, headers):
            return body, _status(status), _headers(headers)
    raise BadHandlerResponse(
        f"a tuple must be (body, status), (body, headers) or (body, status, headers), not {returned!r:.100}"
    )


def _status(status: object) -> int:
    """Return a status given as a number, or as text that begins with one. 1xx is refused."""
    if isinstance(status, str) and status[:3].isdecimal() and status[3:4] in ("", " "):
        status = int(status[:3])
    if isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599:
        return int(status)
    raise BadHandlerResponse(f"a status must be a number from 200 to 599, not {status!r:.100}")


def _headers(headers: Any) -> list[tuple[str, str]]:
    """Return the checked headers, without connection headers and Content-Length. Raises BadHandlerResponse."""
    pairs: Iterable[Any] = headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else headers
    checked = []
    try:
        for name, value in pairs:
            text = value if isinstance(value, str) else str(value)
            if not isinstance(name, str) or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(text):
                raise BadHandlerResponse(f"this is not a valid header: {name!r:.100}: {text!r:.100}")
            text.encode("latin-1")
            lower = name.lower()
            if lower not in _OF_THE_CONNECTION and lower != "content-length":
                checked.append((name, text))
    except UnicodeEncodeError:
        raise BadHandlerResponse("a header's value must be Latin-1 (RFC 9110, section 5.5)") from None
    except BadHandlerResponse:
        raise
    except (TypeError, ValueError):
        raise BadHandlerResponse(f"headers must be a dict or pairs, not {headers!r:.100}") from None
    return checked


def _of_response(response: Response, request: Request) -> HandlerResponse:
    status = _status(response.status_code)
    headers = _headers(response.get_wsgi_headers(request.environ))
    if status in _WITHOUT_BODY:
        return HandlerResponse(status, headers, b"", response.close)
    if response.is_sequence:
        return HandlerResponse(status, headers, response.get_data(), response.close)
    length = response.headers.get("Content-Length")
    if length is not None:
        if not (length.isascii() and length.isdecimal()):
            raise BadHandlerResponse(f"this is not a valid Content-Length: {length!r:.100}")
        headers.append(("Content-Length", length))
        return HandlerResponse(status, headers, _of_length(_encoded(response.response), int(length)), response.close)
    return HandlerResponse(status, headers, _encoded(response.response), response.close)


def _of_length(parts: Iterator[bytes], promised: int) -> Iterator[bytes]:
    """Yield exactly `promised` bytes: the client would take any further ones for the next response."""
    left = promised
    for part in parts:
        left -= len(part)
        if left < 0:
            break
        yield part
    if left:
        raise BadHandlerResponse(f"the body must have exactly the {promised} bytes of its Content-Length")


def _encoded(parts: Iterable[Any]) -> Iterator[bytes]:
    for part in parts:
        if isinstance(part, str):
            yield part.encode()
        elif isinstance(part, bytes | bytearray | memoryview):
            yield bytes(part)
        else:
            raise BadHandlerResponse(f"a streamed body must consist of bytes or str, not {part!r:.100}")
