"""Small requests at a fixed rate, independent of response times, to see the effect of pauses of the proxy."""

import asyncio
import re
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from scripts.benchmark.processes import MeasurementError

RATE_PER_SECOND = 500
CONNECTIONS = 20
RESPONSE_SECONDS = 10.0
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"


@dataclass(frozen=True, slots=True)
class HandlerResponse:
    """The latency of a response since its request was due, and its X-Generation, if any."""

    latency_ms: float
    generation: str


class PacedRequests(threading.Thread):
    """A context manager: sends requests inside the block; `latencies_ms()` returns all latencies after it."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.responses: list[HandlerResponse] = []
        self.failure: Exception | None = None
        self.is_over = threading.Event()

    def run(self) -> None:
        """Distribute the requests over the connections."""
        try:
            asyncio.run(self.request_all())
        except (OSError, EOFError, MeasurementError) as error:
            self.failure = error

    async def request_all(self) -> None:
        """Send request n on connection n modulo their number, n / RATE_PER_SECOND after the start."""
        started = time.monotonic()
        await asyncio.gather(*(self.request_on_one(started, first) for first in range(CONNECTIONS)))

    async def request_on_one(self, started: float, number: int) -> None:
        """Send every CONNECTIONS-th request when it is due, or at once if the previous response was late."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while not self.is_over.is_set():
            due = started + number / RATE_PER_SECOND
            if time.monotonic() < due:
                await asyncio.sleep(due - time.monotonic())
                due = time.monotonic()  # do not charge our own late wake-up to the proxy
            writer.write(REQUEST)
            async with asyncio.timeout(RESPONSE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(2)
            latency_ms = (time.monotonic() - due) * 1000
            if not head.startswith(b"HTTP/1.1 200") or body != b"ok":
                raise MeasurementError(f"the response is not 200 with ok: {head + body!r}")
            generation = re.search(r"\r\nx-generation: *(\d+)", head.decode("latin-1"), re.IGNORECASE)
            self.responses.append(HandlerResponse(latency_ms, generation[1] if generation else ""))
            number += CONNECTIONS
        writer.close()

    def await_generation(self, generation: str) -> None:
        """Wait for a response of that generation. Raises MeasurementError after 10 s."""
        deadline = time.monotonic() + RESPONSE_SECONDS
        while not self.responses or self.responses[-1].generation != generation:
            if self.failure or time.monotonic() > deadline:
                raise MeasurementError(f"no response of generation {generation}: {self.failure or 'not within 10 s'}")
            time.sleep(0.01)

    def latencies_ms(self) -> list[float]:
        """Return the latencies in ascending order. Raises MeasurementError if a request failed."""
        if self.failure or not self.responses:
            raise MeasurementError(f"the paced requests failed: {self.failure or 'no response'}")
        return sorted(response.latency_ms for response in self.responses)

    def __enter__(self) -> "PacedRequests":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over.set()
        self.join()  # at most the response timeout of 10 s
