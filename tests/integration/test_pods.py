"""A job across three pods: no capabilities, no passwd entry, no HOME, 64 KiB of /dev/shm, a read-only root, ten ports."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemons import executable
from support.pods import Cluster, Pod, read_line

PORTS = (20000, 20009)
CONTROLLER = f"tcp:10.77.0.1:{PORTS[0]}"
ONE_UNIT = (
    "--set=backend.SimpleStorage.total_storage_size=64MiB",
    "--set=backend.SimpleStorage.num_data_storage_units=1",
)
WORKER = """
import json
import os
import sys

sys.modules["torch"] = None  # it takes seconds to import, and is not needed for this
import numpy as np

import transferq

ROWS = 6
client = None


def column(seed):
    return np.random.default_rng(seed).random((ROWS, 50_000), dtype=np.float32)


def attach(name):
    global client
    transferq.init(attach=True, name=name)
    client = transferq.get_client()
    status = open("/proc/self/status").read()
    return {
        "uid": os.getuid(),
        "capabilities": int(status.split("CapEff:")[1].split()[0], 16),
        "home": os.environ.get("HOME"),
        "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    }


def put(field, seed):
    client.put({field: column(seed)}, partition_id="job")
    return ROWS


def work(field, seed, task, added, added_seed):
    batch = client.get_meta([field], ROWS, "job", task_name=task)
    rows = np.stack(list(client.get_data(batch)[field]))
    client.put({added: column(added_seed)}, metadata=batch)
    return bool(np.array_equal(rows, column(seed)))


def check(seeds, task):
    batch = client.get_meta(list(seeds), ROWS, "job", task_name=task)
    data = client.get_data(batch)
    return all(np.array_equal(np.stack(list(data[f])), column(seed)) for f, seed in seeds.items())


def clear():
    client.clear_partition("job")
    return client.get_partition_list()


for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps(globals()[name](*arguments)), flush=True)
transferq.close()
"""


class Worker:
    """A worker process in a pod, which executes commands."""

    def __init__(self, pod: Pod, folder: Path, **environment: str) -> None:
        """Starts the process; it attaches on command."""
        self.name = f"worker-{pod.name}"
        self.log = folder / f"{self.name}.log"
        self.process = pod.start(sys.executable, "-c", WORKER, log=self.log, **environment)

    def __call__(self, *command: Any) -> Any:
        """Calls one of the program's functions, with arguments; returns its result."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = read_line(self.process.stdout, f"{self.name} {command[0]}", 60)
        assert answer, f"{self.name} {command[0]}: {self.log.read_text()}"
        return json.loads(answer)

    def uses(self) -> dict[str, str]:
        """By unit, how it is used according to the log."""
        said = {}
        for line in self.log.read_text().splitlines():
            _, found, rest = line.partition(" client: storage unit '")
            if found:
                unit, _, how = rest.partition("' is used ")
                said[unit] = how
        return said


