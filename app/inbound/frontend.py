"""A frontend at run time. A reload replaces it for new connections; open connections keep the one they started with."""

from __future__ import annotations

from dataclasses import dataclass

from app.config import Frontend, Pool
from app.inbound.proxy_header import TrustedProxies
from app.proxy_service import ProxyService
from app.wire.http1_forwarding import HeaderRules


@dataclass(frozen=True, slots=True, eq=False)
class OpenFrontend:
    """The configuration of a frontend and what serves it. Immutable."""

    config: Frontend
    pool: Pool
    service: ProxyService
    proxies: TrustedProxies
    """Peers that must send a PROXY header."""
    headers: HeaderRules

    @property
    def has_pool(self) -> bool:
        """Whether there are backends for requests that match no endpoint."""
        return bool(self.pool.servers) or self.pool.app is not None


class LiveFrontend:
    """Holds the current frontend of a name; a reload replaces `current`."""

    __slots__ = ("current", "is_closing")

    def __init__(self, frontend: OpenFrontend) -> None:
        self.current = frontend
        self.is_closing = False
        """True when idle connections must end: the edge drains, or the configuration no longer has the frontend."""
