"""The code that other processes run in the suite, and how they are started.

They are forked from a server that has imported the package but has made no client, so they start quickly.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import transferq

from .backend import EXAMPLES, Backend, Reach
from .patterns import number_of, numbers_of, rows, unbound

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["conformance.warm"])

GONE = (
    transferq.errors.ClearedError,
    transferq.errors.LostError,
    transferq.errors.UnknownPartitionError,
)
"""Errors that a reader may get for samples that were cleared meanwhile."""


class Worker:
    """A function of this module in a separate process."""

    def __init__(self, function: Callable[..., Any], backend: Backend, *args: Any) -> None:
        """Start the process; the function gets a client and the arguments."""
        self.pipe, other = SERVER.Pipe()
        self.process = SERVER.Process(
            target=_run, args=(other, function.__name__, backend.reach, args), daemon=True
        )
        self.process.start()
        other.close()

    def receive(self, seconds: float = 60) -> Any:
        """The next value that it sends."""
        assert self.pipe.poll(seconds), f"{self.process} sends nothing within {seconds} s"
        try:
            failed, value = self.pipe.recv()
        except EOFError:
            self.process.join(10)
            raise AssertionError(f"{self.process} ended, sending nothing") from None
        assert not failed, value
        return value

    def send(self, value: Any) -> None:
        """Send it a value."""
        self.pipe.send(value)

    def end(self, seconds: float = 60) -> Any:
        """The last value that it sends, once it has ended."""
        value = self.receive(seconds)
        self.process.join(seconds)
        assert self.process.exitcode == 0, self.process
        self.pipe.close()
        return value

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.join(30)
        self.pipe.close()


class Line:
    """The worker's end of the connection to the test."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def send(self, value: Any) -> None:
        """Send something."""
        self.pipe.send((False, value))

    def told(self) -> bool:
        """Whether the test has sent something."""
        return self.pipe.poll(0)

    def receive(self) -> Any:
        """The next value from the test."""
        return self.pipe.recv()


def _run(pipe: Connection, function: str, reach: Reach, args: tuple[Any, ...]) -> None:
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    try:
        client = reach.client(function, 30)
        result = getattr(importlib.import_module(__name__), function)(client, Line(pipe), *args)
        client.close()
        pipe.send((False, result))
    except BaseException as error:  # the test reports it
        pipe.send((True, f"{function}: {type(error).__name__}: {error}"))
        raise


# --- what workers do ------------------------------------------------------------------------------


def write(
    client: transferq.TransferQueueClient, line: Line, pid: str, first: int, batches: int
) -> int:
    """Put batches of four rows, numbered from `first` on; returns the number of rows."""
    for batch in range(batches):
        numbers = range(first + 4 * batch, first + 4 * batch + 4)
        size = 3 + 700 * (batch % 5)
        client.put(
            {"x": rows(numbers, size), "n": np.array(numbers, dtype=np.int64)}, partition_id=pid
        )
    return 4 * batches


def consume(client: transferq.TransferQueueClient, line: Line, pid: str, claims: int) -> list[int]:
    """Claim four rows `claims` times; returns their numbers."""
    seen: list[int] = []
    for _ in range(claims):
        data = client.get_data(client.get_meta(["x", "n"], 4, pid, task_name="train"))
        numbers = numbers_of(data["x"])
        assert numbers == [int(value) for value in unbound(data["n"])]
        seen += numbers
    return seen


def overwrite(
    client: transferq.TransferQueueClient, line: Line, pid: str, first: int, times: int
) -> int:
    """Put all samples of the partition again; returns the last number."""
    for number in range(first, first + times):
        put_version(client, pid, number)
    return first + times - 1


def put_version(client: transferq.TransferQueueClient, pid: str, number: int) -> None:
    """Put six samples whose rows all have this number."""
    client.kv_batch_put(
        [f"k{i}" for i in range(6)],
        pid,
        {"x": rows([number] * 6, 2000), "y": rows([number] * 6, 9)},
    )


