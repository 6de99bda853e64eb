"""Tokens: list, create, revoke. A token cannot grant or revoke a scope that it lacks."""

from __future__ import annotations

from pydantic import Field

from app.admin.api import Api, Model, current_token, set_audit_target
from app.admin.problems import Problem
from app.admin.token_service import TokenService
from app.domain.tokens import Scope, Token
from app.outbound.json_log import rfc3339

TAG = "tokens"


class OneToken(Model):
    """A token, without its text."""

    name: str
    scopes: list[Scope]
    created_at: str = Field(description="RFC 3339, UTC")


class Tokens(Model):
    """Every token."""

    items: list[OneToken]


class NewToken(Model):
    """A token to create."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_.-]{1,63}$", description="Its name in the audit log", examples=["dashboard"]
    )
    scopes: list[Scope] = Field(
        min_length=1, max_length=len(Scope), description="The operations it allows", examples=[["read"]]
    )


class CreatedToken(OneToken):
    """A created token."""

    token: str = Field(description="Its text, shown only here")


class TokenPath(Model):
    """Selects a token."""

    name: str = Field(description="Its name")


def add_routes(api: Api, service: TokenService) -> None:
    """Add the routes of this subject."""

    @api.get("/api/tokens", Scope.READ, tag=TAG, response=Tokens)
    def list_tokens() -> Tokens:
        """List the tokens, without their text."""
        return Tokens(items=[_described(token) for token in service.current()])

    @api.get("/api/token", Scope.READ, tag=TAG, response=OneToken)
    def get_own_token() -> OneToken:
        """Show the token of this request."""
        return _described(current_token())

    @api.post("/api/tokens", Scope.OPERATE, tag=TAG, response=CreatedToken, status=201, problems=(409,))
    def create_token(body: NewToken) -> CreatedToken:
        """Create a token with scopes of the request's own token. Its text is only in the response."""
        set_audit_target(body.name)
        scopes = frozenset(body.scopes)
        _require(scopes, "grant")
        try:
            token, text = service.create(body.name, scopes)
        except KeyError:
            raise Problem(409, f"token {body.name} already exists") from None
        return CreatedToken(**dict(_described(token)), token=text)

    @api.delete("/api/tokens/<name>", Scope.OPERATE, tag=TAG, problems=(404, 409))
    def revoke_token(path: TokenPath) -> None:
        """Revoke a token immediately."""
        token = next((one for one in service.current() if one.name == path.name), None)
        if token is None:
            raise Problem(404, f"no such token: {path.name}")
        _require(token.scopes, "revoke")
        if len(service.current()) == 1:
            raise Problem(409, "the last token cannot be revoked: the API could not be used without it")
        try:
            service.revoke(path.name)
        except KeyError:
            raise Problem(404, f"no such token: {path.name}") from None


def _require(scopes: frozenset[Scope], verb: str) -> None:
    lacking = sorted(scopes - current_token().scopes)
    if lacking:
        raise Problem(403, f"token {current_token().name} cannot {verb} scopes that it lacks: {', '.join(lacking)}")


def _described(token: Token) -> OneToken:
    return OneToken(name=token.name, scopes=sorted(token.scopes), created_at=rfc3339(token.created_at))
