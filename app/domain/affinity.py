"""The bindings of clients to backends, with a sliding time to live.

The table holds up to a million clients and must not pause the event loop. It is split into many small shards, because
a dict of a million keys takes 30-60 ms to grow. Each shard has two dicts of plain strings and floats, which the garbage
collector does not track. Insertion order is age order, so the oldest binding is always at the front.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SHARD_CLIENTS: Final = 4096


class Binding(NamedTuple):
    """A client (see `client_key`), the id of its backend, and when the binding expires, in monotonic seconds."""

    client: str
    backend_id: str
    expires_at: float


class _Shard:
    __slots__ = ("backend_of", "expiry_of")

    def __init__(self) -> None:
        self.backend_of: dict[str, str] = {}
        self.expiry_of: dict[str, float] = {}

    def drop(self, client: str) -> None:
        del self.backend_of[client], self.expiry_of[client]


class AffinityTable:
    """Maps clients to backends. Every `bind` renews the `ttl_seconds`; above `capacity` the oldest binding is evicted.

    With a capacity of up to SHARD_CLIENTS "oldest" is exact; above that it is the oldest in the new client's shard.
    """

    def __init__(self, ttl_seconds: float, capacity: int) -> None:
        self._ttl = ttl_seconds
        self._capacity = capacity
        self._shards = [_Shard() for _ in range(max(1, capacity // SHARD_CLIENTS))]
        self._size = 0
        self.evictions = 0

    def __len__(self) -> int:
        """Return the number of bindings held, including expired ones that no sweep has removed yet."""
        return self._size

    def _shard(self, client: str) -> _Shard:
        return self._shards[hash(client) % len(self._shards)]

    def find(self, client: str, now: float) -> str | None:
        """Return the backend id a client is bound to; an expired binding is absent."""
        shard = self._shard(client)
        expiry = shard.expiry_of.get(client)
        return shard.backend_of[client] if expiry is not None and now < expiry else None

    def get(self, client: str, now: float) -> Binding | None:
        """Return a client's binding; an expired one is absent."""
        backend_id = self.find(client, now)
        return Binding(client, backend_id, self._shard(client).expiry_of[client]) if backend_id is not None else None

    def bind(self, client: str, backend_id: str, now: float) -> None:
        """Bind a client, or renew its binding."""
        self.restore(Binding(client, backend_id, now + self._ttl))

    def restore(self, binding: Binding) -> None:
        """Bind a client until a given time. Bindings must be restored in the order of their expiry."""
        client, backend_id, expires_at = binding
        if self._capacity <= 0:
            return
        shard = self._shard(client)
        if shard.expiry_of.pop(client, None) is None:
            if self._size >= self._capacity and not self._evict(shard):
                return
            self._size += 1
        shard.backend_of[client] = backend_id
        shard.expiry_of[client] = expires_at

    def _evict(self, shard: _Shard) -> bool:
        """Drop the oldest binding of a shard, or of the first shard that is not empty; return False if all are."""
        victim = shard if shard.expiry_of else next((s for s in self._shards if s.expiry_of), None)
        if victim is None:
            return False
        victim.drop(next(iter(victim.expiry_of)))
        self._size -= 1
        self.evictions += 1
        return True

    def unbind(self, client: str) -> None:
        shard = self._shard(client)
        if client in shard.expiry_of:
            shard.drop(client)
            self._size -= 1

    def sweep(self, now: float, shard_number: int) -> int:
        """Free the expired bindings of one shard (its number is taken modulo the shard count); return how many."""
        shard = self._shards[shard_number % len(self._shards)]
        expired = []
        for client, expiry in shard.expiry_of.items():
            if now < expiry:
                break
            expired.append(client)
        for client in expired:
            shard.drop(client)
        self._size -= len(expired)
        return len(expired)

    @property
    def shard_count(self) -> int:
        return len(self._shards)

    def shard_bindings(self, shard_number: int) -> list[Binding]:
        """Copy one shard, oldest first."""
        shard = self._shards[shard_number]
        return [Binding(c, shard.backend_of[c], expiry) for c, expiry in shard.expiry_of.items()]
