"""What HTTP clients that do not complete their request do to `/metrics`."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from support.daemons import System

METRICS = ["metrics.enabled=true", "metrics.port=0", "metrics.listen='127.0.0.1'"]

BEGUN = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: "


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address at which a system serves its metrics."""
    running = System(tmp_path)
    running.start(settings=[*METRICS, "backend.SimpleStorage.total_storage_size=16MiB"])
    host, port = running.client().system_config["metrics"]["endpoint"].rsplit(":", 1)
    yield host, int(port)
    running.close()


def scrape(address: tuple[str, int], seconds: float) -> bytes:
    """The page."""
    with urlopen(f"http://{address[0]}:{address[1]}/metrics", timeout=seconds) as answer:
        page: bytes = answer.read()
    return page


def test_slow_sockets_do_not_keep_the_page_away(address: tuple[str, int]) -> None:
    """However many requests are incomplete: a complete request is answered, and the oldest of the others are closed."""
    slow: list[socket.socket] = []
    try:
        for _ in range(200):
            slow.append(socket.create_connection(address, timeout=10))
            slow[-1].sendall(BEGUN)
            if len(slow) in (32, 64, 200):
                start = time.monotonic()
                assert b"tq_partitions_total 0\n" in scrape(address, 5)
                assert time.monotonic() - start < 5
        assert slow[0].recv(1) == b""
        slow[-1].sendall(b"\r\n\r\n")  # a late but valid request
        assert slow[-1].recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
    finally:
        for one in slow:
            one.close()


@pytest.mark.slow
def test_a_request_has_a_deadline(address: tuple[str, int]) -> None:
    """A byte per second does not keep a connection: it is closed within half a minute."""
    with socket.create_connection(address, timeout=10) as slow:
        slow.sendall(BEGUN)
        for _ in range(30):
            readable, _, _ = select.select([slow], [], [], 1)
            if readable:
                break
            slow.sendall(b"x")
        assert readable
        assert slow.recv(1) == b""


def test_a_connection_may_be_kept(address: tuple[str, int]) -> None:
    """Several requests on one connection are answered, each with its own deadline."""
    with socket.create_connection(address, timeout=10) as kept:
        for _ in range(100):
            kept.sendall(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += kept.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200 OK")
