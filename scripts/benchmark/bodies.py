"""Large bodies through an HTTP proxy: a few connections, each requesting one file repeatedly."""

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from scripts.benchmark.processes import MeasurementError

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 1 << 16
RESPONSE_SECONDS = 10.0


def fetch(port: int, path: str, size: int, connections: int, seconds: float) -> float:
    """Return the Gbit/s of body bytes over all connections. Every response must be 200 with `size` bytes."""
    ends_at = time.monotonic() + seconds
    started = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        readers = [pool.submit(fetch_on_one, port, path, size, ends_at) for _ in range(connections)]
        received = sum(reader.result() for reader in readers)
    return received * 8 / (time.monotonic() - started) / 1e9


def fetch_on_one(port: int, path: str, size: int, ends_at: float) -> int:
    """Request whole files on one connection until the time is up. Returns the body bytes received."""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
    nowhere = bytearray(CHUNK_BYTES)
    received = 0
    with socket.create_connection(("127.0.0.1", port), timeout=RESPONSE_SECONDS) as connection:
        while time.monotonic() < ends_at:
            connection.sendall(request)
            left = size - read_head(connection, size)
            while left:
                # MSG_TRUNC: the kernel discards the bytes without copying, which spares the core of the load
                count = connection.recv_into(nowhere, min(left, CHUNK_BYTES), socket.MSG_TRUNC)
                if not count:
                    raise MeasurementError(f"{path} ended {left} bytes early")
                left -= count
            received += size
    return received


def read_head(connection: socket.socket, size: int) -> int:
    """Read the head of a response. Returns the number of body bytes received with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(HEAD_BYTES)
        if not more or len(data) > HEAD_BYTES:
            raise MeasurementError(f"the head is incomplete: {data[:200]!r}")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if not head.startswith(b"HTTP/1.1 200") or length is None or int(length[1]) != size:
        raise MeasurementError(f"the response is not 200 with {size} bytes: {head[:300]!r}")
    return len(body)
