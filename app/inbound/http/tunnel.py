"""The progress of a connection that has switched to another protocol: what HTTP has sent before, and its relay."""

from __future__ import annotations

from app.inbound.tcp.relay import Relay


class Tunnel:
    """A relay, with the bytes that were sent before it began."""

    __slots__ = ("_down_before", "_up_before", "relay")

    def __init__(self, relay: Relay, up_before: int, down_before: int) -> None:
        self.relay = relay
        self._up_before = up_before
        self._down_before = down_before

    @property
    def bytes_up(self) -> int:
        return self._up_before + self.relay.bytes_up

    @property
    def bytes_down(self) -> int:
        return self._down_before + self.relay.bytes_down

    @property
    def is_half_closed(self) -> bool:
        return self.relay.is_half_closed

    awaits_client = False

    def unacknowledged(self) -> int:
        return self.relay.unacknowledged()

    def keep_alive(self) -> None:
        self.relay.keep_alive()

    def notice_reset(self) -> None:
        self.relay.notice_reset()
