"""Finds the endpoint for a request by domain, path and method, with werkzeug's routing.

If several endpoints match, this precedence decides: (1) an exact domain, then `*.` domains, the longer one first, then
endpoints without a domain; (2) segment by segment from the left, text before parameters, and among parameters those
with more text around them first, then `any`, int and float, uuid, string, path; (3) the id that sorts first. An
endpoint that matches except for its method is skipped; the response is 405 only if no other matches. A number outside
the bounds of its parameter does not match.
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
"""The parameter for the open part of a domain. An endpoint's own parameters never start with an underscore."""
_NOWHERE: Final = "-"
"""Used for a Host header that is empty or not a host name."""
_CACHED_HOSTS: Final = 256
_CACHED_REQUESTS: Final = 1024
_LONGEST_CACHED: Final = 256
"""Limit for host, path and method together: clients choose them, and with them the size of the cache."""


class _Choice(AnyConverter):
    weight = 40


class _Uuid(UUIDConverter):
    weight = 60


class Router:
    """The routes to a set of endpoints, immutable. Raises EndpointConflict."""

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
        self._map.update()  # in the calling thread, instead of at the first request
        self._hosts: dict[str, MapAdapter] = {}
        self._cache: dict[tuple[str, str, str], str] = {}
        """Endpoint id by host, path and method."""

    def match(self, host: str, path: str, method: str) -> Match | MethodNotAllowed | None:
        """Find the endpoint for a Host header, the path of a request line and a method. Never raises."""
        request = host, path, method
        endpoint_id = self._cache.get(request)
        if endpoint_id is not None:
            return Match(endpoint_id, {})
        found = self._match(host, path, method)
        if isinstance(found, Match) and not found.params:
            self._cache_match(request, found.endpoint_id)
        return found

    def _cache_match(self, request: tuple[str, str, str], endpoint_id: str) -> None:
        """Cache the match of a path without parameters: matching again costs 7 of the 60 µs of a request.

        Paths with parameters are unlimited in number and would displace the others.
        """
        if sum(map(len, request)) > _LONGEST_CACHED:
            return
        if len(self._cache) >= _CACHED_REQUESTS:
            self._cache.clear()
        self._cache[request] = endpoint_id

    def _match(self, host: str, path: str, method: str) -> Match | MethodNotAllowed | None:
        adapter = self._hosts.get(host) or self._bind(host)
        if "%" in path:
            path = unquote(path, errors="replace")
        if path[:1] != "/" or path[:2] == "//":  # werkzeug would remove the extra slash
            return None
        try:
            endpoint_id, params = adapter.match(path, method)
        except WrongMethod as wrong:
            return MethodNotAllowed(tuple(sorted(wrong.valid_methods or ())))
        except HTTPException:
            return None
        return Match(endpoint_id, {name: value for name, value in params.items() if name != _HOST})

    def _bind(self, host: str) -> MapAdapter:
        """Return the adapter that matches paths of a host. It is cached: creating one costs half as much as a match."""
        try:
            adapter = self._map.bind(_name_of(host))
        except HTTPException:
            adapter = self._map.bind(_NOWHERE)
        if len(self._hosts) >= _CACHED_HOSTS:
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
    """Return the name in a Host header, without port and trailing dot."""
    name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    return name if name and "/" not in name and "|" not in name else _NOWHERE
