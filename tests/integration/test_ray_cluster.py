"""A system in a Ray cluster of three nodes on one machine: where it stores, how it is found, what ends when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

import transferq
from support.ray_jobs import (
    QUIET,
    SMALL,
    Job,
    daemons,
    nodes,
    option,
    rows_of,
    wait_for_ends,
    worker_on,
)
from support.waiting import wait_event
from transferq.errors import (
    ConfigError,
    LostError,
    SystemEndedError,
    UnreachableError,
)
from transferq.ray import cluster as ray_cluster
from transferq.ray.actor import NAMESPACE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

NODE = {"num_cpus": 2, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """The folder of all nodes' daemon directories, set in the environment that the nodes get."""
    with tempfile.TemporaryDirectory(prefix="tq-") as path, pytest.MonkeyPatch.context() as patch:
        for name in ("TQ_ADDRESS", "TQ_TOKEN_FILE", "TQ_SYSTEM", "TQ_NODE", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_RUNTIME_DIR", path)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield Path(path) / "ctq"


@pytest.fixture(scope="module")
def cluster(base: Path) -> Iterator[Cluster]:
    """Three nodes, with this process connected as a driver."""
    made = Cluster()
    for _ in range(3):
        made.add_node(include_dashboard=False, **NODE)
    ray.init(made.address, **QUIET)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(autouse=True)
def nothing_left(cluster: Cluster, base: Path) -> Iterator[None]:
    """After each test this process has left its system, and no process or file remains."""
    yield
    transferq.close()
    assert daemons(base) == {}
    assert not base.exists()


def head() -> Any:
    """The actor that is the system."""
    return ray.get_actor(ray_cluster.actor_name("default"), namespace=NAMESPACE)


def units() -> dict[str, int]:
    """Processes of the daemons with storage units, by node."""
    found: dict[str, int] = ray.get(head().units.remote())
    return found


def workers(*at: str) -> dict[str, Any]:
    """A worker on each node, attached to the system."""
    made = {node: worker_on(node) for node in at or nodes()}
    ray.get([worker.attach.remote() for worker in made.values()])
    return made


def used(client: transferq.TransferQueueClient) -> set[str]:
    """Storage units that hold any data."""
    return {owner["name"] for owner in client.status()["owners"] if owner["blocks"]}


def test_a_worker_that_imports_the_former_name(base: Path) -> None:
    """In a worker, `ctq` is `transferq` as well, for its code and for what it is sent and returns."""

    @ray.remote
    def former(config: transferq.Config) -> tuple[bool, type[Exception]]:
        import ctq.errors

        return isinstance(config, ctq.Config), ctq.errors.TimedOutError

    config = transferq.Config({"a": 1})
    assert ray.get(former.remote(config)) == (True, transferq.TimedOutError)


def test_a_job_over_three_nodes(base: Path) -> None:
    """Workers on all nodes put into their own units and read the others'; if a unit dies, the lost data is named."""
    transferq.init(SMALL)
    client = transferq.get_client()
    by_node = workers()
    assert sorted(units()) == sorted(by_node)
    assert len(daemons(base)) == 4
    # A worker whose node has units puts there.
    for node, worker in by_node.items():
        before = used(client)
        assert ray.get(worker.put.remote(node)) == 10
        assert {name[:17] for name in used(client) - before} == {f"node-{node[:12]}"}
    # Every worker reads everything.
    reads = [
        worker.read.remote(partition, task)
        for task, worker in by_node.items()
        for partition in by_node
    ]
    assert all(ray.get(reads))

    victim = nodes()[1]
    pid = units()[victim]
    seen = client.get_events()[-1]["seq"]
    os.kill(pid, signal.SIGKILL)
    lost = wait_event(client, lambda event: event["kind"] == "lost", since=seen)
    assert (lost["partition"], lost["samples"]) == (victim, 10)
    partitions = {each["name"]: each for each in client.status()["partitions"]}
    assert {name: len(each["lost"]) for name, each in partitions.items()} == {
        name: 10 if name == victim else 0 for name in by_node
    }
    with pytest.raises(LostError, match="x"):
        client.get_data(client.get_meta(["x"], 10, victim, mode="force_fetch"))
    # The unit is back, and the job goes on: lost data is written again, by its original node.
    assert units()[victim] != pid
    client.clear_partition(victim)
    assert ray.get(by_node[victim].put.remote(victim)) == 10
    assert {name[:17] for name in used(client)} == {f"node-{node[:12]}" for node in by_node}
    assert all(
        ray.get([worker.read.remote(victim, f"{node}-2") for node, worker in by_node.items()])
    )


def test_nothing_of_a_killed_job_is_left(cluster: Cluster, base: Path) -> None:
    """SIGKILL to the driver ends every daemon within 10 s; the next job finds no partitions."""
    job = Job(cluster.address, fill=True)
    said = job.said()
    assert len(said["partitions"]) == 3
    assert {name[:17] for name in said["used"]} == {f"node-{node[:12]}" for node in nodes()}
    running = daemons(base)
    assert len(running) == 4
    job.kill()
    begin = time.monotonic()
    wait_for_ends(list(running), 10.0)
    print(f"all daemons have ended {time.monotonic() - begin:.2f} s after the driver")
    job = Job(cluster.address)
    assert job.said()["partitions"] == []
    assert job.said()["address"] != said["address"]
    # A driver that exits normally ends its system first, whichever of Ray and transferq it imported first.
    assert daemons(base)
    job.end()
    assert daemons(base) == {}


def test_an_actor_that_is_killed_comes_back(base: Path) -> None:
    """Ray restarts it on its node, with a daemon; the previous daemon has ended with its actor."""
    transferq.init(SMALL)
    client = transferq.get_client()
    victim = nodes()[2]
    by_node = workers(victim)
    ray.get(by_node[victim].put.remote("p"))
    before = units()[victim]
    seen = client.get_events()[-1]["seq"]
    os.kill(int(option(daemons(base)[before], "parent-pid")), signal.SIGKILL)
    lost = wait_event(client, lambda event: event["kind"] == "lost", since=seen)
    assert (lost["partition"], lost["samples"]) == ("p", 10)
    wait_for_ends([before], 10)
    assert units()[victim] != before
    client.clear_partition("p")
    ray.get(by_node[victim].put.remote("p"))
    assert ray.get(by_node[victim].read.remote("p", "t"))


def test_workers_attach_and_never_start_by_default(base: Path) -> None:
    """Without a configuration init attaches in a worker; close only leaves there."""
    worker = worker_on(nodes()[1])
    with pytest.raises(UnreachableError, match="in the Ray cluster and in"):
        ray.get(worker.attach.remote())
    assert daemons(base) == {}
    config = transferq.init(SMALL)
    address = config.address
    assert ray.get(worker.attach.remote()) == address
    ray.get(worker.put.remote("p"))
    ray.get(worker.close.remote())
    assert transferq.get_client().get_partition_list() == ["p"]
    assert ray.get(worker.attach.remote(attach=True)) == address
    # The result of init() works too: it names no file with the secret, because the system's actor has it.
    ray.get(worker.close.remote())
    assert config.token_file is None
    named = {"address": address, "token_file": config.token_file}
    assert ray.get(worker.start.remote(named)) == address


@pytest.mark.parametrize("end", ["end", "kill"])
def test_a_worker_attaches_to_what_its_owner_started_again(
    cluster: Cluster, base: Path, end: str
) -> None:
    """When a worker outlives its owner, its system is over; its next init() finds the next system."""
    owner = Job(cluster.address)
    first = owner.said()["address"]
    worker = worker_on(nodes()[1])
    assert ray.get(worker.attach.remote()) == first
    assert ray.get(worker.put.remote("before")) == 10
    running = daemons(base)
    getattr(owner, end)()
    wait_for_ends(list(running), 10.0)
    with pytest.raises((SystemEndedError, UnreachableError)):
        ray.get(worker.put.remote("between"))
    owner = Job(cluster.address)
    second = owner.said()["address"]
    assert second != first
    assert ray.get(worker.attach.remote()) == second
    assert ray.get(worker.put.remote("after")) == 10
    assert ray.get(worker.read.remote("after", "task"))
    owner.end()


def test_two_that_start_at_once_share_a_system(cluster: Cluster) -> None:
    """Two drivers and two workers with a configuration: one system, which ends with the process that started it."""
    jobs = [Job(cluster.address) for _ in range(2)]
    addresses = [job.said()["address"] for job in jobs]
    assert addresses[0] == addresses[1]
    for job in jobs:
        job.end()
    pair = [worker_on(node) for node in nodes()[:2]]
    addresses = ray.get([worker.start.remote(SMALL) for worker in pair])
    assert addresses[0] == addresses[1]
    assert addresses[0] != jobs[0].said()["address"]
    ray.get([worker.close.remote() for worker in pair])


def test_a_detached_system_outlives_its_job(cluster: Cluster, base: Path) -> None:
    """The next job finds it, on all nodes, until it is ended."""
    job = Job(cluster.address, {**SMALL, "ray": {"lifetime": "detached"}}, fill=True)
    said = job.said()
    running = daemons(base)
    job.end()
    assert transferq.init().address == said["address"]
    assert sorted(transferq.get_client().get_partition_list()) == said["partitions"]
    (worker,) = workers(nodes()[1]).values()
    assert all(ray.get([worker.read.remote(name, "t") for name in said["partitions"]]))
    transferq.close()
    assert daemons(base).keys() == running.keys()
    assert ray_cluster.stop()
    assert not ray_cluster.stop()
    # The process that started it may end it with close.
    transferq.init({**SMALL, "ray": {"lifetime": "detached"}})


def test_a_detached_system_on_ray_ends_as_a_whole(cluster: Cluster) -> None:
    """Stopping it, from any process, also ends the actor that holds its samples."""
    job = Job(
        cluster.address,
        {**SMALL, "backend": {"storage_backend": "RayStore"}, "ray": {"lifetime": "detached"}},
    )
    job.said()
    job.end()
    transferq.init()
    name = transferq.get_client().system_config["backend"]["RayStore"]["holder"]
    pid = ray.get(ray.get_actor(name, namespace=NAMESPACE).pid.remote())
    transferq.close()
    os.kill(pid, 0)
    assert ray_cluster.stop()
    wait_for_ends([pid], 20)


def test_the_death_of_the_controller_ends_the_system(base: Path) -> None:
    """Its table exists nowhere else: calls fail with the address, nothing of it stays, and init makes a new one."""
    transferq.init({**SMALL, "client": {"timeout": 2}})
    client = transferq.get_client()
    client.put({"x": rows_of("p")}, partition_id="p")
    running = daemons(base)
    (controller,) = (pid for pid, words in running.items() if "controller" in words)
    os.kill(controller, signal.SIGKILL)
    wait_for_ends(list(running), 10)
    with pytest.raises(UnreachableError, match=r"controller\.sock"):
        client.get_partition_list()
    transferq.close()
    transferq.init(SMALL)
    assert transferq.get_client().get_partition_list() == []


def test_processes_without_ray_find_it_on_its_machine(cluster: Cluster) -> None:
    """By its name, as they find a system outside a cluster."""
    address = transferq.init(SMALL).address
    code = "import transferq; print(transferq.init(attach=True).address)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == address


def test_what_keeps_it_from_starting_is_told() -> None:
    """An error of the daemon is raised by init; the name is free again."""
    with pytest.raises(ConfigError, match=r"controller\.sampler: .*'Nonesuch'"):
        transferq.init({**SMALL, "controller": {"sampler": "Nonesuch"}})
    transferq.init(SMALL)


def test_what_is_in_the_way_is_told(base: Path) -> None:
    """With its kind and message, as one of our errors and not one of Ray's."""
    base.write_text("no directory")
    try:
        with pytest.raises(ConfigError, match=f"{base} is not a directory and is not used"):
            transferq.init(SMALL)
    finally:
        base.unlink()


def test_a_system_on_this_machine_only(base: Path) -> None:
    """`ray.cluster: false` keeps it out of the cluster; workers do not find it there."""
    transferq.init({**SMALL, "ray": {"cluster": False}})
    assert [path.name for path in base.iterdir()] == ["default"]
    assert not ray_cluster.stop()


def test_a_job_that_is_left_takes_its_system_along(cluster: Cluster, base: Path) -> None:
    """init() after another ray.init() belongs to the new job, even without a close() before."""
    first = transferq.init(SMALL).address
    running = daemons(base)
    ray.shutdown()
    wait_for_ends(list(running), 10)
    ray.init(cluster.address, **QUIET)
    assert transferq.init(SMALL).address != first
    assert transferq.get_client().get_partition_list() == []


def test_a_node_that_joins_later(cluster: Cluster, base: Path) -> None:
    """It gets its units at its first init; when it is gone, their data is reported as lost."""
    transferq.init({**SMALL, "controller": {"owner_timeout": 1}})
    client = transferq.get_client()
    known = set(nodes())
    late = cluster.add_node(**NODE)
    (node,) = set(nodes()) - known
    assert node not in units()
    by_node = workers(node)
    pid = units()[node]
    ray.get(by_node[node].put.remote("p"))
    assert {name[:17] for name in used(client)} == {f"node-{node[:12]}"}
    seen = client.get_events()[-1]["seq"]
    cluster.remove_node(late, allow_graceful=False)
    wait_for_ends([pid], 10)
    lost = wait_event(client, lambda event: event["kind"] == "lost", since=seen)
    assert (lost["partition"], lost["samples"]) == ("p", 10)
