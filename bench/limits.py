"""The limits of the machine itself, measured at the same time: nothing that moves bytes is faster."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

STREAM = 256 << 20
CHUNK = 1 << 20
ROUND_TRIPS = 2000


def warm_copy(size: int) -> float:
    """Seconds to copy this many bytes between two buffers whose pages are mapped."""
    source = np.ones(size, dtype=np.uint8)
    destination = np.ones(size, dtype=np.uint8)
    started = time.perf_counter()
    np.copyto(destination, source)
    return time.perf_counter() - started


def stream(size: int, family: socket.AddressFamily) -> float:
    """Seconds to send this many bytes to another process over a socket."""
    with _other_end(family, _drain) as connection:
        buffer = np.ones(CHUNK, dtype=np.uint8).data
        started = time.perf_counter()
        sent = 0
        while sent < size:
            connection.sendall(buffer[: min(CHUNK, size - sent)])
            sent += CHUNK
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the other side has read all of it
        return time.perf_counter() - started


def round_trip() -> float:
    """Median seconds of a small request to another process and its answer."""
    with _other_end(socket.AF_UNIX, _echo) as connection:
        seconds = []
        for _ in range(ROUND_TRIPS):
            started = time.perf_counter()
            connection.sendall(b"?" * 64)
            connection.recv(64)
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _drain(connection: socket.socket) -> None:
    connection.sendall(b"!")
    buffer = bytearray(CHUNK)
    while connection.recv_into(buffer):
        pass
    connection.sendall(b".")


def _echo(connection: socket.socket) -> None:
    connection.sendall(b"!")
    while question := connection.recv(64):
        connection.sendall(question)


@contextmanager
def _other_end(
    family: socket.AddressFamily, run: Callable[[socket.socket], None]
) -> Iterator[socket.socket]:
    """A socket to a process that runs `run` on the other end, and that has started."""
    if family == socket.AF_UNIX:
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
    child = multiprocessing.get_context("forkserver").Process(target=run, args=(theirs,))
    with ours:
        with theirs:
            child.start()
        ours.recv(1)
        yield ours
    child.join()
