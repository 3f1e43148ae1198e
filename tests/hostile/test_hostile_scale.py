"""The default limits exceed what a large job needs: this many clients and partitions at once reach none of them."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest
from holder import memory
from limits import Place

from support.daemons import System

CLIENTS, PER_PROCESS, PARTITIONS = 8192, 1024, 10_000
MIB = 1 << 20


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system whose daemon has as many descriptors as it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = System(tmp_path)
    try:
        yield made
    finally:
        made.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def said(pipe: IO[str] | None) -> str:
    """The next line of a program's output."""
    assert pipe
    return pipe.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    """Lets a program continue that waits for a line."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.full
def test_8192_clients_and_10000_partitions_reach_no_limit(system: System) -> None:
    """Each client puts, claims, reads and clears; while all are connected, each partition gets a field and a task."""
    place = Place(system, [])
    program = Path(os.environ["TQ_TEST_BUILD"]) / "bench" / "many_clients"
    environment = {**system.environment(), "TQ_LOG": "error"}
    with ExitStack() as stack, place.holders:
        before = memory(place.daemon.pid)
        crowd = [
            stack.enter_context(
                subprocess.Popen(
                    [program, str(PER_PROCESS), "2"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
            for _ in range(CLIENTS // PER_PROCESS)
        ]
        assert [said(process.stdout) for process in crowd] == ["open"] * len(crowd)
        connected = memory(place.daemon.pid)
        for process in crowd:
            go_on(process)
        for process in crowd:
            rounds = [said(process.stdout) for _ in range(2 * PER_PROCESS)]
            assert all(float(seconds) > 0 for seconds in rounds)
            assert said(process.stdout) == "done"
        for index in range(PARTITIONS):
            meta = place.client.put({"x": [index]}, partition_id=f"partition-{index}")
            assert meta.size == 1
            place.client.get_meta(["x"], 1, f"partition-{index}", task_name="task")
        at_most = memory(place.daemon.pid, "VmHWM")
        assert len(place.client.get_partition_list()) >= PARTITIONS
        counts = place.counts()
        for process in crowd:
            go_on(process)
    print(
        f"{CLIENTS} clients take {(connected - before) / MIB:.0f} MiB of the daemon, "
        f"{(at_most - before) / MIB:.0f} MiB at most with {PARTITIONS} partitions"
    )
    assert counts and not any(counts.values()), counts
