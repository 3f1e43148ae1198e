"""What a client that has the token, but is broken or hostile, can do to others; and a stranger with many sockets."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from holder import EINVAL, Holder, data, memory

from support.daemons import System

SMALL = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]
PUBLISH, LIST_PARTITIONS = 16, 25
MIB = 1 << 20


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system that a test starts."""
    made = System(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many open files as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def tcp_of(address: str) -> str:
    """The TCP endpoint of a list."""
    return next(one for one in address.split(",") if one.startswith("tcp:"))


@pytest.mark.usefixtures("many_descriptors")
def test_silent_connections_of_a_stranger_do_not_keep_a_client_out(system: System) -> None:
    # Descriptors for 2,000 connections, and three times as many of a stranger.
    system.start(
        "--listen",
        "tcp:127.0.0.1:0",
        settings=SMALL,
        before=["prlimit", "--nofile=2000:2000"],
    )
    address = tcp_of(system.address)
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    with ExitStack() as strangers:
        for _ in range(6000):
            strangers.enter_context(socket.create_connection((host, int(port)), 10))
        begun = time.monotonic()
        with Holder(address, system.token_file, 5) as client:
            assert not client.call(LIST_PARTITIONS).failed
        assert time.monotonic() - begun < 1.0


def test_decoding_does_not_blow_a_request_up(system: System) -> None:
    daemon = system.start(settings=SMALL)
    # 30 million tags of nothing: two bytes each on the wire, and 94 times that in memory without a budget.
    body = data(1, b"\x3a\x00" * 30_000_000)
    with Holder(system.address.split(",")[0], system.token_file) as holder:
        before = memory(daemon.pid)
        answer = holder.call(PUBLISH, body)
        taken = memory(daemon.pid, "VmHWM") - before
        print(f"a request of {len(body) / MIB:.0f} MiB took {taken / MIB:.0f} MiB at most")
        assert answer.code == EINVAL
        assert "would take more than" in answer.message
        assert taken < 10 * len(body) + 160 * MIB
        assert not holder.call(LIST_PARTITIONS).failed
    assert memory(daemon.pid) - before < 100 * MIB
