"""Keeps the bindings over a restart: read from their file at the start, written to it every minute and at the end."""

from __future__ import annotations

from typing import Final

import gevent
from gevent.lock import BoundedSemaphore
from loguru import logger

from actors.messages import CopyBindings, CountBindings
from actors.runtime import Address, ask
from app.domain.affinity import AffinityTable
from app.domain.words import counted
from app.outbound.binding_file import BindingFile
from app.outbound.worker_thread import WorkerThread
from app.proxy_service import ASK_TIMEOUT_SECONDS

TICK_SECONDS: Final = 60.0
_WRITE_SECONDS: Final = 30.0
"""For writing the bindings once."""


class BindingSnapshots:
    """Reads and writes the bindings of the actor at `bindings`, off the event loop."""

    def __init__(self, file: BindingFile, bindings: Address) -> None:
        self._file = file
        self._bindings = bindings
        self._thread = WorkerThread()
        self._turn = BoundedSemaphore(1)

    def restore(self, table: AffinityTable, ttl_seconds: float) -> None:
        """Put the bindings of the file into the table; a file that cannot be read is logged."""
        try:
            restored, left_out = self._file.read(ttl_seconds)
        except (OSError, ValueError) as error:
            logger.error("bindings not restored: {}", error)
            return
        for binding in restored:
            table.restore(binding)
        why = f": {left_out}" if left_out else ""
        logger.info("{} restored{}", counted(len(restored), "binding"), why)

    def write(self) -> None:
        """Replace the file by the bindings of now. Raises OSError; TimeoutError after 30 s."""
        # The last snapshot may come while a periodic one is being written.
        with gevent.Timeout(_WRITE_SECONDS, TimeoutError("the disk does not respond")), self._turn:
            self._write()

    def hand_over(self) -> None:
        """Replace the file for the next edge. Waits up to 30 s for the disk; logs every failure and raises none."""
        try:
            self.write()
        except Exception as error:  # a full disk, a bindings actor that is down: stopping goes on
            logger.error("bindings not kept: {}", error)

    def write_last(self) -> None:
        """Replace the file at the end, as `hand_over` does, unless the next edge has written it already."""
        if not self._file.is_replaced():
            self.hand_over()

    def _write(self) -> None:
        counts = ask(self._bindings, CountBindings(), timeout_s=ASK_TIMEOUT_SECONDS)
        writer = self._thread.run(self._file.rewrite)
        try:
            for shard in range(counts.shards):  # shard by shard, so that the actor never copies everything at once
                copied = ask(self._bindings, CopyBindings(shard), timeout_s=ASK_TIMEOUT_SECONDS)
                self._thread.run(writer.add, copied)
            self._thread.run(writer.commit)
        except TimeoutError:  # the thread is blocked by the disk: it removes its file once the disk answers
            gevent.spawn(self._thread.run, writer.abandon)
            raise
        except Exception:
            self._thread.run(writer.abandon)
            raise
