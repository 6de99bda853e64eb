"""What etcd's JSON gateway answers, as far as we read it. Its 64-bit numbers are texts, its bytes base64."""

from __future__ import annotations

import msgspec


class Header(msgspec.Struct):
    """What every answer begins with. `revision` is that of the server's store."""

    cluster_id: int = 0
    revision: int = 0


class KeyValue(msgspec.Struct):
    """A key as it stands. `mod_revision` is that of its last change; `lease` 0 is none."""

    key: bytes
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0


class Event(msgspec.Struct):
    """A change of a key; of a deleted one `kv` has key and revision alone."""

    kv: KeyValue
    type: str = "PUT"

    @property
    def is_deletion(self) -> bool:
        return self.type == "DELETE"


class WatchMessage(msgspec.Struct):
    """What a watch brings: first that it was created, then events, those of one revision always together."""

    header: Header
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[Event] = []


class Range(msgspec.Struct):
    """Keys, `more` when there are."""

    header: Header
    kvs: list[KeyValue] = []
    more: bool = False


class Found(msgspec.Struct):
    """Keys."""

    kvs: list[KeyValue] = []


class Read(msgspec.Struct):
    """Of one read in a transaction."""

    response_range: Found


class AllRead(msgspec.Struct):
    """Of a transaction that reads, in its order."""

    header: Header
    responses: list[Read]


class Written(msgspec.Struct):
    """Of a transaction that writes if."""

    header: Header
    succeeded: bool = False


class Put(msgspec.Struct):
    """Of a plain write."""

    header: Header


class Lease(msgspec.Struct):
    """A lease; TTL in seconds, 0 or less when there is none."""

    ID: int = 0
    TTL: int = 0


class KeptAlive(msgspec.Struct):
    """Of a stream of one message."""

    result: Lease


class Token(msgspec.Struct):
    """Goes into the header Authorization."""

    token: str


class Fault(msgspec.Struct):
    """What is wrong, and gRPC's code of it."""

    error: str = ""
    message: str = ""
    code: int = 0


class StreamFault(msgspec.Struct):
    """What is wrong, in a stream."""

    message: str = ""


class StreamLine(msgspec.Struct):
    """One line of a stream."""

    result: WatchMessage | None = None
    error: StreamFault | None = None
