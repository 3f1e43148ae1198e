"""Threads, event loops, and operations in flight."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import threading
import time
from contextlib import suppress
from random import Random
from typing import Any

import pytest

import transferq
from support.waiting import async_wait_until, async_wait_waiting, wait_until, wait_waiting
from transferq import _core, errors

torch = pytest.importorskip("torch")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_many_calls_in_one_loop(client: Any, pid: str) -> None:
    async def main() -> None:
        async def one(i: int) -> float:
            key = f"k{i}"
            await transferq.async_kv_put(key, pid, fields={"x": torch.tensor([float(i)])})
            return (await transferq.async_kv_batch_get(key, pid))["x"].unbind()[0].item()

        assert await asyncio.gather(*(one(i) for i in range(200))) == [float(i) for i in range(200)]

    asyncio.run(main())


def test_repeated_asyncio_run_keeps_no_descriptors(client: Any, pid: str) -> None:
    asyncio.run(client.async_get_partition_list())
    gc.collect()
    before, live = descriptors(), _core.live()
    for _ in range(30):
        asyncio.run(client.async_get_partition_list())
    gc.collect()
    assert descriptors() <= before
    assert _core.live()["op"] == live["op"]
    assert _core.live()["queue"] <= live["queue"]


def test_threads_with_loops_and_without(client: Any, pid: str) -> None:
    problems: list[BaseException] = []

    def work(number: int) -> None:
        async def in_loop() -> None:
            for step in range(20):
                await transferq.async_kv_put(
                    f"{number}-{step}", pid, fields={"x": torch.tensor([number])}
                )

        try:
            if number % 2:
                asyncio.run(in_loop())
            else:
                for step in range(20):
                    transferq.kv_put(f"{number}-{step}", pid, fields={"x": torch.tensor([number])})
        except BaseException as error:  # noqa: BLE001 - shown below
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert len(transferq.kv_list(pid)[pid]) == 120


def test_every_sample_is_claimed_once(client: Any, pid: str) -> None:
    async def main() -> list[int]:
        claims = [client.async_get_meta(["x"], 2, pid, task_name="t") for _ in range(20)]
        waiting = asyncio.gather(*claims)
        for start in range(0, 40, 5):
            await client.async_put({"x": torch.arange(start, start + 5)}, partition_id=pid)
        return [index for meta in await waiting for index in meta.global_indexes]

    indexes = asyncio.run(main())
    assert len(indexes) == len(set(indexes)) == 40


def test_a_cancelled_await_cancels_the_operation(client: Any, pid: str) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(client.async_get_meta(["x"], 1, pid, task_name="t"))
        await async_wait_waiting(client)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await async_wait_until(
            "no waiting call", client.async_status, lambda now: now["waiting"] == 0
        )
        # The sample goes to the next claim, not to the abandoned one.
        await client.async_put({"x": torch.arange(1)}, partition_id=pid)
        assert (await client.async_get_meta(["x"], 1, pid, task_name="t")).size == 1

    asyncio.run(main())


def test_timeouts_lose_no_samples(client: Any, pid: str) -> None:
    async def main() -> set[int]:
        seen: list[int] = []

        async def produce() -> None:
            for i in range(50):
                await client.async_put({"x": torch.tensor([i])}, partition_id=pid)

        producing = asyncio.ensure_future(produce())
        while len(seen) < 50:
            try:
                claim = client.async_get_meta(["x"], 1, pid, task_name="t")
                seen.extend((await asyncio.wait_for(claim, 0.001)).global_indexes)
            except (asyncio.TimeoutError, TimeoutError):
                continue
        await producing
        assert len(seen) == len(set(seen))
        return set(seen)

    assert len(asyncio.run(asyncio.wait_for(main(), 60))) == 50


def test_claims_cancelled_at_any_moment_lose_no_samples(client: Any, pid: str) -> None:
    total, workers = 300, 12
    random = Random(7)
    seen: list[int] = []

    async def consume(producing: asyncio.Future[None]) -> None:
        while not producing.done():
            claim = asyncio.ensure_future(client.async_get_meta(["x"], 1, pid, task_name="t"))
            for _ in range(random.randrange(8)):
                await asyncio.sleep(0)
            claim.cancel()
            with suppress(asyncio.CancelledError):
                seen.extend((await claim).global_indexes)

    async def produce() -> None:
        for start in range(0, total, 3):
            await client.async_put({"x": torch.arange(start, start + 3)}, partition_id=pid)

    async def main() -> None:
        producing = asyncio.ensure_future(produce())
        await asyncio.gather(*(consume(producing) for _ in range(workers)))
        await producing
        # Samples given back by cancelled claims are claimed by one that is not cancelled.
        while len(seen) < total:
            seen.extend((await client.async_get_meta(["x"], 1, pid, task_name="t")).global_indexes)

    asyncio.run(asyncio.wait_for(main(), 60))
    assert len(seen) == len(set(seen)) == total


def test_cancelled_claims_of_different_kinds_keep_nothing(client: Any, pid: str) -> None:
    async def main() -> None:
        for task in range(50):
            claim = client.async_get_meta(["x"], 1, pid, task_name=f"t{task}")
            with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                await asyncio.wait_for(claim, 0.001)
            await client.async_get_partition_list()

    live = _core.live()["op"]
    asyncio.run(main())
    gc.collect()
    assert _core.live()["op"] <= live + 3


def test_a_loop_that_ends_with_operations_in_flight(client: Any, pid: str) -> None:
    live = _core.live()["op"]
    loop = asyncio.new_event_loop()

    async def start() -> None:
        asyncio.ensure_future(client.async_get_meta(["x"], 1, pid, task_name="t"))  # noqa: RUF006 - left behind
        await client.async_get_partition_list()

    loop.run_until_complete(start())
    for task in asyncio.all_tasks(loop):
        task.cancel()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    del loop, task
    gc.collect()
    asyncio.run(client.async_get_partition_list())
    wait_until("no waiting call", client.status, lambda now: now["waiting"] == 0, 20)
    gc.collect()
    assert _core.live()["op"] <= live + 1


def test_closing_ends_what_is_in_flight(runtime_dir: Any, client: Any, pid: str) -> None:
    other = transferq.TransferQueueClient("other", client._info)

    async def main() -> None:
        task = asyncio.ensure_future(other.async_get_meta(["x"], 1, pid, task_name="t"))
        await async_wait_waiting(client)
        other.close()
        with pytest.raises(errors.ClosedError):
            await task

    asyncio.run(main())


def test_an_interrupt_ends_a_waiting_call(client: Any, pid: str) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(_signal: int, _frame: object) -> None:
        raise Interrupted

    def when_it_waits() -> None:
        wait_waiting(client)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=when_it_waits)
    thread.start()
    try:
        with pytest.raises(Interrupted):
            client.get_meta(["x"], 1, pid, task_name="t")
    finally:
        thread.join(20)
        signal.signal(signal.SIGUSR1, previous)
    client.put({"x": torch.arange(1)}, partition_id=pid)
    assert client.get_meta(["x"], 1, pid, task_name="t").size == 1


def test_an_interrupt_is_never_late(client: Any, pid: str) -> None:
    """Not even when it comes just before the call falls asleep."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise InterruptedError

    previous = signal.signal(signal.SIGALRM, interrupt)
    waited = []
    try:
        for place in range(40):
            begun = time.monotonic()
            with pytest.raises(InterruptedError):
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.00005 * place)
                client.get_meta(["x"], 1, pid, task_name="t")
            waited.append(time.monotonic() - begun)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert sum(seconds > 0.5 for seconds in waited) <= 1, waited


@pytest.mark.parametrize("timeout", [0.0, -1.0, 1e-9, 0.0001, math.nan])
def test_a_result_that_is_not_there_yet(client: Any, timeout: float) -> None:
    op = client._core.events(1 << 62, 0, True, 20.0)
    with pytest.raises(errors.TimedOutError):
        op.result(timeout=timeout)
    op.cancel()
    with pytest.raises(errors.CanceledError):
        op.result()


def test_operations_of_the_extension(client: Any) -> None:
    op = client._core.events(1 << 62, 0, True, 20.0)
    assert not op.done()
    with pytest.raises(errors.TimedOutError):
        op.result(timeout=0.01)
    op.cancel()
    op.cancel()
    with pytest.raises(errors.CanceledError):
        op.result()
    with pytest.raises(errors.CanceledError):
        op.result()
    assert op.done()
    queue = _core.Queue()
    queue.close()
    queue.close()
    assert queue.fileno() == -1
    with pytest.raises(TypeError):
        op.attach(1, 2)
    for kind in (_core.Op, _core.Meta, _core.Data, _core.Buffer):
        with pytest.raises(TypeError):
            kind()
