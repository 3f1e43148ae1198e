"""A raw stream between two hosts, with nothing above it: how fast the bytes of a batch can cross the link.

    python bench/raw.py serve ADDRESS SIZE      python bench/raw.py ask ADDRESS SIZE

Both ends have a buffer of the whole size whose pages are mapped, like the memory of the queue and of the caller.  `serve`
prints its port.  `ask` reads its port, then lines `put` (send its buffer to the other end) and `get` (receive the other
end's), and answers each with the seconds until the receiving end had read the last byte.
"""

from __future__ import annotations

import socket
import sys
import time

import numpy as np


def receive(connection: socket.socket, buffer: memoryview) -> None:
    """Fill the buffer."""
    at = 0
    while at < len(buffer):
        count = connection.recv_into(buffer[at:])
        if count == 0:
            raise EOFError("the other end is gone")
        at += count


def serve(address: str, buffer: memoryview) -> None:
    """Serve one connection."""
    with socket.create_server((address, 0)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while what := connection.recv(1):
            if what == b"p":
                receive(connection, buffer)
                connection.sendall(b".")
            else:
                connection.sendall(buffer)


def ask(address: str, buffer: memoryview) -> None:
    """Time the requests on the standard input."""
    port = int(sys.stdin.readline())
    with socket.create_connection((address, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for line in sys.stdin:
            started = time.perf_counter()
            if line.strip() == "put":
                connection.sendall(b"p")
                connection.sendall(buffer)
                connection.recv(1)
            else:
                connection.sendall(b"g")
                receive(connection, buffer)
            print(time.perf_counter() - started, flush=True)


def main() -> None:
    """Run the end given by the arguments."""
    end, address, size = sys.argv[1:]
    {"serve": serve, "ask": ask}[end](address, np.ones(int(size), dtype=np.uint8).data)


if __name__ == "__main__":
    main()
