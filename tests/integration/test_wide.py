"""Samples with many fields: small values share blocks with their neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import transferq
from support.addresses import free_ports
from support.daemons import System
from support.redis_servers import RedisServer
from support.waiting import wait_status

ONE_UNIT = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]


def blocks(client: transferq.TransferQueueClient) -> int:
    """Number of blocks in the storage."""
    return sum(owner["blocks"] for owner in client.status()["owners"])


def stacked(rows: Any) -> np.ndarray[Any, Any]:
    """The rows of a field that was read."""
    return np.stack([np.asarray(row) for row in rows])


@pytest.mark.slow
def test_a_wide_sample_takes_few_blocks(system: System) -> None:
    """32,000 fields of 8 bytes in a unit of 64 MiB, which cannot have that many blocks."""
    system.start(settings=ONE_UNIT)
    client = system.client()
    data = {f"f{i}": np.array([i]) for i in range(32_000)}
    meta = client.put({**data, "large": np.zeros((1, 1 << 20), np.uint8)}, partition_id="p")
    assert blocks(client) == 32_000 * 64 // (64 << 10) + 2
    got = client.get_data(meta.select_fields(["f0", "f12345", "f31999"]))
    assert [int(got[name][0]) for name in ("f0", "f12345", "f31999")] == [0, 12345, 31999]
    client.clear_partition("p")
    wait_status(client, lambda status: status["owners"][0]["blocks"] == 0)


@pytest.fixture
def redis(system: System, tmp_path: Path) -> Iterator[RedisServer]:
    """A system whose data is in a Redis server."""
    made = RedisServer(tmp_path / "redis", free_ports(1)[0])
    system.start(
        settings=[
            "backend.storage_backend=Redis",
            f"backend.Redis.url=redis://127.0.0.1:{made.port}",
        ]
    )
    yield made
    made.stop()


def test_small_columns_share_values(system: System, redis: RedisServer) -> None:
    """100 columns of 4 KiB are seven values of 64 KiB or less; a large one among them does not share a value."""
    client = system.client()
    before = redis.values()
    rows = np.arange(64 * 64).reshape(64, 64)
    data = {f"f{i}": rows[:8] + i for i in range(100)}
    meta = client.put({**data, "large": np.tile(rows[:8], 20)}, partition_id="p")
    assert redis.values() - before == 7 + 1
    got = client.get_data(meta.select_fields(["f99", "large", "f0"]))
    assert np.array_equal(stacked(got["f99"]), rows[:8] + 99)
    assert np.array_equal(stacked(got["f0"]), rows[:8])
    assert np.array_equal(stacked(got["large"]), np.tile(rows[:8], 20))


# Bytes per row: nothing, a number, a tenth of a block, half, nearly a block, exactly a block, more.
widths = st.lists(
    st.sampled_from([0, 1, 8, 64, 6_000, 32_768, 65_000, 65_536, 70_000]), min_size=2, max_size=12
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 11)),
        st.tuples(st.just("clear"), st.integers(0, 3)),
        st.tuples(st.just("read"), st.integers(0, 11)),
    ),
    max_size=8,
)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["memory", "stream"])
def test_any_widths_keep_their_bytes(system: System, way: str) -> None:
    """Put, overwritten, cleared and read in any order, while the unit compacts shared blocks."""
    if way == "memory":
        system.start(settings=ONE_UNIT)
    else:
        system.start("--listen", "tcp:127.0.0.1:0", role="controller")
        system.join("--listen", "tcp:127.0.0.1:0", name="far", settings=ONE_UNIT)
    client = system.client()
    runs = iter(range(1_000_000))

    def column(width: int, rows: int) -> np.ndarray[Any, Any]:
        start = next(runs)
        return ((np.arange(rows * width) + start) % 251).astype(np.uint8).reshape(rows, width)

    def check(partition: str, model: dict[str, np.ndarray[Any, Any]], rows: dict[int, int]) -> None:
        now = client.get_meta(list(model), len(rows), partition, mode="force_fetch")
        order = [rows[index] for index in now.global_indexes]
        got = client.get_data(now)
        for name, expected in model.items():
            assert np.array_equal(stacked(got[name]), expected[order]), name

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(widths=widths, rows=st.integers(1, 4), steps=steps)
    def play(widths: list[int], rows: int, steps: list[tuple[str, int]]) -> None:
        partition = f"run-{next(runs)}"
        model = {f"f{i}": column(width, rows) for i, width in enumerate(widths)}
        meta = client.put(model, partition_id=partition)
        left = list(range(rows))
        for what, which in steps:
            name = f"f{which % len(widths)}"
            there = meta.select_samples(left)
            if what == "write":
                model[name][left] = column(model[name].shape[1], len(left))
                client.put({name: model[name][left]}, metadata=there)
            elif what == "clear" and which in left and len(left) > 1:
                client.clear_samples(meta.select_samples([which]))
                left.remove(which)
            elif what == "read":
                check(
                    partition, {name: model[name]}, {meta.global_indexes[row]: row for row in left}
                )
        check(partition, model, {meta.global_indexes[row]: row for row in left})
        client.clear_partition(partition)

    play()
    wait_status(client, lambda status: all(owner["blocks"] == 0 for owner in status["owners"]))
