"""When a process forks after init, both parent and child can continue."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from typing import Any

import pytest

import transferq
from support.waiting import async_wait_waiting

torch = pytest.importorskip("torch")
FORK = multiprocessing.get_context("fork")


def in_child(pid: str, name: str) -> None:
    transferq.kv_put(name, pid, fields={"x": torch.tensor([float(os.getpid())])})
    asyncio.run(transferq.async_kv_put(f"{name}-async", pid, tag={"pid": os.getpid()}))
    assert name in transferq.kv_list(pid)[pid]
    transferq.close()


def run(target: Any, *args: Any) -> int | None:
    child = FORK.Process(target=target, args=args)
    child.start()
    child.join(60)
    return child.exitcode


def test_parent_and_child_both_work(client: Any, pid: str) -> None:
    transferq.kv_put("parent", pid, tag={"n": 1})
    assert [run(in_child, pid, f"child{i}") for i in range(3)] == [0, 0, 0]
    transferq.kv_put("parent", pid, tag={"n": 2})
    listed = transferq.kv_list(pid)[pid]
    assert listed["parent"] == {"n": 2}
    assert {f"child{i}{end}" for i in range(3) for end in ("", "-async")} <= set(listed)


def test_children_at_the_same_time(client: Any, pid: str) -> None:
    children = [FORK.Process(target=in_child, args=(pid, f"c{i}")) for i in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    assert len(transferq.kv_list(pid)[pid]) == 8


def test_a_fork_with_operations_in_flight(client: Any, pid: str) -> None:
    async def main() -> int | None:
        claim = asyncio.ensure_future(client.async_get_meta(["x"], 1, pid, task_name="t"))
        await async_wait_waiting(client)
        status = run(in_child, pid, "c")
        assert (await claim).size == 1  # the sample put by the child
        return status

    assert asyncio.run(main()) == 0


def test_operations_of_the_parent_are_refused_in_the_child(client: Any) -> None:
    op = client._core.events(1 << 62, 0, True, 30.0)

    def child() -> None:
        with pytest.raises(transferq.TransferQueueError, match=f"parent process {os.getppid()}"):
            op.result()

    assert run(child) == 0
    op.cancel()


def test_a_child_that_closes_leaves_the_system_alone(client: Any, pid: str) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            transferq.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    transferq.kv_put("k", pid, tag={"a": 1})
