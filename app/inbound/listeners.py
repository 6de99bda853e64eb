"""All the doors of the edge: which addresses are listened on, and which frontend stands behind each.

A change of the configuration comes in two steps, so that it happens whole or not at all: `prepare` binds what is new,
which may fail; `open` puts the frontends into their doors and closes what is gone, which may not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from app.config import ListenAddress
from app.inbound.frontend import LiveFrontend, OpenFrontend
from app.inbound.listener import BindError, Listener

Accept = Callable[[LiveFrontend, int, tuple[str, int], str], None]
_Place = tuple[str, ListenAddress, int]
"""Frontend, configured address and number of a listener; "" and 0 but for port 0, of which there may be many."""


class Listeners:
    """`servers` accept connections, by protocol; `on_accept_error(errno name)` is told of errors of accept."""

    def __init__(self, servers: dict[str, Accept], on_accept_error: Callable[[str], None]) -> None:
        self._servers = servers
        self._on_accept_error = on_accept_error
        self._live: dict[tuple[str, str], LiveFrontend] = {}
        """By name and protocol of their frontend."""
        self._listeners: dict[_Place, Listener] = {}

    @property
    def addresses(self) -> dict[str, list[ListenAddress]]:
        """Return what is listened on, by frontend."""
        found: dict[str, list[ListenAddress]] = {}
        for listener in self._listeners.values():
            found.setdefault(listener.frontend, []).append(listener.address)
        return found

    def prepare(self, frontends: Iterable[OpenFrontend]) -> dict[_Place, Listener]:
        """Bind the addresses that are new. Raises BindError naming frontend and address; nothing is bound then."""
        bound: dict[_Place, Listener] = {}
        try:
            for frontend in frontends:
                for place in _places(frontend):
                    if place not in self._listeners and place not in bound:
                        bound[place] = self._bind(frontend.config.name, place[1])
        except BindError:
            for listener in bound.values():
                listener.close()
            raise
        return bound

    def _bind(self, frontend: str, address: ListenAddress) -> Listener:
        try:
            return Listener(address, self._on_accept_error)
        except BindError as error:
            own = [str(one.address) for one in self._listeners.values() if one.address.clashes_with(address)]
            why = f" (by this edge, which listens on {own[0]} until the change is complete)" if own else ""
            raise BindError(f"frontend {frontend}: {error}{why}") from None

    def open(self, frontends: Iterable[OpenFrontend], bound: dict[_Place, Listener]) -> None:
        """Let exactly these frontends serve from now on: new listeners start, those of nobody close."""
        former_live, self._live = self._live, {}
        former, self._listeners = self._listeners | bound, {}
        for frontend in frontends:
            key = (frontend.config.name, frontend.config.protocol)
            live = former_live.pop(key) if key in former_live else LiveFrontend(frontend)
            self._live[key] = live
            live.current = frontend
            for place in _places(frontend):
                listener = self._listeners[place] = former.pop(place)
                listener.serve(frontend.config.name, partial(self._servers[frontend.config.protocol], live))
        for listener in former.values():
            listener.stop()
        for live in former_live.values():
            live.is_closing = True

    def close(self) -> None:
        """Accept what is queued and listen no more; who is inside may not stay for long."""
        for listener in self._listeners.values():
            listener.stop()
        for live in self._live.values():
            live.is_closing = True


def _places(frontend: OpenFrontend) -> list[_Place]:
    name, listen = frontend.config.name, frontend.config.listen
    return [
        ("", address, 0) if address.port else (name, address, listen[:number].count(address))
        for number, address in enumerate(listen)
    ]
