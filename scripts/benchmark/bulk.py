"""A bulk flow: /bulk of the HTTP origin, read repeatedly through a proxy on one connection."""

import socket
import threading
import time
from types import TracebackType

from scripts.benchmark.processes import MeasurementError
from scripts.benchmark.upstreams import BULK_FILE_BYTES

REQUEST = b"GET /bulk HTTP/1.1\r\nHost: bench\r\n\r\n"
HOT_AFTER_BYTES = 32 << 20
HOT_WITHIN_SECONDS = 10.0
CHUNK_BYTES = 1 << 20


class HotFlow(threading.Thread):
    """A context manager: the flow runs inside the block; `gbit_per_second()` is its rate since its start."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.received_bytes = 0
        self.failure: OSError | None = None
        self.is_over = threading.Event()

    def run(self) -> None:
        """Keep two requests in flight, so that the flow never pauses between files."""
        asked = 0
        nowhere = bytearray(CHUNK_BYTES)
        try:
            while not self.is_over.is_set():
                while asked * BULK_FILE_BYTES < self.received_bytes + BULK_FILE_BYTES:
                    self.connection.sendall(REQUEST)
                    asked += 1
                # MSG_TRUNC: the kernel discards the bytes without copying, which spares the core of the load
                size = self.connection.recv_into(nowhere, 0, socket.MSG_TRUNC)
                if not size:
                    raise ConnectionError("the bulk flow was closed by the proxy")
                self.received_bytes += size
        except OSError as error:
            self.failure = error

    def __enter__(self) -> "HotFlow":
        self.start()
        deadline = time.monotonic() + HOT_WITHIN_SECONDS
        while self.received_bytes < HOT_AFTER_BYTES:
            if self.failure or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise MeasurementError(f"the bulk flow did not start: {self.failure or 'too slow'}")
            time.sleep(0.01)
        self._hot_since = time.monotonic()
        self._bytes_before = self.received_bytes
        return self

    def gbit_per_second(self) -> float:
        """Return the rate since the block began. Raises MeasurementError if the flow failed."""
        if self.failure:
            raise MeasurementError(f"the bulk flow failed: {self.failure}")
        seconds = time.monotonic() - self._hot_since
        return (self.received_bytes - self._bytes_before) * 8 / seconds / 1e9

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over.set()
        self.join()  # at most the socket's timeout of 10 s
        self.connection.close()
