"""A frontend as connections meet it. A reload puts another one into its door; who has come in keeps the old one."""

from __future__ import annotations

from dataclasses import dataclass

from app.config import Frontend, Pool
from app.inbound.proxy_header import TrustedProxies
from app.proxy_service import ProxyService
from app.wire.http1_forwarding import HeaderRules


@dataclass(frozen=True, slots=True, eq=False)
class OpenFrontend:
    """What the configuration says of a frontend, and what serves it."""

    config: Frontend
    pool: Pool
    service: ProxyService
    proxies: TrustedProxies
    """Who must speak the PROXY protocol."""
    headers: HeaderRules

    @property
    def has_pool(self) -> bool:
        """There is somebody to send requests to that no endpoint takes."""
        return bool(self.pool.servers) or self.pool.app is not None


class LiveFrontend:
    """Where the clients of a frontend come in: always the newest `frontend` of its name."""

    __slots__ = ("current", "is_closing")

    def __init__(self, frontend: OpenFrontend) -> None:
        self.current = frontend
        self.is_closing = False
        """Nobody may stay: the edge drains, or the frontend is gone from the configuration."""
