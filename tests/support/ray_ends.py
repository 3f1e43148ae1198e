"""Ray drivers that start a system, have live workers attached to it, and end; and what they leave on the console.

`run(count)` ends `count` drivers, one at a time in each of some clusters, beside busy processes.  A driver does
what a training job does: its workers put and claim samples, then it closes the system, leaves Ray, or simply exits.
Run as a program, it prints one line for all ends: `python -m support.ray_ends 200`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.ray_jobs import SMALL, daemons, wait_for_ends

WAYS = ("close", "shutdown", "exit")
"""How a driver ends its system: by close(), by leaving Ray, by exiting."""

WORKERS = 2
READY_SECONDS = 120.0
SETTLED = "every worker has said what it had to say"

ABORT = re.compile(r"SIGABRT|Fatal Python error|terminate called")
RAYS_OWN = re.compile(r"^:(job_id|actor_name|task_name):")
"""Lines with which Ray marks a worker's output; it does not print them."""


@dataclass
class Ends:
    """Traces left by the ends of some drivers."""

    count: int = 0
    seconds: float = 0.0
    aborts: list[str] = field(default_factory=list)
    """Files of workers that were aborted."""
    console: list[str] = field(default_factory=list)
    """Output on the consoles of the drivers."""
    workers: list[str] = field(default_factory=list)
    """Output of workers, even if their driver ended before Ray would have printed it."""
    failed: list[str] = field(default_factory=list)
    """Drivers that did not end properly."""

    def __str__(self) -> str:
        return (
            f"{self.count} ends of a driver with live Ray workers in {self.seconds:.0f} s: {len(self.aborts)} aborts, "
            f"{len(self.console)} lines on the console, {len(self.workers)} lines in the workers' files, "
            f"{len(self.failed)} drivers failed"
        )


def run(count: int, busy: int = 0, clusters: int = 1) -> Ends:
    """End `count` drivers while `busy` processes compute."""
    ends = Ends(count)
    begin = time.monotonic()
    with ExitStack() as stack:
        made = [stack.enter_context(_cluster()) for _ in range(clusters)]
        stack.enter_context(_busy(busy))
        pool = stack.enter_context(ThreadPoolExecutor(clusters))
        # One at a time in each cluster, because only one actor there can have our actor's name.
        shares = [range(first, count, clusters) for first in range(clusters)]
        for done in [
            pool.submit(_share, at, share, ends) for at, share in zip(made, shares, strict=True)
        ]:
            done.result()
        for at in made:
            wait_for_ends(list(daemons(at.base)), READY_SECONDS)
    for at in made:
        _read_logs(at.logs, ends)
    ends.seconds = time.monotonic() - begin
    return ends


def _share(at: _Place, numbers: range, ends: Ends) -> None:
    for number in numbers:
        _drive(at, number, ends)


class _Place(NamedTuple):
    """A Ray cluster."""

    address: str
    base: Path
    """Where its processes create the directories of systems."""
    logs: Path


@contextmanager
def _cluster() -> Iterator[_Place]:
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 80 << 20, "include_dashboard": False}
    with tempfile.TemporaryDirectory(prefix="tq-") as base, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", base)  # workers inherit it from the node
        # Ray's workers are niced, and would get hardly any time beside the busy processes.
        patch.setenv("RAY_worker_niceness", "0")
        # Nor does it kill them because something else uses this machine's memory.
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            yield _Place(cluster.address, Path(base), Path(cluster.head_node.get_logs_dir_path()))
        finally:
            cluster.shutdown()


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Processes that compute; they end with this one, which holds the other end of their standard input."""
    code = "import threading, sys\ndef turn():\n    while True: pass\nthreading.Thread(target=turn, daemon=True).start()\nsys.stdin.read()"
    made = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in made:
            process.communicate()


def _drive(at: _Place, number: int, ends: Ends) -> None:
    """Run a driver until it ends; records its output, and what went wrong."""
    process = subprocess.Popen(
        [sys.executable, __file__, "driver", at.address, WAYS[number % len(WAYS)]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            "XDG_RUNTIME_DIR": str(at.base),
            "RAY_DEDUP_LOGS": "0",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        },
    )
    said = b""
    try:
        said = _until_settled(process)
        said += process.communicate(b"", timeout=READY_SECONDS)[0]
    except (AssertionError, subprocess.TimeoutExpired) as error:
        process.kill()
        ends.failed.append(f"driver {number}: {error}: {process.communicate()[0]!r}")
        return
    if process.returncode != 0:
        ends.failed.append(f"driver {number}: exit status {process.returncode}")
    ends.console += [
        f"driver {number}: {line}"
        for line in said.decode("utf-8", "replace").splitlines()
        if line.strip() and SETTLED not in line
    ]


def _until_settled(process: subprocess.Popen[bytes]) -> bytes:
    """Output of a driver until the last line of its workers has arrived."""
    assert process.stdout is not None
    said = b""
    deadline = time.monotonic() + READY_SECONDS
    while said.count(SETTLED.encode()) < WORKERS:
        left = max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([process.stdout], [], [], left)
        # Bypass the buffer of the file object, which select does not see.
        more = os.read(process.stdout.fileno(), 1 << 16) if readable else b""
        assert more, f"it did not come to its end: {said!r}"
        said += more
    return said


def _read_logs(logs: Path, ends: Ends) -> None:
    for path in sorted([*logs.glob("worker-*.err"), *logs.glob("worker-*.out")]):
        text = path.read_text("utf-8", "replace")
        if ABORT.search(text):
            ends.aborts.append(path.name)
        ends.workers += [
            f"{path.name}: {line}"
            for line in text.splitlines()
            if line.strip() and SETTLED not in line and not RAYS_OWN.match(line)
        ]


# --- in the driver, and in its workers ------------------------------------------------------------


class Worker:
    """A worker of the driver."""

    def work(self, partition: str) -> int:
        """Attach, put samples and claim them; no reads, because they would import torch, which takes seconds."""
        import numpy as np

        import transferq

        transferq.init()
        client = transferq.get_client()
        client.put({"x": np.arange(20).reshape(10, 2)}, partition_id=partition)
        return client.get_meta(["x"], 10, partition, task_name="t").size

    def settle(self) -> None:
        """Print the last line."""
        print(SETTLED, flush=True)


def drive(address: str, way: str) -> None:
    """The driver; `settle` is called last before the system ends, if that ends with the driver or with Ray."""
    import ray

    import transferq

    ray.init(address, logging_level=logging.ERROR)
    transferq.init(SMALL)
    workers: list[Any] = [ray.remote(num_cpus=0)(Worker).remote() for _ in range(WORKERS)]
    rows = ray.get([worker.work.remote(f"p{i}") for i, worker in enumerate(workers)])
    assert rows == [10] * WORKERS
    if way == "close":
        transferq.close()
    ray.get([worker.settle.remote() for worker in workers])
    sys.stdin.read()
    if way == "shutdown":
        ray.shutdown()


if __name__ == "__main__":
    if sys.argv[1] == "driver":
        drive(*sys.argv[2:])
    else:
        done = run(int(sys.argv[1]), *map(int, sys.argv[2:]))
        print(done)
        for found in (done.failed, done.aborts, done.console, done.workers):
            print("\n".join(found[:20]))
        print(json.dumps({"count": done.count, "aborts": len(done.aborts)}))
