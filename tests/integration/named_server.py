"""A server in its own process, to be killed and frozen, which responds with its name.

`python named_server.py NAME PORT DELAY [HOST]` listens on a port of loopback, prints the port, and takes DELAY
seconds for each response. It responds to GET with 200, so that http probes succeed.
"""

from __future__ import annotations

import socket
import sys
import threading
import time


def serve(sock: socket.socket, name: bytes, delay_seconds: float) -> None:
    """Respond until the client closes."""
    with sock:
        try:
            while question := sock.recv(4096):
                if question.startswith(b"GET "):
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                else:
                    time.sleep(delay_seconds)
                    sock.sendall(name + b"\n")
        except ConnectionError:
            pass  # the edge or the client has gone


def main() -> None:
    name, port, delay, host = [*sys.argv[1:], "127.0.0.1"][:4]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, int(port)), family=family, backlog=1024) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            sock, _ = server.accept()
            threading.Thread(target=serve, args=(sock, name.encode(), float(delay)), daemon=True).start()


if __name__ == "__main__":
    main()