def read_until_told(
    client: transferq.TransferQueueClient, line: Line, pid: str, atomic: bool
) -> tuple[int, int]:
    """Read the partition until told to stop; returns how many reads succeeded, and how many found nothing."""
    whole = gone = 0
    while not line.told() or whole == 0:
        try:
            meta = client.get_meta(["x", "y"], 6, pid, mode="force_fetch")
            data = client.get_data(meta)
        except (*GONE, transferq.errors.NotReadyError, transferq.errors.UnknownFieldError):
            gone += 1
            continue
        if meta.size == 0 or not {"x", "y"} <= set(data.keys()):
            gone += 1
            continue
        for x, y in zip(unbound(data["x"]), unbound(data["y"]), strict=True):
            assert number_of(x) == number_of(y) or not atomic, (number_of(x), number_of(y))
        whole += 1
    return whole, gone


def put_for_ever(client: transferq.TransferQueueClient, line: Line, pid: str, size: int) -> None:
    """Put batches of 16 rows into partitions pid-0, pid-1, ..., until it is killed."""
    batch = 0
    line.send("starts")
    while True:
        client.put(
            {name: rows(range(16), size) for name in ("x", "y")}, partition_id=f"{pid}-{batch}"
        )
        batch += 1


def put_and_stay(client: transferq.TransferQueueClient, line: Line, pid: str) -> None:
    """Put a batch and wait to be killed."""
    client.put({"x": rows(range(8), 20_000)}, partition_id=pid)
    line.send("done")
    line.receive()


def how_it_moves(client: transferq.TransferQueueClient, line: Line, pid: str) -> dict[str, Any]:
    """Put and read a megabyte; returns whether memory is then shared, and the socket families used for the system."""
    data = client.get_data(client.put({"x": rows(range(4), 40_000)}, partition_id=pid))
    assert numbers_of(data["x"]) == [0, 1, 2, 3]
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    inodes = {
        name.removeprefix("socket:[").rstrip("]")
        for name in (
            str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
        )
        if name.startswith("socket:")
    }
    families = []
    for family, column in (("tcp", 9), ("tcp6", 9)):
        lines = Path("/proc/net", family).read_text(encoding="ascii").splitlines()[1:]
        if inodes & {line.split()[column] for line in lines}:
            families.append(family)
    return {"shared": "/memfd:" in maps, "families": families or ["unix"]}


# --- measuring the capabilities -------------------------------------------------------------------


def _memory(*names: str) -> dict[str, int]:
    with open("/proc/self/status", encoding="ascii") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {name: int(lines[name].split()[0]) << 10 for name in names}


class Peak:
    """The most private memory that this process allocates while the body runs."""

    bytes = 0

    def __enter__(self) -> Peak:
        ctypes.CDLL(None).malloc_trim(0)  # memory freed before must not be reused
        with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
            clear.write("5")  # resets the high-water mark
        self.before = _memory("VmRSS", "RssShmem")
        return self

    def __exit__(self, *_: object) -> None:
        after = _memory("VmHWM", "RssShmem")
        shared = max(0, after["RssShmem"] - self.before["RssShmem"])
        self.bytes = max(0, after["VmHWM"] - self.before["VmRSS"] - shared)


def measure(client: transferq.TransferQueueClient, line: Line, pid: str) -> dict[str, Any]:
    """Bytes of memory used by a put, a whole read and a read of few rows, beside the caller's own."""
    n, size = 2048, 4096  # 64 MiB; then a store's values have 512 KiB
    client.get_data(client.put({"x": rows(range(4), size)}, partition_id=pid))
    client.clear_partition(pid)
    values = rows(range(n), size)
    with Peak() as put:
        meta = client.put({"x": values}, partition_id=pid)
    del values
    few = meta.select_samples(list(range(0, n, 16)))
    with Peak() as part:
        data = client.get_data(few)
    assert numbers_of(data["x"]) == list(range(0, n, 16))
    del data
    with Peak() as whole:
        data = client.get_data(meta)
    assert number_of(unbound(data["x"])[n - 1]) == n - 1
    return {"bytes": n * size * 8, "put": put.bytes, "get": whole.bytes, "part": part.bytes}


def device(client: transferq.TransferQueueClient, line: Line, pid: str) -> str:
    """What happens to a tensor on a device."""
    import torch

    if not torch.cuda.is_available():
        return "not tried: no device"
    tensor = torch.arange(64.0, device="cuda").reshape(4, 16)
    data = client.get_data(client.put({"x": tensor}, partition_id=pid))
    read = torch.stack(list(data["x"].unbind()))
    assert torch.equal(read.cpu(), tensor.cpu())
    return "read on the device" if read.is_cuda else "read on the host"
