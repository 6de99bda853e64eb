"""The schema of a frontend's `http` options: time limits, headers, and the edge's own responses.

Field names carry units. The keys of the file are their aliases without units (`head_timeout: 3s`).
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from app.config import patterns
from app.config.section import Section
from app.config.values import Duration, Networks, Switch, Whole

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header: RFC 9110, section 5.6.2."""
_HEADER_VALUE: Final = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
"""The value of a header: RFC 9110, section 5.5, without obs-text."""
_SECRET_HEADERS: Final = frozenset(("authorization", "proxy-authorization", "cookie"))
_FIXED_HEADERS: Final = frozenset(
    [
        *["host", "content-length", "transfer-encoding", "trailer", "expect"],
        *["connection", "keep-alive", "proxy-connection", "te", "upgrade"],
    ]
)
"""Headers that the edge itself manages: framing and hop-by-hop (RFC 9110, section 7.6.1)."""


def _any_case(name: str) -> str:
    """Return a pattern for a name in capitals or not, in the dialect of JSON Schema, which has no flags."""
    return "".join(f"[{one.upper()}{one}]" if one.isalpha() else one for one in name)


def _validate_header_changes(changes: HeaderChanges) -> HeaderChanges:
    named = [*changes.set, *changes.remove]
    lower = [name.lower() for name in named]
    faults = [
        f"{name!r} is not a valid header name (RFC 9110, section 5.6.2)" for name in named if not _TOKEN.fullmatch(name)
    ]
    faults += [
        f"{name} is managed by the edge and cannot be changed" for name in named if name.lower() in _FIXED_HEADERS
    ]
    faults += [f"{name} is listed twice" for name in dict.fromkeys(lower) if lower.count(name) > 1]
    for name, value in changes.set.items():
        if not _HEADER_VALUE.fullmatch(value):
            faults.append(f"{name}: {value!r} needs printable ASCII, without spaces at either end")
    if faults:
        raise ValueError("; ".join(faults))
    return changes


HeaderName = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^(?!({'|'.join(_any_case(name) for name in sorted(_FIXED_HEADERS))})$){_TOKEN.pattern}$",
            "description": "Name of a header, except those of framing and of one connection",
        }
    ),
]
HeaderValue = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{_HEADER_VALUE.pattern}$",
            "description": "Value of a header: printable ASCII, without spaces at either end",
        }
    ),
]


class HeaderChanges(Section):
    """Headers to set, replacing those of the same name, and headers to remove."""

    set: dict[HeaderName, HeaderValue] = Field(
        default={}, description="Headers to set: name and value", json_schema_extra={"additionalProperties": False}
    )
    remove: tuple[HeaderName, ...] = Field(default=(), description="Names of headers to remove")


ValidHeaderChanges = Annotated[HeaderChanges, AfterValidator(_validate_header_changes)]


class ErrorBody(Section):
    """The body of a response that the edge makes itself."""

    content_type: Annotated[str, Field(pattern=r"^[!-~]([ \t!-~]*[!-~])?$")] = Field(
        default="text/html; charset=utf-8", description="The response's Content-Type"
    )
    body: Annotated[str, Field(max_length=65_536)] = Field(description="The body, up to 65,536 characters")


AnyHeader = Annotated[str, Field(description="Name of a header")]
ErrorStatus = Annotated[int, Field(ge=400, le=599)]


def _no_secrets(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name.lower() in _SECRET_HEADERS:
            raise ValueError(f"{name} is a secret and is never logged")
    return names


class HttpOptions(Section):
    """Requests and responses of a frontend with protocol http."""

    head_timeout_seconds: Duration = Field(
        default=10,
        validation_alias="head_timeout",
        description="Time limit for receiving the head of a request (then 408)",
    )
    keep_alive_timeout_seconds: Duration = Field(
        default=60,
        validation_alias="keep_alive_timeout",
        description="Close a client connection after this time without a further request",
    )
    response_timeout_seconds: Duration = Field(
        default=60,
        validation_alias="response_timeout",
        description="Time limit for the head of a backend's response (then 504)",
    )
    request_body_timeout_seconds: Duration = Field(
        default=20,
        validation_alias="request_body_timeout",
        description="Time limit for receiving the body of a request (then 408). "
        "Each `min_body_rate` bytes that come extend it by 1 s; time in which the backend takes nothing does not count",
    )
    min_body_rate: Whole = Field(
        default=500, ge=1, le=1_000_000_000, description="Bytes per second: the slowest rate at which a body may come"
    )
    max_body_bytes: Whole = Field(
        default=0,
        ge=0,
        description="Largest body of a request to a backend, chunk lines included (413 above); 0 is no limit",
    )
    send_timeout_seconds: Duration = Field(
        default=60,
        validation_alias="send_timeout",
        description="Reset a client that takes nothing of its response for this time, or for twice this time "
        "if the kernel still held some of it",
    )
    backend_idle_timeout_seconds: Duration = Field(
        default=4,
        validation_alias="backend_idle_timeout",
        description="Close a connection to a backend after this time without a request. "
        "Keep it below the backend's own keep-alive timeout (common defaults are 5 s and more)",
    )
    max_idle_per_backend: Whole = Field(
        default=256, ge=0, description="Idle connections kept to one backend; 0 keeps none"
    )
    max_head_bytes: Whole = Field(
        default=32_768,
        ge=1024,
        le=1_048_576,
        description="Largest head of a request (431 above) or of a response (502 above)",
    )
    trusted_proxies: Networks = Field(
        default=(), description="Networks of proxies whose X-Forwarded-For and Forwarded are extended, not replaced"
    )
    via: Annotated[str, Field(pattern=patterns.TOKEN_OR_EMPTY)] = Field(
        default="edgeproxy",
        description="Name of this proxy in the Via header of what it forwards (RFC 9110, section 7.6.3); empty: no Via",
    )
    untrusted_headers: tuple[AnyHeader, ...] = Field(
        default=("X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "X-Forwarded-Port"),
        description="Names of headers to remove from requests, unless a trusted proxy sent them: they name the client",
    )
    underscore_headers: Switch = Field(
        default=False,
        description="Pass on request headers with an underscore in their name. "
        "CGI and WSGI take X_A for X-A, so a client could forge a header",
    )
    error_bodies: dict[ErrorStatus, ErrorBody] = Field(
        default={},
        description="Bodies of the edge's own responses by status, instead of JSON with the reason",
    )
    log_headers: Annotated[tuple[AnyHeader, ...], AfterValidator(_no_secrets)] = Field(
        default=(),
        description="Names of request headers to add to the access line, up to 512 characters of each",
    )
    request_headers: ValidHeaderChanges = Field(
        default_factory=HeaderChanges, description="Changes to the headers of requests sent to backends"
    )
    response_headers: ValidHeaderChanges = Field(
        default_factory=HeaderChanges, description="Changes to the headers of responses sent to clients"
    )
