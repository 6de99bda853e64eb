"""The responses of etcd's JSON gateway, as far as they are used. 64-bit numbers are strings, bytes are base64."""

from __future__ import annotations

import msgspec


class Header(msgspec.Struct):
    """The header of every response. `revision` is that of the server's store."""

    cluster_id: int = 0
    revision: int = 0


class KeyValue(msgspec.Struct):
    """A key and its value. `mod_revision` is that of its last change; `lease` 0 means none."""

    key: bytes
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0


class Event(msgspec.Struct):
    """A change of a key. For a deletion, `kv` has only key and revision."""

    kv: KeyValue
    type: str = "PUT"

    @property
    def is_deletion(self) -> bool:
        return self.type == "DELETE"


class WatchMessage(msgspec.Struct):
    """A message of a watch: first its creation, then events. Events of one revision arrive in one message."""

    header: Header
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[Event] = []


class Range(msgspec.Struct):
    """A page of keys. `more` is true if it is not the last."""

    header: Header
    kvs: list[KeyValue] = []
    more: bool = False


class Found(msgspec.Struct):
    """The keys of a range."""

    kvs: list[KeyValue] = []


class Read(msgspec.Struct):
    """The result of one read in a transaction."""

    response_range: Found


class AllRead(msgspec.Struct):
    """The result of a transaction of reads, in their order."""

    header: Header
    responses: list[Read]


class Written(msgspec.Struct):
    """The result of a conditional write."""

    header: Header
    succeeded: bool = False


class Put(msgspec.Struct):
    """The result of an unconditional write."""

    header: Header


class Lease(msgspec.Struct):
    """A lease. TTL in seconds, 0 or less if it does not exist."""

    ID: int = 0
    TTL: int = 0


class KeptAlive(msgspec.Struct):
    """The result of a renewal: a stream of one message."""

    result: Lease


class Token(msgspec.Struct):
    """A token, sent in the header Authorization."""

    token: str


class Fault(msgspec.Struct):
    """An error with its gRPC code."""

    error: str = ""
    message: str = ""
    code: int = 0


class StreamFault(msgspec.Struct):
    """An error in a stream."""

    message: str = ""


class StreamLine(msgspec.Struct):
    """One line of a stream."""

    result: WatchMessage | None = None
    error: StreamFault | None = None
