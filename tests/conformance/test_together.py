"""Several processes at once: writers and readers, puts of the same samples, reads of samples being cleared."""

from __future__ import annotations

import pytest

import transferq

from .backend import Backend
from .patterns import numbers_of, rows
from .worker import Worker, consume, overwrite, put_version, read_until_told, write

SHARE = pytest.mark.needs("share")


@SHARE
@pytest.mark.parametrize(
    ("pairs", "batches"), [(2, 12), pytest.param(4, 150, marks=pytest.mark.full)]
)
def test_writers_and_readers(backend: Backend, pid: str, pairs: int, batches: int) -> None:
    """Every row is claimed by exactly one reader, whole."""
    readers = [Worker(consume, backend, pid, batches) for _ in range(pairs)]
    writers = [Worker(write, backend, pid, 100_000 * i, batches) for i in range(pairs)]
    written = [writer.end(300) for writer in writers]
    assert written == [4 * batches] * pairs
    seen = [number for reader in readers for number in reader.end(300)]
    expected = [100_000 * i + row for i in range(pairs) for row in range(4 * batches)]
    assert sorted(seen) == expected


@SHARE
@pytest.mark.parametrize("times", [15, pytest.param(300, marks=pytest.mark.full)])
def test_puts_of_the_same_samples(backend: Backend, pid: str, times: int) -> None:
    """Readers see one whole version of a cell; in the end every cell has one of the last versions."""
    put_version(transferq.get_client(), pid, 1)
    reader = Worker(read_until_told, backend, pid, "atomic" in backend.can)
    writers = [Worker(overwrite, backend, pid, first, times) for first in (1000, 5000)]
    last = [writer.end(300) for writer in writers]
    reader.send("stop")
    whole, _ = reader.end()
    assert whole > 0
    data = transferq.kv_batch_get([f"k{i}" for i in range(6)], pid)
    found = set(numbers_of(data["x"]) + numbers_of(data["y"]))
    assert found <= set(last)
    assert len(found) == 1 or "atomic" not in backend.can


@SHARE
@pytest.mark.parametrize("times", [25, pytest.param(600, marks=pytest.mark.full)])
def test_reads_during_clear(backend: Backend, pid: str, times: int) -> None:
    """A reader gets whole rows, or an error that they were cleared."""
    client = transferq.get_client()
    reader = Worker(read_until_told, backend, pid, "atomic" in backend.can)
    for number in range(times):
        meta = client.put(
            {"x": rows([number] * 3, 9000), "y": rows([number] * 3, 8)}, partition_id=pid
        )
        assert numbers_of(client.get_data(meta)["y"]) == [number] * 3
        client.clear_samples(meta)
    client.put({"x": rows([1] * 3, 9000), "y": rows([1] * 3, 8)}, partition_id=pid)
    reader.send("stop")
    whole, _ = reader.end()
    assert whole > 0