class Job:
    """Three pods on a bridge, and the system's secret, which all of them can read."""

    def __init__(self, folder: Path) -> None:
        """Makes the pods; nothing runs in them yet."""
        self.folder = folder
        self.token = folder / "token"
        self.token.write_text("a secret for three pods\n")
        # A short name, because the path of a unix socket has a limit.
        self.own = tempfile.TemporaryDirectory(prefix="tq-")
        self.cluster = Cluster()
        try:
            self.pods = [Pod(self.cluster, n, PORTS, Path(self.own.name)) for n in (1, 2, 3)]
        except BaseException:
            self.close()
            raise
        self.environment = {
            "TQ_INTERFACE": "eth0",
            "TQ_PORT_RANGE": f"{PORTS[0]}-{PORTS[1]}",
        }

    def close(self) -> None:
        """Ends the pods and everything that runs in them."""
        self.cluster.close()
        self.own.cleanup()

    def daemon(self, pod: Pod, *command: str) -> str:
        """Starts a daemon and returns its answer: `ready`, or an error."""
        process = pod.start(
            *command,
            f"--token-file={self.token}",
            "--ready-fd=1",
            log=self.folder / f"{pod.name}.log",
            **self.environment,
        )
        assert process.stdout is not None
        return read_line(process.stdout, f"{command[0]} in {pod.name}")

    def join(self, pod: Pod, *options: str) -> str:
        """Starts a storage daemon in a pod, which joins the controller."""
        return self.daemon(
            pod,
            executable("tqd"),
            "storage",
            f"--join={CONTROLLER}",
            f"--set=storage.name={pod.name}",
            *ONE_UNIT,
            *options,
        )

    def serve(self) -> str:
        """Starts the system in the first pod."""
        return self.daemon(self.pods[0], executable("tq"), "serve", *ONE_UNIT)

    def worker(self, pod: Pod) -> Worker:
        """Starts a worker in a pod that knows the controller's address and the secret."""
        return Worker(pod, self.folder, TQ_ADDRESS=CONTROLLER, TQ_TOKEN_FILE=str(self.token))

    def status(self) -> dict[str, Any]:
        """`tq status` in the first pod, which finds the system by its handle."""
        process = self.pods[0].start(
            executable("tq"), "status", "--json", log=self.folder / "status.log"
        )
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 0, (self.folder / "status.log").read_text()
        status: dict[str, Any] = json.loads(text)
        return status


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """Three pods, which end with the test."""
    made = Job(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_a_job_across_three_pods(job: Job) -> None:
    """Pod 1 has the controller, each has a unit and a worker: data crosses all borders, memory is shared inside them."""
    first, second, third = job.pods
    assert job.serve() == "ready", (job.folder / "pod-1.log").read_text()
    for pod in (second, third):
        # The same path in every pod, but a different folder: confusing one socket with another is an error.
        assert job.join(pod, f"--runtime-dir={pod.folder}/tq") == "ready"
    workers = [job.worker(pod) for pod in job.pods]
    for worker in workers:
        seen = worker("attach", worker.name)
        assert seen == {"uid": 54321, "capabilities": 0, "home": None, "shm": 64 << 10}

    assert workers[1]("put", "prompt", 2) == 6
    assert workers[2]("work", "prompt", 2, "reward", "answer", 3) is True
    assert workers[0]("work", "answer", 3, "judge", "score", 1) is True
    seeds = {"prompt": 2, "answer": 3, "score": 1}
    for worker in workers:
        assert worker("check", seeds, f"check-{worker.name}") is True

    status = job.status()
    clients = {one["name"]: one for one in status["clients"]}
    for pod, worker in zip(job.pods, workers, strict=True):
        assert clients[worker.name]["host"] == pod.name
        assert clients[worker.name]["endpoint"].startswith(f"tcp:{pod.address}:")
    units = {"unit-0": first, "pod-2-0": second, "pod-3-0": third}
    assert {one["name"] for one in status["storage"]} == set(units)

    for pod, worker in zip(job.pods, workers, strict=True):
        uses = worker.uses()
        assert set(uses) == set(units), worker.log.read_text()
        for unit, home in units.items():
            if home is pod:
                assert uses[unit] == "by shared memory"
            else:
                assert uses[unit].startswith(
                    "over the stream, not by shared memory: its unix socket is not to be seen"
                )
    assert workers[2]("clear") == []
    assert job.status()["partitions"] == []
    for worker in workers:
        worker.process.communicate(timeout=60)
        assert worker.process.returncode == 0, worker.log.read_text()


@pytest.mark.slow
def test_a_unit_that_only_its_pod_reaches(job: Job) -> None:
    """It does not join a controller in another pod; nor is an eleventh port open."""
    _, second, third = job.pods
    assert job.serve() == "ready", (job.folder / "pod-1.log").read_text()
    refused = job.join(second, "--listen=tcp:127.0.0.1:0")
    assert "storage.listen: tcp:127.0.0.1:20000-20009 is reached from this host only" in refused
    assert f"the controller {CONTROLLER} is on another one" in refused
    too_many = job.join(third, "--set=backend.SimpleStorage.num_data_storage_units=11")
    assert (
        "20000-20009 has 10 ports, and 11 are needed at 10.77.0.3: 11 for storage units" in too_many
    )
    assert [one["name"] for one in job.status()["storage"] if one["present"]] == ["unit-0"]


def test_nothing_is_left(tmp_path: Path) -> None:
    """After the pods are closed, none of their processes is left, and nothing on this machine's network."""
    made = Job(tmp_path)
    running = [pod.start("sleep", "1000", log=tmp_path / "log") for pod in made.pods]
    made.close()
    assert all(process.poll() is not None for process in running)
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert "tq0" not in links
    assert "tq1" not in links
