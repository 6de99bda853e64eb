"""One hot bulk flow: /bulk of the HTTP origin, read through a proxy over and over on one connection."""

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
    """Use as a context: the flow is hot inside the block; `gbit_per_second()` is its rate since then."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.received_bytes = 0
        self.failure: OSError | None = None
        self.is_over = threading.Event()

    def run(self) -> None:
        """Keep two requests under way, so that the flow never pauses between files."""
        asked = 0
        nowhere = bytearray(CHUNK_BYTES)
        try:
            while not self.is_over.is_set():
                while asked * BULK_FILE_BYTES < self.received_bytes + BULK_FILE_BYTES:
                    self.connection.sendall(REQUEST)
                    asked += 1
                # MSG_TRUNC: the kernel drops the bytes uncopied, which spares the load generator's core
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
        """Return the rate since the block began; raise MeasurementError when the flow broke meanwhile."""
        if self.failure:
            raise MeasurementError(f"the bulk flow broke: {self.failure}")
        seconds = time.monotonic() - self._hot_since
        return (self.received_bytes - self._bytes_before) * 8 / seconds / 1e9

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over.set()
        self.join()  # at most the socket's timeout of 10 s
        self.connection.close()
