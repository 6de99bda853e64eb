"""How fast a client must send the body of a request: one that sends slowly would hold a backend."""

from __future__ import annotations

import time
from typing import Final

from app.config import HttpOptions
from app.domain.outcome import State
from app.inbound.connections import Connection

_LATE_BODY: Final = (State.REQUEST_TIMEOUT, "body_timeout")


class Pace:
    """Sets the deadline of a connection while it brings a body: a time limit, and a second more for so many bytes."""

    __slots__ = ("_connection", "_options", "_since")

    def __init__(self, connection: Connection, options: HttpOptions) -> None:
        self._connection = connection
        self._options = options
        self._since = time.monotonic()

    def restart(self) -> None:
        """Give the whole time again, from now on: the client was not to blame for the time before."""
        self._since = time.monotonic()

    def expect(self, came: int) -> None:
        """Set the deadline, with `came` bytes since the start."""
        options, connection = self._options, self._connection
        connection.deadline = self._since + options.request_body_timeout_seconds + came / options.min_body_rate
        connection.late = _LATE_BODY
