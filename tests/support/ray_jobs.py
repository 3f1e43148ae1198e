"""Code that the tests of Ray clusters run in the cluster: workers on given nodes, and jobs with their own drivers.

The tests' folder is on the PYTHONPATH of every node, so that workers can import this module.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import transferq

READY_SECONDS = 60.0

SMALL: dict[str, Any] = {
    "backend": {"SimpleStorage": {"total_storage_size": "64MiB", "num_data_storage_units": 2}},
    "client": {"timeout": 20},
}
"""Configuration of the systems started by tests."""

QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}
"""Options of ray.init."""


def rows_of(partition: str) -> np.ndarray[Any, Any]:
    """The rows of a partition: 20,000 numbers that identify it."""
    return np.arange(20_000, dtype=np.int64).reshape(10, 2_000) + sum(partition.encode())


class Worker:
    """A worker of a job, on one node."""

    def attach(self, **options: Any) -> str:
        """Call init as a worker does; returns the address of the system."""
        return str(transferq.init(**options).address)

    def start(self, conf: dict[str, Any]) -> str:
        """Call init with a configuration."""
        return str(transferq.init(conf).address)

    def put(self, partition: str) -> int:
        """Put rows; returns how many."""
        batch = transferq.get_client().put({"x": rows_of(partition)}, partition_id=partition)
        return int(batch.size)

    def read(self, partition: str, task: str) -> bool:
        """Claim the rows of a partition and read them; returns whether they are the rows that were put."""
        client = transferq.get_client()
        batch = client.get_meta(["x"], 10, partition, task_name=task)
        got = np.stack([np.asarray(row) for row in client.get_data(batch)["x"]])
        return bool(np.array_equal(got, rows_of(partition)))

    def close(self) -> None:
        """Leave the system."""
        transferq.close()


def worker_on(node: str) -> Any:
    """A worker on a node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    affinity = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(Worker).options(num_cpus=0, scheduling_strategy=affinity).remote()


def nodes() -> list[str]:
    """The live nodes of the cluster, this process's node first."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    found = [str(node["NodeID"]) for node in ray.nodes() if node["Alive"]]
    return sorted(found, key=lambda node: node != own)


class Job:
    """A job with its own driver process: it starts a system, or attaches to one, and waits."""

    def __init__(
        self, address: str, conf: dict[str, Any] | None = None, fill: bool = False
    ) -> None:
        """Start the driver."""
        job = json.dumps({"address": address, "conf": conf or SMALL, "fill": fill})
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said: dict[str, Any] | None = None

    def said(self) -> dict[str, Any]:
        """The driver's report, once it is waiting."""
        if self._said is None:
            assert self.process.stdout is not None
            readable, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS)
            line = self.process.stdout.readline() if readable else ""
            assert line, "the job's driver did not come to its point"
            self._said = json.loads(line)
        return self._said

    def kill(self) -> None:
        """Send SIGKILL to the driver."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        """Let the driver end by itself."""
        self.process.communicate(timeout=READY_SECONDS)
        assert self.process.returncode == 0


def drive(job: dict[str, Any]) -> None:
    """The driver of a job."""
    import ray

    said_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints messages to stdout
    ray.init(job["address"], **QUIET)
    config = transferq.init(job["conf"])
    if job["fill"]:
        workers = {f"from-{node}": worker_on(node) for node in nodes()}
        ray.get([worker.attach.remote() for worker in workers.values()])
        ray.get([worker.put.remote(name) for name, worker in workers.items()])
    status = transferq.get_client().status()
    said = {
        "address": config.address,
        "partitions": sorted(partition["name"] for partition in status["partitions"]),
        "used": sorted(owner["name"] for owner in status["owners"] if owner["blocks"]),
    }
    print(json.dumps(said), file=said_to, flush=True)
    sys.stdin.read()


# --- processes ------------------------------------------------------------------------------------


def daemons(directory: Path) -> dict[int, list[str]]:
    """The running daemons whose directory is below this one: their command lines by process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue  # the process has ended
            if any(word.startswith(f"--runtime-dir={directory}/") for word in words):
                found[int(entry.name)] = words
    return found


def option(words: list[str], name: str) -> str:
    """The value of a command line's option."""
    return next(word.partition("=")[2] for word in words if word.startswith(f"--{name}="))


def wait_for_ends(pids: list[int], seconds: float) -> None:
    """Wait until all of these processes have ended."""
    import time

    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([descriptor], [], [], left)
            assert readable, f"process {pid} still runs after {seconds} s"
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    drive(json.loads(sys.argv[1]))
