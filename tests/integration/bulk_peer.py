"""A peer in a process of its own, for more bytes than the test's process should touch. Run by the copying tests.

``bulk_peer.py exchange SEED BYTES [HOST PORT]`` sends BYTES made from SEED in pieces of 1 byte to 1 MiB while it
receives to the end in pieces of random size, and prints the SHA-256 of what it sent and of what it received.
``bulk_peer.py flood`` sends without end; ``bulk_peer.py drink HOST PORT`` receives without end.
Without HOST PORT it listens, prints its port, and accepts one connection.
"""

import hashlib
import random
import socket
import sys
import threading

BLOCK_BYTES = 8 << 20
LONGEST_PIECE = 1 << 20


def connection(address: list[str]) -> socket.socket:
    if address:
        return socket.create_connection((address[0], int(address[1])), timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        accepted, _ = server.accept()
        accepted.settimeout(60)
        return accepted


def piece_bytes(chance: random.Random) -> int:
    """Return a size from 1 byte to 1 MiB, each order of magnitude as likely as any other."""
    return int(2 ** chance.uniform(0, 20))


def send(sock: socket.socket, seed: int, size: int) -> str:
    chance = random.Random(seed)
    block = memoryview(chance.randbytes(BLOCK_BYTES))
    digest = hashlib.sha256()
    while size:
        start = chance.randrange(BLOCK_BYTES - LONGEST_PIECE)
        piece = block[start : start + min(size, piece_bytes(chance))]
        digest.update(piece)
        sock.sendall(piece)
        size -= len(piece)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


def receive(sock: socket.socket, seed: int) -> str:
    chance = random.Random(-seed)
    buffer = memoryview(bytearray(LONGEST_PIECE))
    digest = hashlib.sha256()
    while count := sock.recv_into(buffer[: piece_bytes(chance)]):
        digest.update(buffer[:count])
    return digest.hexdigest()


def exchange(sock: socket.socket, seed: int, size: int) -> None:
    digests = {}
    sender = threading.Thread(target=lambda: digests.update(sent=send(sock, seed, size)))
    sender.start()
    digests["received"] = receive(sock, seed)
    sender.join()
    print(digests["sent"], digests["received"], flush=True)


def main(what: str, *arguments: str) -> None:
    if what == "exchange":
        seed, size, *address = arguments
        with connection(address) as sock:
            exchange(sock, int(seed), int(size))
        return
    with connection(list(arguments)) as sock:
        block = bytearray(LONGEST_PIECE)
        while what == "flood" or sock.recv_into(block):
            if what == "flood":
                sock.sendall(block)


if __name__ == "__main__":
    main(*sys.argv[1:])
