"""Errors as problem details (RFC 9457): one exception, and the JSON it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MEDIA_TYPE: Final = "application/problem+json"


class ProblemFault(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(extra="forbid")

    where: str = Field(description="The parameter, column or place at fault")
    rule: str = Field(description="What it breaks")


class ProblemDetails(BaseModel):
    """Why a request was not carried out (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(default="about:blank", description="about:blank: the status says what kind of problem it is")
    title: str = Field(description="The status in words")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="What is wrong, for people")
    errors: list[ProblemFault] = Field(default_factory=list, description="Every single fault, where there are several")


class Problem(Exception):
    """Ends a request with a status that says why."""

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
    """Return a text from outside, which may hold halves of characters (JSON's `\\ud800`), as UTF-8 can say it."""
    return text.encode(errors="backslashreplace").decode()


def invalid(error: ValidationError) -> Problem:
    """Return what a request is answered whose parameters or body break their schema. Shows no values."""
    faults = [(".".join(map(str, fault["loc"])) or "body", fault["msg"]) for fault in error.errors(include_input=False)]
    return Problem(422, "the request breaks its schema", errors=faults)
