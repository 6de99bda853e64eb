"""All listeners of the edge, and the frontend that each serves.

A reload has two steps, so that it applies entirely or not at all: `prepare` binds the new addresses, which may fail;
`open` replaces the frontends and closes the listeners no longer configured, which cannot fail.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable, Iterable
from functools import partial

from app.config import ListenAddress
from app.inbound.frontend import LiveFrontend, OpenFrontend
from app.inbound.listener import BindError, Listener

Accept = Callable[[LiveFrontend, int, tuple[str, int], str], None]
_ListenerKey = tuple[str, ListenAddress, int]
"""Frontend, configured address and number of a listener. Frontend and number are "" and 0, except for port 0, which a
configuration may have several times."""
Bound = dict[_ListenerKey, Listener]
"""Listeners that do not accept yet."""
Passed = dict[ListenAddress, _socket.socket]
"""Sockets that listen already, by address."""


class Listeners:
    """`servers` are accept functions by protocol; `on_accept_error(errno name)` is called for errors of accept.

    `passed` are sockets that the listeners of their addresses take, once, instead of binding.
    """

    def __init__(
        self, servers: dict[str, Accept], on_accept_error: Callable[[str], None], passed: Passed | None = None
    ) -> None:
        self._servers = servers
        self._on_accept_error = on_accept_error
        self._passed = passed or {}
        self._live: dict[tuple[str, str], LiveFrontend] = {}
        """By name and protocol of the frontend."""
        self._listeners: dict[_ListenerKey, Listener] = {}

    @property
    def addresses(self) -> dict[str, list[ListenAddress]]:
        """Return the addresses listened on, by frontend."""
        found: dict[str, list[ListenAddress]] = {}
        for listener in self._listeners.values():
            found.setdefault(listener.frontend, []).append(listener.address)
        return found

    def prepare(self, frontends: Iterable[OpenFrontend]) -> Bound:
        """Bind the new addresses. Raises BindError naming frontend and address, and then binds none."""
        bound: Bound = {}
        try:
            for frontend in frontends:
                for key in _keys(frontend):
                    if key not in self._listeners and key not in bound:
                        bound[key] = self._bind(frontend.config.name, key[1])
        except BaseException:
            for listener in bound.values():
                listener.close()
            raise
        return bound

    def _bind(self, frontend: str, address: ListenAddress) -> Listener:
        try:
            return Listener(address, self._on_accept_error, self._passed.pop(address, None))
        except BindError as error:
            own = [str(one.address) for one in self._listeners.values() if one.address.clashes_with(address)]
            why = f" (this edge itself listens on {own[0]} until the reload is complete)" if own else ""
            raise BindError(f"frontend {frontend}: {error}{why}", frontend=frontend) from None

    def open(self, frontends: Iterable[OpenFrontend], bound: Bound) -> None:
        """Serve exactly these frontends: start the new listeners, close those no longer used."""
        former_live, self._live = self._live, {}
        former, self._listeners = self._listeners | bound, {}
        for frontend in frontends:
            name_and_protocol = (frontend.config.name, frontend.config.protocol)
            live = former_live.pop(name_and_protocol, None) or LiveFrontend(frontend)
            self._live[name_and_protocol] = live
            live.current = frontend
            for key in _keys(frontend):
                listener = self._listeners[key] = former.pop(key)
                listener.serve(frontend.config.name, partial(self._servers[frontend.config.protocol], live))
        for listener in former.values():
            listener.stop()
        for live in former_live.values():
            live.is_closing = True

    def close(self) -> None:
        """Accept the queued connections, close the listeners and mark every frontend as closing."""
        for listener in self._listeners.values():
            listener.stop()
        for live in self._live.values():
            live.is_closing = True


def _keys(frontend: OpenFrontend) -> list[_ListenerKey]:
    name, listen = frontend.config.name, frontend.config.listen
    return [
        ("", address, 0) if address.port else (name, address, listen[:number].count(address))
        for number, address in enumerate(listen)
    ]
