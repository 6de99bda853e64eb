"""Addresses of one process that Linux would not let it listen on together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.config.values import WILDCARDS, ListenAddress


class Taken:
    """The addresses in use so far, indexed by port and family, because a file may have thousands."""

    def __init__(self) -> None:
        self._users: dict[tuple[int, bool], dict[str, tuple[ListenAddress, str]]] = {}

    def take(self, address: ListenAddress, user: str) -> tuple[ListenAddress, str] | None:
        """Take an address. Returns an earlier one that clashes with it (ListenAddress.clashes_with), and its user."""
        if address.port == 0:
            return None
        users = self._users.setdefault((address.port, ":" in address.host), {})
        if address.is_wildcard:
            other = next(iter(users.values()), None)
        else:
            other = users.get(address.host) or next((users[host] for host in WILDCARDS if host in users), None)
        users.setdefault(address.host, (address, user))
        return other


def clashes(listeners: Iterable[tuple[str, ListenAddress]]) -> Iterator[str]:
    """Yield a fault for each address that clashes with an earlier one. A listener is its user and its address."""
    taken = Taken()
    for user, address in listeners:
        found = taken.take(address, user)
        if found is not None:
            other, other_user = found
            users = user if user == other_user else f"{user}, {other_user}"
            rule = f"{address} is given twice" if other == address else f"{address} clashes with {other}"
            yield f"{users}: {rule}"
