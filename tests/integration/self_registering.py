"""A service that registers itself: `python self_registering.py URL TOKEN_FILE PORT`, without gevent."""

from __future__ import annotations

import signal
import socketserver
import sys
import threading
from pathlib import Path

from app.registration.client import RegistrationClient


class PythonService(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(4096):
            self.request.sendall(b"python\n")


def main() -> None:
    url, token_file, port = sys.argv[1:]
    assert "gevent" not in sys.modules
    told_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: told_to_end.set())
    with socketserver.ThreadingTCPServer(("127.0.0.1", int(port)), PythonService) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with RegistrationClient(int(port), app="web", url=url, token=Path(token_file), drain_seconds=0.2):
            told_to_end.wait()
        server.shutdown()
        server.block_on_close = False


if __name__ == "__main__":
    main()
