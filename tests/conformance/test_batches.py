"""Batches of many shapes: put, read in whole and in part, overwritten, cleared in part and in whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import transferq

from .backend import Backend
from .patterns import number_of, numbers_of, row, rows, unbound

KiB, MiB = 1 << 10, 1 << 20


def arrays(column: Any) -> list[np.ndarray]:
    """The rows of a column."""
    return [np.asarray(value) for value in unbound(column)]


@pytest.mark.parametrize("count", [1, 129, 3000, pytest.param(100_000, marks=pytest.mark.full)])
def test_rows(backend: Backend, pid: str, count: int) -> None:
    """Dense, ragged, scalar and other columns of `count` rows; some read in another order, some twice."""
    if not backend.encodes:
        count = min(count, 500 if count < 10_000 else 2000)  # a file per cell
    client = transferq.get_client()
    ragged = [row(i, 1 + i % 7) for i in range(count)]
    meta = client.put(
        {
            "dense": rows(range(count), 5),
            "ragged": ragged,
            "scalar": np.arange(count, dtype=np.float32),
            "text": [f"row {i}" for i in range(count)],
        },
        partition_id=pid,
    )
    assert meta.size == count
    data = client.get_data(meta)
    assert numbers_of(data["dense"]) == list(range(count))
    assert numbers_of(data["ragged"]) == list(range(count))
    assert [len(value) for value in arrays(data["ragged"])] == [len(value) for value in ragged]
    assert np.array_equal(np.asarray(data["scalar"]), np.arange(count, dtype=np.float32))
    assert list(data["text"]) == [f"row {i}" for i in range(count)]
    chosen = [i % count for i in (count - 1, 0, count // 2, 0, 7, 7)]
    few = meta.select_samples(chosen).select_fields(["ragged", "text"])
    data = client.get_data(few)
    assert numbers_of(data["ragged"]) == chosen
    assert list(data["text"]) == [f"row {i}" for i in chosen]


EDGES = [0, 1, 7, 4 * KiB, 64 * KiB - 8, 64 * KiB, 64 * KiB + 8, 256 * KiB, 256 * KiB + 8, 3 * MiB]


def test_sizes(backend: Backend, pid: str) -> None:
    """Values from zero bytes to some megabytes, alone and together."""
    client = transferq.get_client()
    values = [np.arange(size, dtype=np.int64).astype(np.uint8) for size in EDGES]
    for number, value in enumerate(values):
        meta = client.put({"x": value[None], "n": np.array([number])}, partition_id=pid)
        data = client.get_data(meta)
        assert np.array_equal(arrays(data["x"])[0], value)
        assert [int(n) for n in data["n"]] == [number]
    together = client.put({"x": values}, partition_id=pid)
    read = arrays(client.get_data(together)["x"])
    for value, got in zip(values, read, strict=True):
        assert np.array_equal(got, value)
    backwards = together.select_samples(list(range(len(values)))[::-1])
    read = arrays(client.get_data(backwards)["x"])
    assert [got.nbytes for got in read] == EDGES[::-1]


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [64 * MiB, 1 << 30], ids=["64MiB", "1GiB"])
def test_large_values(backend: Backend, pid: str, size: int) -> None:
    """One value of this size, beside small ones."""
    client = backend.client(timeout=300)
    large = row(3, size // 8)
    meta = client.put({"x": large[None], "n": np.array([3])}, partition_id=pid)
    data = client.get_data(meta)
    assert int(data["n"][0]) == 3
    assert number_of(unbound(data["x"])[0]) == 3


@pytest.mark.full
@pytest.mark.timeout(600)
def test_large_batches(backend: Backend, pid: str) -> None:
    """Half a gigabyte of rows of a megabyte each, in three fields."""
    client = backend.client(timeout=300)
    each = rows(range(170), MiB // 8)
    meta = client.put({"a": each, "b": each, "c": each}, partition_id=pid)
    data = client.get_data(meta)
    for name in ("a", "b", "c"):
        assert numbers_of(data[name]) == list(range(170))


def test_overlapping_puts(backend: Backend, pid: str) -> None:
    """Puts that share some samples and some fields: each cell has its latest value, all else stays."""
    keys = [f"k{i}" for i in range(12)]
    transferq.kv_batch_put(keys[:8], pid, {"a": rows(range(8), 50), "b": rows(range(8), 6)})
    transferq.kv_batch_put(keys[4:], pid, {"b": rows(range(104, 112), 9), "c": rows(range(8), 3)})
    transferq.kv_batch_put(keys[6:7], pid, {"a": rows([77], 5000)})
    read = transferq.kv_batch_get(keys[4:8], pid)
    assert sorted(read.keys()) == ["a", "b", "c"]
    assert numbers_of(read["a"]) == [4, 5, 77, 7]
    assert numbers_of(read["b"]) == [104, 105, 106, 107]
    assert numbers_of(read["c"]) == [0, 1, 2, 3]
    assert sorted(transferq.kv_batch_get(keys, pid).keys()) == ["b"]
    assert numbers_of(transferq.kv_batch_get(keys[:4], pid, select_fields=["b"])["b"]) == [
        0,
        1,
        2,
        3,
    ]
    assert numbers_of(transferq.kv_batch_get(keys, pid)["b"]) == [*range(4), *range(104, 112)]


def test_overwrites(backend: Backend, pid: str) -> None:
    """The same cells overwritten repeatedly, with larger and smaller values; old values are gone from the store."""
    client = transferq.get_client()
    meta = client.put({"x": rows(range(6), 10), "y": rows(range(6), 4)}, partition_id=pid)
    for version, size in enumerate([1, 20_000, 3, 40_000, 100], start=1):
        some = meta.select_samples([1, 3, 5]).select_fields(["x"])
        client.put({"x": rows(range(10 * version, 10 * version + 3), size)}, metadata=some)
        data = client.get_data(client.get_meta(["x", "y"], 6, pid, mode="force_fetch"))
        base = 10 * version
        assert numbers_of(data["x"]) == [0, base, 2, base + 1, 4, base + 2]
        assert numbers_of(data["y"]) == list(range(6))
    client.clear_partition(pid)
    backend.wait_empty(client)


def test_partial_clear(backend: Backend, pid: str) -> None:
    """Cleared samples are gone for every client; the others stay; the indexes are reused."""
    client = transferq.get_client()
    meta = client.put({"x": rows(range(20), 3000), "n": np.arange(20)}, partition_id=pid)
    gone = meta.select_samples(list(range(0, 20, 2)))
    stay = meta.select_samples(list(range(1, 20, 2)))
    client.clear_samples(gone)
    client.clear_samples(gone)
    assert numbers_of(client.get_data(stay)["x"]) == list(range(1, 20, 2))
    try:  # their block may still exist, because it holds the others
        assert numbers_of(client.get_data(gone)["x"]) == list(range(0, 20, 2))
    except (transferq.errors.ClearedError, transferq.errors.LostError) as error:
        assert "sample" in str(error)
    again = client.put({"x": rows(range(100, 110), 7)}, partition_id=pid)
    assert numbers_of(client.get_data(again)["x"]) == list(range(100, 110))
    assert numbers_of(client.get_data(stay)["x"]) == list(range(1, 20, 2))
    every = client.get_meta(["x"], 20, pid, mode="force_fetch")
    assert sorted(numbers_of(client.get_data(every)["x"])) == [*range(1, 20, 2), *range(100, 110)]
    client.clear_partition(pid)
    backend.wait_empty(client)


def test_stages(backend: Backend, pid: str) -> None:
    """A stage claims the samples of the previous stage, and adds a column; each sample is handed out once."""
    client = transferq.get_client()
    for first in range(0, 32, 8):
        client.put({"x": rows(range(first, first + 8), 300)}, partition_id=pid)
    seen: list[int] = []
    for _ in range(4):
        claimed = client.get_meta(["x"], 8, pid, task_name="score")
        numbers = numbers_of(client.get_data(claimed)["x"])
        client.put({"score": np.array(numbers) * 0.5, "y": rows(numbers, 40)}, metadata=claimed)
    for _ in range(2):
        claimed = client.get_meta(["x", "y", "score"], 16, pid, task_name="train")
        data = client.get_data(claimed)
        numbers = numbers_of(data["x"])
        assert numbers_of(data["y"]) == numbers
        assert np.asarray(data["score"]).tolist() == [0.5 * number for number in numbers]
        seen += numbers
    assert sorted(seen) == list(range(32))


def test_two_partitions(backend: Backend, pid: str) -> None:
    """The same keys in two partitions are different samples."""
    other = f"{pid}, the other"
    client = transferq.get_client()
    transferq.kv_batch_put(["a", "b"], pid, {"x": rows([1, 2], 10)})
    transferq.kv_batch_put(["a", "b"], other, {"x": rows([3, 4], 20)})
    assert numbers_of(transferq.kv_batch_get(["a", "b"], pid)["x"]) == [1, 2]
    client.clear_partition(pid)
    assert numbers_of(transferq.kv_batch_get(["b", "a"], other)["x"]) == [4, 3]
    client.clear_partition(other)
    backend.wait_empty(client)
