"""Tokens: list, make, revoke. A token gives no scope that it lacks, and takes none away."""

from __future__ import annotations

from pydantic import Field

from app.admin.api import Api, Model, current_token, say_target
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
    """A token to be made."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$", description="What the audit log will call its bearer")
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope), description="What it allows")


class MadeToken(OneToken):
    """A token just made."""

    token: str = Field(description="Its text, shown this once")


class TokenPath(Model):
    """Which token."""

    name: str = Field(description="Its name")


def add_routes(api: Api, service: TokenService) -> None:
    """Add the routes of this subject."""

    @api.get("/api/tokens", Scope.READ, tag=TAG, response=Tokens)
    def list_tokens() -> Tokens:
        """List the tokens by name; what is kept of them is not shown."""
        return Tokens(items=[_described(token) for token in service.current()])

    @api.get("/api/token", Scope.READ, tag=TAG, response=OneToken)
    def get_own_token() -> OneToken:
        """Show the token that asks."""
        return _described(current_token())

    @api.post("/api/tokens", Scope.OPERATE, tag=TAG, response=MadeToken, status=201, problems=(409,))
    def make_token(body: NewToken) -> MadeToken:
        """Make a token with scopes that the asking one has too. Its text is in the answer and nowhere else."""
        say_target(body.name)
        scopes = frozenset(body.scopes)
        _require(scopes, "give")
        try:
            token, text = service.make(body.name, scopes)
        except KeyError:
            raise Problem(409, f"there is a token {body.name} already") from None
        return MadeToken(**dict(_described(token)), token=text)

    @api.delete("/api/tokens/<name>", Scope.OPERATE, tag=TAG, problems=(404, 409))
    def revoke_token(path: TokenPath) -> None:
        """Revoke a token, at once."""
        token = next((one for one in service.current() if one.name == path.name), None)
        if token is None:
            raise Problem(404, f"no such token: {path.name}")
        _require(token.scopes, "revoke")
        if len(service.current()) == 1:
            raise Problem(409, "this is the last token: nobody could use the API without it")
        try:
            service.revoke(path.name)
        except KeyError:
            raise Problem(404, f"no such token: {path.name}") from None


def _require(scopes: frozenset[Scope], verb: str) -> None:
    lacking = sorted(scopes - current_token().scopes)
    if lacking:
        raise Problem(403, f"token {current_token().name} cannot {verb} what it lacks: {', '.join(lacking)}")


def _described(token: Token) -> OneToken:
    return OneToken(name=token.name, scopes=sorted(token.scopes), created_at=rfc3339(token.created_at))
