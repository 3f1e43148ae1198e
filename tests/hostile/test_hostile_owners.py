"""The controller's cost for clients does not grow with the number of registered storage units."""

from __future__ import annotations

import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from holder import Holder, data, number

import transferq
from support.daemons import Daemon, System

REGISTER_OWNER, REPORT_OWNER = 30, 31

NEAR = 2
MANY = 2_048
CLIENTS = 64
ROUNDS = 8
ROW = {"x": np.zeros((1, 64), np.float32)}

BYTES = struct.Struct("=120xQQ")
"""Fields of the kernel's tcp_info: bytes acknowledged by the peer, and bytes received."""


def register(holder: Holder, index: int) -> None:
    """Registers an owner, and reports once, as a storage unit on another machine would."""
    endpoint = f"tcp:10.{index >> 16}.{index >> 8 & 255}.{index & 255}:7000"
    info = (
        f"{endpoint},unix:/run/far/unit-{index}.sock\0machine-{index:032}\0{index:x} 1 {index:x}\0"
    )
    name = f"far-{index}"
    owner = data(1, name) + number(2, index + 1) + data(3, "SimpleStorage") + data(4, info)
    assert not holder.call(REGISTER_OWNER, owner).failed
    counters = ["capacity_bytes", "used_bytes", *(f"counter_number_{n}" for n in range(25))]
    report = data(1, name) + b"".join(data(2, counter) for counter in counters)
    values = b"".join(number(3, value) for value in (1 << 40, index, *range(25)))
    assert not holder.call(REPORT_OWNER, report + values).failed


class Scene:
    """A controller with two units on this machine, others that are only registered, and clients that put there."""

    def __init__(self, folder: Path, owners: int, stack: ExitStack) -> None:
        """Start everything."""
        folder.mkdir()
        self.system = System(folder)
        stack.callback(self.system.close)
        self.controller: Daemon = self.system.start(
            "--listen", "tcp:127.0.0.1:0", role="controller"
        )
        tcp = next(one for one in self.system.address.split(",") if one.startswith("tcp:"))
        self.port = int(tcp.rpartition(":")[2])
        self.system.address = tcp
        for unit in range(NEAR):
            self.system.join(
                "--runtime-dir",
                str(folder / f"near-{unit}"),
                name=f"near-{unit}",
                settings=[
                    "backend.SimpleStorage.total_storage_size=64MiB",
                    "backend.SimpleStorage.num_data_storage_units=1",
                ],
            )
        if owners > NEAR:
            holder = stack.enter_context(Holder(tcp, self.system.token_file))
            for index in range(owners - NEAR):
                register(holder, index)
        self.clients: list[transferq.TransferQueueClient] = [
            self.system.client(f"client-{index}") for index in range(CLIENTS)
        ]
        self.times: list[float] = []
        self.bytes: list[int] = []

    def moved(self) -> int:
        """Bytes so far between the controller and the clients, which are all in this process."""
        total = 0
        for entry in os.listdir("/proc/self/fd"):
            try:
                if not stat.S_ISSOCK(os.stat(int(entry)).st_mode):
                    continue
                with socket.socket(fileno=os.dup(int(entry))) as one:
                    if one.family == socket.AF_INET and one.getpeername()[1] == self.port:
                        info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES.size)
                        total += sum(BYTES.unpack(info))
            except OSError:
                continue  # closed meanwhile, or without a peer
        return total

    def put(self) -> None:
        """One put by each client; records its cost to the controller."""
        seconds, moved = self.controller.seconds(), self.moved()
        for client in self.clients:
            client.put(ROW, partition_id="p")
        self.clients[0].clear_partition("p")
        self.times.append(self.controller.seconds() - seconds)
        self.bytes.append(self.moved() - moved)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opens."""
    with ExitStack() as made:
        yield made


@pytest.mark.slow
def test_clients_cost_the_same_beside_many_units(tmp_path: Path, stack: ExitStack) -> None:
    scenes = [Scene(tmp_path / str(owners), owners, stack) for owners in (NEAR, MANY)]
    # Both take turns, so that a busy machine affects both.  A client reads the list of units once a second, so its
    # puts are slightly more than that apart.
    start = time.monotonic()
    for turn in range(ROUNDS + 1):
        time.sleep(max(0.0, start + 1.1 * turn - time.monotonic()))
        for scene in scenes:
            scene.put()
    few, many = ({"seconds": min(s.times[1:]), "bytes": min(s.bytes[1:])} for s in scenes)
    print(f"of a second of {CLIENTS} clients: {few} with {NEAR} owners, {many} with {MANY}")
    # Both cost the same.  When each list named all owners there were 900 times as many bytes and 25 times the processor
    # time, which is three milliseconds on a shared machine.
    assert many["bytes"] <= 1.5 * few["bytes"]
    assert many["seconds"] <= 5 * few["seconds"]
