"""What the end of a Ray driver leaves on the console: none of our output, and no aborted actor."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import transferq
from support import ray_ends
from support.ray_jobs import wait_for_ends
from support.runtime import own_runtime
from transferq.ray import actor as ray_actor
from transferq.ray import daemons as ray_daemons
from transferq.ray.actor import ACTOR_NAME, NAMESPACE
from transferq.ray.daemons import NodeUnits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def check(ends: ray_ends.Ends) -> None:
    """All of the ends were clean."""
    print(ends)
    assert ends.failed == []
    assert ends.aborts == []
    assert ends.console == []
    assert ends.workers == []


def test_the_end_of_a_driver_leaves_nothing_on_its_console() -> None:
    """With live workers, in each way of ending, beside two processes that compute."""
    check(ray_ends.run(3, busy=2))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_two_hundred_ends_of_drivers_leave_nothing_on_their_consoles() -> None:
    """Like the test above; an abort occurred once in 15 to 20 ends."""
    check(ray_ends.run(200, busy=2, clusters=2))


# --- each actor ends well in whatever way Ray ends it ---------------------------------------------


@pytest.fixture(scope="module")
def logs() -> Iterator[Path]:
    """A cluster for this process; yields the directory of its workers' output."""
    with own_runtime("RAY_ADDRESS"):
        ray.init(
            address="local",
            num_cpus=1,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        yield Path(ray._private.worker._global_node.get_logs_dir_path())
        transferq.close()
        ray.shutdown()


def process_of(actor: Any) -> int:
    """The process of an actor, without calling it; waits until it runs."""
    from ray._private.state import actors

    nothing = ray.remote(num_cpus=0)(lambda: None)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = actors(actor._actor_id.hex())
        if found.get("State") == "ALIVE":
            return int(found["Pid"])
        ray.get(nothing.remote(), timeout=60)  # a round trip, for lack of an event
    raise AssertionError(f"the actor does not run: {found}")


def written(logs: Path, pid: int) -> str:
    """The output of a worker."""
    return "".join(path.read_text("utf-8") for path in logs.glob(f"worker-*-{pid}.err"))


def of_tools() -> Any:
    """The inspection actor of a running system."""
    config = transferq.init({**ray_ends.SMALL, "ray": {"actor": False}})
    return ray_actor._make(ray, config.controller.zmq_info, ray_actor.ACTOR_NAME)


def of_node() -> Any:
    """The actor of a node, with nothing to run."""
    idle = type("IdleUnits", (NodeUnits,), {"__init__": lambda self: None})
    return ray_actor.on_node(
        ray, idle, ray.get_runtime_context().get_node_id(), {}, **ray_daemons.NODE_UNITS
    ).remote()


@pytest.mark.parametrize("make", [of_tools, of_node])
def test_an_actor_that_nobody_has_called_ends_gently(logs: Path, make: Callable[[], Any]) -> None:
    """Ray ends an actor this way when the last reference to it is dropped; one with a thread pool aborts."""
    actor = make()
    pid = process_of(actor)
    del actor
    wait_for_ends([pid], 30)
    assert not ray_ends.ABORT.search(written(logs, pid))
    transferq.close()


def test_an_actor_that_is_killed_is_dead_when_kill_returns(logs: Path) -> None:
    """So its name is free, and dropping the last reference to it no longer does anything."""
    for _ in range(5):
        actor = (
            ray.remote(num_cpus=0)(type("Idle", (), {}))
            .options(name="killed", namespace=NAMESPACE, max_concurrency=4)
            .remote()
        )
        pid = process_of(actor)
        assert ray_actor.kill(ray, actor)
        del actor
        with pytest.raises(ValueError, match="killed"):
            ray.get_actor("killed", namespace=NAMESPACE)
        wait_for_ends([pid], 30)
        assert not ray_ends.ABORT.search(written(logs, pid))


def test_close_frees_the_names_of_its_actors(logs: Path) -> None:
    """Nothing of a system is in the cluster any longer when close() returns."""
    for _ in range(3):
        transferq.init(ray_ends.SMALL)
        assert ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
        transferq.close()
        for name in (ACTOR_NAME, f"TransferQueueSystem:{os.environ.get('TQ_SYSTEM', 'default')}"):
            with pytest.raises(ValueError, match=name):
                ray.get_actor(name, namespace=NAMESPACE)
