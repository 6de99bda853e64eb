#!/usr/bin/env python3
"""Be a client elsewhere: `scripts/as_client.py 200.160.2.3` asks the edge as if from that address.

It speaks PROXY protocol v1 from 127.0.0.2, which the demo's .env trusts (EDGEPROXY_PROXY_PROTOCOL_FROM),
sends a GET and prints the first line of the answer: which backend it was. Any python3 will do, without .venv.
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
# An edge that does not trust us hands the PROXY line to the backend as if it were the request.
OR_NOT_TRUSTED = (
    f"either the edge does not trust {OUR_ADDRESS} (EDGEPROXY_PROXY_PROTOCOL_FROM={OUR_ADDRESS}/32), "
    "or no backend of ours answered. Its access log says which"
)


class Failure(Exception):
    """What went wrong, in a sentence for the person at the keyboard."""


def client_ip(text: str) -> str:
    """Return the address, or refuse what is not one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 or IPv6 address") from None
    if "%" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: an address with a zone cannot be sent by PROXY protocol")
    return str(address)


def host_and_port(text: str) -> tuple[str, int]:
    """Split HOST:PORT; the edge is reached over IPv4, as 127.0.0.2 is."""
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
        raise Failure(f"the edge is not running: nothing listens on {where} (scripts/start)") from None
    except OSError as error:
        raise Failure(f"cannot reach the edge on {where}: {error}") from None
    return sock


def ask(edge: tuple[str, int], client: str, path: str) -> str:
    """Send one GET through the edge as the client; return the first line of the answer."""
    with connect(edge) as sock:
        destination_ip, destination_port = sock.getpeername()
        if ":" in client:
            destination_ip = "::1"  # a PROXY line has both addresses of one family
        source = (client, sock.getsockname()[1])
        request = f"GET {path} HTTP/1.1\r\nHost: {edge[0]}:{edge[1]}\r\nConnection: close\r\n\r\n"
        try:
            header = proxy_protocol.encode(1, source, (destination_ip, destination_port))
            sock.sendall(header + request.encode())
            response = http.client.HTTPResponse(sock, method="GET")
            response.begin()
            text = response.read().decode(errors="replace")
        except TimeoutError:
            raise Failure(f"no answer within {TIMEOUT_SECONDS} seconds") from None
        except (ConnectionError, http.client.IncompleteRead):
            raise Failure(f"the connection was closed without an answer: {OR_NOT_TRUSTED}") from None
        except http.client.HTTPException:
            raise Failure(f"the answer is not HTTP: {OR_NOT_TRUSTED}") from None
    first_line = (text.splitlines() or [""])[0]
    if response.status == 200:
        return first_line
    if response.status == 400:
        raise Failure(f"the backend calls the request bad (400): {OR_NOT_TRUSTED}")
    return f"HTTP {response.status} {response.reason}: {first_line}".removesuffix(": ")


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask the edge as a client of another address.")
    parser.add_argument("address", type=client_ip, metavar="ADDRESS", help="the client address to be")
    parser.add_argument("--edge", type=host_and_port, metavar="HOST:PORT", default="127.0.0.1:8080")
    parser.add_argument("--path", type=request_path, default="/")
    parser.add_argument("--count", type=int, default=1, help="how many requests, a connection each")
    arguments = parser.parse_args()
    for _ in range(arguments.count):
        try:
            print(ask(arguments.edge, arguments.address, arguments.path), flush=True)
        except Failure as failure:
            sys.exit(f"as_client: {failure}")


if __name__ == "__main__":
    main()
