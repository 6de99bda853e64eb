#!/usr/bin/env python3
"""Send a request as a client with another address: `scripts/as_client.py 200.160.2.3`.

It connects from 127.0.0.2, which the demo's frontend trusts (proxy_protocol_from), sends a PROXY protocol v1
header and a GET, and prints the first line of the response, which names the backend. Works with any python3, without
.venv.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from app.wire import proxy_protocol

OUR_ADDRESS = "127.0.0.2"
TIMEOUT_SECONDS = 10  # longer than the edge's two connect timeouts
# An edge that does not trust us forwards the PROXY header to the backend as if it were the request.
POSSIBLE_REASONS = (
    f"either the edge does not trust {OUR_ADDRESS} (proxy_protocol_from), "
    "or no backend responded; its access log shows which"
)


class Failure(Exception):
    """The request failed. The text is the reason, for the user."""


def client_ip(text: str) -> str:
    """Parse an IP address. Raises ArgumentTypeError."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 or IPv6 address") from None
    if "%" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: the PROXY protocol cannot carry an address with a zone")
    return str(address)


def host_and_port(text: str) -> tuple[str, int]:
    """Parse HOST:PORT. Only IPv4, because the connection comes from 127.0.0.2."""
    host, _, port = text.rpartition(":")
    if not host or ":" in host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 HOST:PORT such as 127.0.0.1:8080")
    return host, int(port)


def request_path(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or any(letter <= " " for letter in text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a path such as /")
    return text


def connect(edge: tuple[str, int]) -> socket.socket:
    """Connect to the edge from 127.0.0.2."""
    where = f"{edge[0]}:{edge[1]}"
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_SECONDS)
    try:
        try:
            sock.bind((OUR_ADDRESS, 0))
        except OSError as error:
            raise Failure(f"cannot connect from {OUR_ADDRESS}: {error.strerror}") from None
        sock.connect(edge)
    except ConnectionRefusedError:
        raise Failure(f"the edge is not running: nothing listens on {where}; start it with scripts/start") from None
    except OSError as error:
        raise Failure(f"cannot reach the edge on {where}: {error}") from None
    return sock


def send(edge: tuple[str, int], client: str, path: str) -> str:
    """Send one GET through the edge as the client. Returns the first line of the response."""
    with connect(edge) as sock:
        destination_ip, destination_port = sock.getpeername()
        if ":" in client:
            destination_ip = "::1"  # both addresses of a PROXY header are of one family
        source = (client, sock.getsockname()[1])
        request = f"GET {path} HTTP/1.1\r\nHost: {edge[0]}:{edge[1]}\r\nConnection: close\r\n\r\n"
        try:
            header = proxy_protocol.encode(1, source, (destination_ip, destination_port))
            sock.sendall(header + request.encode())
            response = http.client.HTTPResponse(sock, method="GET")
            response.begin()
            text = response.read().decode(errors="replace")
        except TimeoutError:
            raise Failure(f"no response within {TIMEOUT_SECONDS} seconds") from None
        except (ConnectionError, http.client.IncompleteRead):
            raise Failure(f"the connection was closed without a response: {POSSIBLE_REASONS}") from None
        except http.client.HTTPException:
            raise Failure(f"the response is not HTTP: {POSSIBLE_REASONS}") from None
    first_line = (text.splitlines() or [""])[0]
    if response.status == 200:
        return first_line
    if response.status == 400:
        raise Failure(f"the backend refused the request as bad (400): {POSSIBLE_REASONS}")
    return f"HTTP {response.status} {response.reason}: {first_line}".removesuffix(": ")


def main() -> None:
    parser = argparse.ArgumentParser(description="Send requests to the edge as a client with another address.")
    parser.add_argument("address", type=client_ip, metavar="ADDRESS", help="address of the client")
    parser.add_argument("--edge", type=host_and_port, metavar="HOST:PORT", default="127.0.0.1:8080")
    parser.add_argument("--path", type=request_path, default="/")
    parser.add_argument("--count", type=int, default=1, help="number of requests, each on a new connection")
    arguments = parser.parse_args()
    for _ in range(arguments.count):
        try:
            print(send(arguments.edge, arguments.address, arguments.path), flush=True)
        except Failure as failure:
            sys.exit(f"as_client: {failure}")


if __name__ == "__main__":
    main()
