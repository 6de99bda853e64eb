"""Finds the endpoint that takes a request, by domain, path and method, with werkzeug's routing.

Where several endpoints could take a request, this order decides: (1) a domain by its name goes before `*.` and a
domain, of those the longer one first, and these before none; (2) segment by segment from the left, text goes before a
parameter, and of parameters those with more text around them first, then `any`, int and float, uuid, string, path;
(3) the endpoint whose id sorts first. An endpoint whose domain or path fits and whose method does not is passed over;
only when none is left is the answer 405. A number beyond the bounds of its parameter matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod
from werkzeug.routing import AnyConverter, Map, MapAdapter, Rule, UUIDConverter

from app.domain.endpoints import Endpoint, Match, MethodNotAllowed, check_conflicts

_HOST: Final = "_host"
"""The parameter that stands for what a domain leaves open. Endpoints' own do not begin so."""
_NOWHERE: Final = "-"
"""Stands for a Host that is empty or no name."""
_KNOWN_HOSTS: Final = 256
_KNOWN_REQUESTS: Final = 1024
_LONGEST_KNOWN: Final = 256
"""Host, path and method together: a client chooses the host, and with it how much is remembered."""


class _Choice(AnyConverter):
    weight = 40


class _Uuid(UUIDConverter):
    weight = 60


class Router:
    """The routes of one moment; it never changes. Raises EndpointConflict."""

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        ordered = sorted(endpoints, key=lambda endpoint: endpoint.id)
        check_conflicts(ordered)
        self._map = Map(
            [_rule(endpoint) for endpoint in ordered if endpoint.is_enabled],
            host_matching=True,
            strict_slashes=False,
            merge_slashes=False,
            redirect_defaults=False,
            converters={"any": _Choice, "uuid": _Uuid},
        )
        self._map.update()  # now, in whichever thread this is, and not at the first request
        self._hosts: dict[str, MapAdapter] = {}
        self._known: dict[tuple[str, str, str], str] = {}
        """Endpoints by host, path and method."""

    def match(self, host: str, path: str, method: str) -> Match | MethodNotAllowed | None:
        """Find the endpoint for a Host header, the path of a request line and a method. Never raises."""
        request = host, path, method
        endpoint_id = self._known.get(request)
        if endpoint_id is not None:
            return Match(endpoint_id, {})
        found = self._match(host, path, method)
        if isinstance(found, Match) and not found.params:
            self._remember(request, found.endpoint_id)
        return found

    def _remember(self, request: tuple[str, str, str], endpoint_id: str) -> None:
        """Keep what was found for a path without parameters: looking for it again costs 7 of the 60 µs of a request.

        With parameters there would be no end of paths, and they would drive the others out.
        """
        if sum(map(len, request)) > _LONGEST_KNOWN:
            return
        if len(self._known) >= _KNOWN_REQUESTS:
            self._known.clear()
        self._known[request] = endpoint_id

    def _match(self, host: str, path: str, method: str) -> Match | MethodNotAllowed | None:
        adapter = self._hosts.get(host) or self._bind(host)
        if "%" in path:
            path = unquote(path, errors="replace")
        if path[:1] != "/" or path[:2] == "//":  # werkzeug would take away what is too much
            return None
        try:
            endpoint_id, params = adapter.match(path, method)
        except WrongMethod as wrong:
            return MethodNotAllowed(tuple(sorted(wrong.valid_methods or ())))
        except HTTPException:
            return None
        return Match(endpoint_id, {name: value for name, value in params.items() if name != _HOST})

    def _bind(self, host: str) -> MapAdapter:
        """Return what matches the paths of a host, and remember it: making one takes as long as half a match."""
        try:
            adapter = self._map.bind(_name_of(host))
        except HTTPException:
            adapter = self._map.bind(_NOWHERE)
        if len(self._hosts) >= _KNOWN_HOSTS:
            self._hosts.clear()
        self._hosts[host] = adapter
        return adapter


def _rule(endpoint: Endpoint) -> Rule:
    domain = endpoint.domain
    if domain is None:
        host = f"<{_HOST}>"
    elif domain.startswith("*."):
        host = f"<{_HOST}>{domain[1:]}"
    else:
        host = domain
    return Rule(endpoint.path, host=host, methods=endpoint.methods, endpoint=endpoint.id)


def _name_of(host: str) -> str:
    """Return the name in a Host header, without port and final dot."""
    name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    return name if name and "/" not in name and "|" not in name else _NOWHERE
