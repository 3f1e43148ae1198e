"""Other users of a system, who keep its storage busy: writers that stream large puts, a reader of large batches.

    python bench/noise.py ctq|transfer_queue ADDRESS ROLE NUMBER PUT READ

A process each.  They attach, do what they do once, and say so; from a line `go` on they do it again and again until the
next line, and answer that with how often they did.
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
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from bench.workloads import table

WRITERS = 4
ROWS = 16
"""Samples of one put."""


class Noise:
    """The other users, of the side that this process is."""

    def __init__(self, package: str, address: str, put: int, read: int) -> None:
        """Starts them; `put` and `read` are the bytes of one put and of one read."""
        roles = [("write", number) for number in range(WRITERS)] + [("read", WRITERS)]
        self._processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    package,
                    address,
                    role,
                    str(number),
                    str(put),
                    str(read),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for role, number in roles
        ]
        self._answers()

    def go(self) -> None:
        """Let them begin; returns when all are at it."""
        self._tell("go")
        self._answers()

    def stop(self) -> dict[str, float]:
        """Let them pause; how many GB they have written and read in a second."""
        self._tell("stop")
        written, read = 0.0, 0.0
        for answer in self._answers():
            rate = answer["bytes"] / answer["seconds"] / 1e9
            written += rate if answer["role"] == "write" else 0.0
            read += rate if answer["role"] == "read" else 0.0
        return {"written": written, "read": read}

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.communicate()

    def _tell(self, what: str) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{what}\n")
            process.stdin.flush()

    def _answers(self) -> list[dict[str, Any]]:
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"a noisy client ended with {process.wait()}")
            answers.append(json.loads(line))
        return answers


def attach(package: str, address: str) -> Any:
    """The package, attached to the system that the parent process has started."""
    tq: Any = importlib.import_module(package)
    if package == "transfer_queue":
        import ray

        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        tq.init()
    else:
        tq.init(attach=True)
    return tq


def writer(tq: Any, number: int, put: int) -> Callable[[], int]:
    """Puts a batch and clears it again."""
    fields = table({"data": torch.ones(ROWS, put // ROWS // 4)})
    keys = [f"k{row}" for row in range(ROWS)]
    partition = f"noise-{number}"

    def step() -> int:
        tq.kv_batch_put(keys, partition, fields)
        tq.kv_clear(keys, partition)
        return put

    return step


def reader(tq: Any, number: int, put: int, read: int) -> Callable[[], int]:
    """Reads all that it has put once."""
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


def main() -> None:
    """Do what the lines of the standard input say."""
    package, address, role = sys.argv[1:4]
    number, put, read = map(int, sys.argv[4:])
    # What the package prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    tq = attach(package, address)
    step = writer(tq, number, put) if role == "write" else reader(tq, number, put, read)
    step()
    answers.write("{}\n")
    for line in sys.stdin:
        assert line.strip() == "go"
        started, moved = time.perf_counter(), step()
        answers.write("{}\n")
        while not select.select([0], [], [], 0)[0]:
            moved += step()
        seconds = time.perf_counter() - started
        assert sys.stdin.readline().strip() == "stop"
        answers.write(json.dumps({"role": role, "bytes": moved, "seconds": seconds}) + "\n")
    if role == "read":
        tq.get_client().clear_partition(f"noise-{number}")
    if package == "ctq":
        tq.close()


if __name__ == "__main__":
    main()
