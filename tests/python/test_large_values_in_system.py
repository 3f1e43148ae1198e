"""Large memory inside values that go through a system: its owner, and the time it is kept."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest

import transferq
from support.large_values import (
    LARGE_VALUES,
    same,
)
from transferq import _core
from transferq.errors import SerializationError

torch = pytest.importorskip("torch")
tensordict = pytest.importorskip("tensordict")
Image = pytest.importorskip("PIL.Image")


def rows_of(count: int, size: int = 20_000) -> list[Any]:
    return [
        {"a": torch.full((size,), row), "b": {"c": [np.full(size, row)]}} for row in range(count)
    ]


def stack(rows: list[Any]) -> Any:
    return tensordict.TensorDict({"v": tensordict.NonTensorStack(*rows)}, batch_size=[len(rows)])


def test_values_are_independent_of_the_store_and_of_the_caller(client: Any, pid: str) -> None:
    """Changes to the caller's values after the put, to the result of a read, or by a later put, are visible nowhere else."""
    keys = [f"k{row}" for row in range(20)]
    rows = rows_of(20)
    transferq.kv_batch_put(keys, pid, stack(rows))
    for row in rows:
        row["a"].fill_(-1)
        row["b"]["c"][0][:] = -1
    wanted = rows_of(20)
    first = transferq.kv_batch_get(keys, pid)["v"]
    second = transferq.kv_batch_get(keys, pid, zero_copy=True)["v"]
    for row in first:
        row["a"].fill_(-2)
        row["b"]["c"][0][:] = -2
    assert same(wanted, list(second))
    assert same(wanted, list(transferq.kv_batch_get(keys, pid)["v"]))
    kept = transferq.kv_batch_get(keys[3:5], pid)["v"][1]
    transferq.kv_clear(keys, pid)
    transferq.kv_batch_put(keys, pid, stack(rows))
    gc.collect()
    assert same(wanted[4], kept)


def test_each_kind_through_a_system(client: Any, pid: str) -> None:
    for name, make in LARGE_VALUES.items():
        value = {"in": make()}
        transferq.kv_put(name, pid, fields={name.replace(" ", "_"): value})
        got = transferq.kv_batch_get(name, pid)[name.replace(" ", "_")]
        assert same(value, got[0] if isinstance(got, list) else got.tolist()[0]), name


def test_memory_is_given_back(client: Any, pid: str) -> None:
    """Even after errors; a value that is kept alive keeps the memory of its read, a small one does not."""
    keys = [f"k{row}" for row in range(10)]
    transferq.kv_batch_put(keys, pid, stack([{**row, "s": torch.zeros(9)} for row in rows_of(10)]))
    gc.collect()
    before = _core.live()
    data = transferq.kv_batch_get(keys, pid)
    large, small = data["v"][0]["a"], data["v"][1]["s"]
    del data
    gc.collect()
    assert _core.live()["data"] == before["data"] + 1
    assert same(large, torch.full((20_000,), 0))
    del large
    gc.collect()
    assert _core.live()["data"] == before["data"]
    assert same(small, torch.zeros(9))
    source = torch.zeros(50_000)
    references = source._use_count() if hasattr(source, "_use_count") else 0
    with pytest.raises(SerializationError, match="cannot be pickled"):
        transferq.kv_put("bad", pid, fields={"v": [source, threading.Lock()]})
    gc.collect()
    assert _core.live() == before
    assert not references or source._use_count() == references


def test_a_cancelled_put_keeps_the_memory_as_long_as_it_is_read(client: Any, pid: str) -> None:
    """Cancelled at any point: all of the data is stored, or none; the next put is correct."""

    async def main() -> None:
        for attempt in range(12):
            keys = [f"{attempt}-{row}" for row in range(8)]
            put = asyncio.create_task(
                transferq.async_kv_batch_put(keys, pid, stack(rows_of(8, 40_000)))
            )
            for _ in range(attempt):
                await asyncio.sleep(0)
            put.cancel()
            await asyncio.gather(put, return_exceptions=True)
            gc.collect()
            listed = (await transferq.async_kv_list(pid)).get(pid, {})
            assert {key in listed for key in keys} in ({True}, {False})
            if keys[0] in listed:
                got = await transferq.async_kv_batch_get(keys, pid)
                assert same(rows_of(8, 40_000), list(got["v"]))
            await transferq.async_kv_batch_put(keys, pid, stack(rows_of(8)))
            got = await transferq.async_kv_batch_get(keys, pid)
            assert same(rows_of(8), list(got["v"]))
            await transferq.async_kv_clear(keys, pid)

    asyncio.run(main())


def test_many_threads_and_loops(client: Any, pid: str) -> None:
    problems: list[BaseException] = []

    def work(number: int) -> None:
        keys = [f"{number}-{row}" for row in range(5)]
        wanted = [{**row, "n": number} for row in rows_of(5)]

        async def in_loop() -> None:
            for _ in range(5):
                await transferq.async_kv_batch_put(keys, pid, stack(wanted))
                assert same(wanted, list((await transferq.async_kv_batch_get(keys, pid))["v"]))

        try:
            if number % 2:
                asyncio.run(in_loop())
            else:
                for _ in range(5):
                    transferq.kv_batch_put(keys, pid, stack(wanted))
                    assert same(wanted, list(transferq.kv_batch_get(keys, pid)["v"]))
        except BaseException as error:  # noqa: BLE001 - shown below
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == []


def in_child(pid: str) -> None:
    async def main() -> None:
        keys = [f"child{row}" for row in range(200)]
        await transferq.async_kv_batch_put(keys, pid, stack(rows_of(200, 600)))
        got = await transferq.async_kv_batch_get(keys, pid)
        assert same(rows_of(200, 600), list(got["v"]))

    asyncio.run(main())
    transferq.close()


def test_a_forked_child_has_threads_of_its_own(client: Any, pid: str) -> None:
    async def main() -> None:
        keys = [f"k{row}" for row in range(200)]
        await transferq.async_kv_batch_put(keys, pid, stack(rows_of(200, 600)))

    asyncio.run(main())
    kept = transferq.kv_batch_get([f"k{row}" for row in range(200)], pid)["v"]
    child = multiprocessing.get_context("fork").Process(target=in_child, args=(pid,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert same(rows_of(200, 600), list(kept))


def test_a_storage_manager_in_python_gets_ordinary_values(client: Any, pid: str) -> None:
    """And so does a parser: encoding happens after them."""
    seen: list[Any] = []

    def parser(data: Any) -> Any:
        seen.extend(data["v"])
        return data

    client.put(stack(rows_of(2)), partition_id=pid, data_parser=parser)
    assert same(rows_of(2), seen)
