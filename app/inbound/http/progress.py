"""What the table of connections reads of a request on its way to a backend, and has it do."""

from __future__ import annotations

from app.domain.outcome import State
from app.inbound.dialer import set_keepalive
from app.inbound.http.responder import Request
from app.inbound.http.stream import UpstreamStream
from app.inbound.tcp.relay import is_reset, unacknowledged


class ExchangeProgress:
    """The progress of an exchange, which sets the attributes: a call of this class's own would cost every request."""

    __slots__ = ("_bytes_down_before", "_bytes_up", "_has_begun", "_request", "_upstream")

    _request: Request
    _upstream: UpstreamStream | None
    _bytes_up: int
    """Sent to the backend, once `_upstream` is given up."""
    _bytes_down_before: int
    """Sent to the client before this request's response."""
    _has_begun: bool
    """The client has got the beginning of the final response: it is too late for one of the edge's own."""

    is_half_closed = False

    @property
    def awaits_client(self) -> bool:
        return self._request.client.is_blocked

    def unacknowledged(self) -> int:
        sides = (self._request.client, self._upstream)
        return unacknowledged(*(side.sock for side in sides if side is not None))

    @property
    def bytes_up(self) -> int:
        return self._upstream.bytes_sent if self._upstream is not None else self._bytes_up

    @property
    def bytes_down(self) -> int:
        return self._request.client.bytes_sent - self._bytes_down_before

    def keep_alive(self) -> None:
        """Have the kernel probe the backend. Called by the sweep: a short request need not pay these system calls."""
        if self._upstream is not None and not self._upstream.is_kept_alive:
            self._upstream.is_kept_alive = True
            set_keepalive(self._upstream.sock)

    def notice_reset(self) -> None:
        """End the connection if its client has reset it while a pipelined request kept it from being watched."""
        if is_reset(self._request.client.sock):
            state = State.CLIENT_RESET if self._has_begun else State.CLIENT_GONE_WAITING
            self._request.connection.end(state, "client_gone")
