"""Other users of a system, who keep its storage busy: writers that stream large puts, a reader of large batches.

    python bench/noise.py transferq|transfer_queue ADDRESS PUT READ DESCRIPTOR...

Each is a process, forked after the package is imported, because the import takes seconds.  They attach, do their work once,
and report that.  After a line `go SECONDS` they repeat it, report when these seconds are over, and continue until the next
line, which they answer with the amount of data they have moved.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from bench.workloads import table

WRITERS = 4
ROWS = 16
"""Samples in one put."""


ROLES = ("write",) * WRITERS + ("read",)


class Noise:
    """The other users, on this process's side of the comparison."""

    def __init__(self, package: str, address: str, put: int, read: int) -> None:
        """Start them; `put` and `read` are the bytes of one put and of one read."""
        told = [os.pipe() for _ in ROLES]
        said = [os.pipe() for _ in ROLES]
        theirs = [*(pipe[0] for pipe in told), *(pipe[1] for pipe in said)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, package, address, *map(str, (put, read, *theirs))],
            pass_fds=theirs,
        )
        for descriptor in theirs:
            os.close(descriptor)
        self._told = [os.fdopen(pipe[1], "w") for pipe in told]
        self._said = [os.fdopen(pipe[0]) for pipe in said]
        # One at a time: several programs that join a Ray cluster at once may fail.
        for place in range(len(ROLES)):
            self._tell("attach", place)
            self._answer(place)

    def go(self, seconds: float) -> None:
        """Let them begin; returns when all of them have been at work for this long."""
        self._tell(f"go {seconds}")
        self._answers()

    def stop(self) -> dict[str, float]:
        """Pause them; returns the GB per second that they wrote and read."""
        self._tell("stop")
        written, read = 0.0, 0.0
        for role, answer in zip(ROLES, self._answers(), strict=True):
            rate = answer["bytes"] / answer["seconds"] / 1e9
            written += rate if role == "write" else 0.0
            read += rate if role == "read" else 0.0
        return {"written": written, "read": read}

    def close(self) -> None:
        """End them."""
        for pipe in (*self._told, *self._said):
            pipe.close()
        self._process.wait()

    def _tell(self, what: str, *places: int) -> None:
        for place in places or range(len(ROLES)):
            self._told[place].write(f"{what}\n")
            self._told[place].flush()

    def _answers(self) -> list[dict[str, Any]]:
        return [self._answer(place) for place in range(len(ROLES))]

    def _answer(self, place: int) -> dict[str, Any]:
        line = self._said[place].readline()
        if not line:
            raise RuntimeError(f"a noisy client ended: {ROLES[place]} {place}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def attach(tq: Any, address: str) -> None:
    """Attach to the system started by the worker."""
    if tq.__name__ == "transfer_queue":
        import ray

        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        tq.init()
    else:
        tq.init(attach=True)


def writer(tq: Any, number: int, put: int) -> Callable[[], int]:
    """Puts a batch and clears it."""
    fields = table({"data": torch.ones(ROWS, put // ROWS // 4)})
    keys = [f"k{row}" for row in range(ROWS)]
    partition = f"noise-{number}"

    def step() -> int:
        tq.kv_batch_put(keys, partition, fields)
        tq.kv_clear(keys, partition)
        return put

    return step


def reader(tq: Any, number: int, put: int, read: int) -> Callable[[], int]:
    """Puts batches once, then keeps reading all of them."""
    fields = table({"data": torch.ones(ROWS, put // ROWS // 4)})
    partition = f"noise-{number}"
    keys: list[str] = []
    for batch in range(max(1, read // put)):
        some = [f"k{batch}-{row}" for row in range(ROWS)]
        tq.kv_batch_put(some, partition, fields)
        keys += some

    def step() -> int:
        data = tq.kv_batch_get(keys, partition)
        assert len(data["data"]) == len(keys)
        return put * len(keys) // ROWS

    return step


def serve(tq: Any, address: str, number: int, put: int, read: int, answers: TextIO) -> None:
    """Execute the lines of the standard input."""
    role = ROLES[number]
    assert sys.stdin.readline().strip() == "attach"
    attach(tq, address)
    step = writer(tq, number, put) if role == "write" else reader(tq, number, put, read)
    step()
    answers.write("{}\n")
    for line in sys.stdin:
        go, warm = line.split()
        assert go == "go"
        started, moved = time.perf_counter(), step()
        while time.perf_counter() - started < float(warm):
            moved += step()
        answers.write("{}\n")
        while not select.select([0], [], [], 0)[0]:
            moved += step()
        seconds = time.perf_counter() - started
        assert sys.stdin.readline().strip() == "stop"
        answers.write(json.dumps({"bytes": moved, "seconds": seconds}) + "\n")
    if role == "read":
        tq.get_client().clear_partition(f"noise-{number}")
    if tq.__name__ == "transferq":
        tq.close()
    else:
        os._exit(0)  # Ray's shutdown takes seconds


def main() -> None:
    """Import the package, then run one process per role; ends when they have ended."""
    package, address = sys.argv[1:3]
    put, read, *descriptors = map(int, sys.argv[3:])
    told, said = descriptors[: len(ROLES)], descriptors[len(ROLES) :]
    tq: Any = importlib.import_module(package)
    if package == "transfer_queue":
        importlib.import_module("ray")
    children = []
    for number in range(len(ROLES)):
        child = os.fork()
        if child == 0:
            os.dup2(told[number], 0)
            answers = os.fdopen(os.dup(said[number]), "w", buffering=1)
            for descriptor in descriptors:
                os.close(descriptor)
            serve(tq, address, number, put, read, answers)
            return
        children.append(child)
    for descriptor in descriptors:
        os.close(descriptor)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
