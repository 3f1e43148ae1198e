"""Ten thousand partitions created, used and cleared: memory, descriptors and tables do not grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.daemons import System

PARTITIONS = 10_000
WARM = 1_000


def resident_kib(pid: int) -> int:
    """Private memory of a process, without shared memory (the arena)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("no RssAnon")


def descriptors(pid: int) -> int:
    """Open descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [False, True], ids=["usual", "counters-near-their-wrap"])
def test_partitions(system: System, wrap: bool) -> None:
    """Each partition gets puts, a second column, tags, a claim, a read and a clear."""
    # The event ring is full before the first measurement.
    settings = ["backend.SimpleStorage.total_storage_size=64MiB", "controller.events=1000"]
    if wrap:
        settings.append("controller.first_counters=1000")
    daemon = system.start(settings=settings)
    client = system.client()
    base: tuple[int, int] | None = None
    for number in range(PARTITIONS if not wrap else PARTITIONS // 5):
        name = f"step-{number}"
        values = np.arange(8) + number
        meta = client.put({"x": values}, partition_id=name)
        client.put({"y": np.ones((8, 3), dtype=np.float32)}, metadata=meta)
        claimed = client.get_meta(["x", "y"], 8, name, task_name=f"t{number % 7}")
        assert [int(row) for row in client.get_data(claimed)["x"]] == list(values)
        if number % 2:
            client.clear_samples(claimed)
        client.clear_partition(name)
        if number + 1 == WARM:
            base = (resident_kib(daemon.pid), descriptors(daemon.pid))
    assert base is not None
    assert client.get_partition_list() == []
    status = system.status()
    assert status["partitions"] == []
    assert sum(owner["blocks"] for owner in status["storage"]) == 0
    assert resident_kib(daemon.pid) < base[0] * 1.1 + 512
    assert descriptors(daemon.pid) <= base[1] + 2
