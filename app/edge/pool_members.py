"""Reads all members of a pool from the registry, for the metrics and the internal DNS."""

from __future__ import annotations

from actors.messages import DescribePool
from actors.runtime import Address, ask
from app.domain.member_views import MemberView
from app.proxy_service import ASK_TIMEOUT_SECONDS


def members_of(registry: Address, pool: str) -> list[MemberView]:
    """Return all members of a pool, asked for page by page: ten thousand at once would block the event loop.

    Raises what asking the registry raises.
    """
    members: list[MemberView] = []
    while True:
        page = DescribePool(pool, first=len(members))
        described = ask(registry, page, timeout_s=ASK_TIMEOUT_SECONDS)
        members += described
        if len(described) < page.count:
            return members
