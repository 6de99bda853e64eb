"""Problem details (RFC 9457): the exception of the admin API and its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MEDIA_TYPE: Final = "application/problem+json"


class ProblemFault(BaseModel):
    """One fault of a request."""

    model_config = ConfigDict(extra="forbid")

    where: str = Field(description="The faulty parameter, column or place")
    rule: str = Field(description="The rule it breaks")


class ProblemDetails(BaseModel):
    """Why a request failed (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(default="about:blank", description="about:blank: the kind of problem is that of the status")
    title: str = Field(description="The status in words")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="What is wrong, as text")
    errors: list[ProblemFault] = Field(default_factory=list, description="Every fault of the request")


class Problem(Exception):
    """Ends a request with an error status and its reason."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = encodable(detail)
        self.errors = [ProblemFault(where=encodable(where), rule=encodable(rule)) for where, rule in errors]
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        return (
            ProblemDetails(
                title=HTTPStatus(self.status).phrase, status=self.status, detail=self.detail, errors=self.errors
            )
            .model_dump_json()
            .encode()
        )


def encodable(text: str) -> str:
    """Escape what UTF-8 cannot encode: text from outside may have lone surrogates (JSON's `\\ud800`)."""
    return text.encode(errors="backslashreplace").decode()


def invalid(error: ValidationError) -> Problem:
    """Return the problem for parameters or a body that do not match their schema. It contains no values."""
    faults = [(".".join(map(str, fault["loc"])) or "body", fault["msg"]) for fault in error.errors(include_input=False)]
    return Problem(422, "the request does not match its schema", errors=faults)
