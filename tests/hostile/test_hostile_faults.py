"""Faults at the wrong moment: a session, a reply or a client is lost between two steps of a put."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import remover

import transferq
from support.daemons import System
from support.relay import Relay
from support.waiting import wait_event, wait_status
from transferq.errors import TimedOutError, TransferQueueError
from transferq.storage import StorageClientFactory, StorageKVClient, memory

SETTINGS = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
    "controller.session_grace=0s",
    "controller.write_deadline=100ms",
]


@pytest.fixture
def relay(system: System) -> Iterator[Relay]:
    """A relay to the controller of a system whose sessions end with their connections."""
    system.start(settings=SETTINGS)
    made = Relay(system.folder / "relay.sock", system.runtime / "controller.sock")
    yield made
    for client in system.clients:
        client.close()
    made.close()


def used(status: dict[str, Any]) -> int:
    """Bytes used in all storage units, including reserved ones."""
    return sum(unit["used_bytes"] for unit in status["storage"])


def end_session(relay: Relay, watcher: transferq.TransferQueueClient, name: str) -> None:
    """Cut a client's connection to the controller; wait until its session has ended there and it has a new one."""
    since = watcher.get_events()[-1]["seq"]
    relay.cut()
    for kind in ("silent", "join"):
        since = wait_event(
            watcher,
            lambda event, kind=kind: event["session"] == name and event["kind"] == kind,
            since,
        )["seq"]


def put_small(client: transferq.TransferQueueClient, partition: str) -> None:
    """Puts in such quick succession that room for the next ones is reserved with them."""
    for i in range(12):
        client.put({"x": np.array([i])}, partition_id=partition)


def test_a_lost_session_keeps_no_room(system: System, relay: Relay) -> None:
    """Room reserved by a lost session is free again while its process lives."""
    watcher = system.client("watcher")
    client = system.client("worker", address=f"unix:{relay.path}")
    for i in range(3):
        put_small(client, f"p{i}")
        end_session(relay, watcher, "worker")
        client.put({"x": np.zeros((1, 100_000))}, partition_id=f"p{i}")
        assert watcher.get_data(watcher.get_meta(["x"], 1, f"p{i}", mode="force_fetch")).batch_size
    wait_status(watcher, lambda status: used(status) > 0)
    for i in range(3):
        client.clear_partition(f"p{i}")
    wait_status(watcher, lambda status: used(status) == 0)


def test_a_closed_client_keeps_no_room(system: System, relay: Relay) -> None:
    """Room that a closed client had reserved in advance is free again while its process lives."""
    watcher = system.client("watcher")
    for i in range(3):
        client = system.client(f"worker-{i}", address=f"unix:{relay.path}")
        put_small(client, "p")
        client.close()
    wait_status(watcher, lambda status: used(status) > 0)
    watcher.clear_partition("p")
    wait_status(watcher, lambda status: used(status) == 0)


def test_a_claim_whose_acknowledgement_is_lost_with_its_session_is_handed_out_again(
    system: System, relay: Relay
) -> None:
    """The controller cannot know that the reply arrived: the samples are free again, and two consumers have them."""
    watcher = system.client("watcher")
    client = system.client("worker", address=f"unix:{relay.path}")
    for partition in ("a", "b"):
        watcher.put({"x": np.array([7])}, partition_id=partition)
    relay.arm("down", 1 << 60)
    client.get_meta(["x"], 1, "a", task_name="t")
    reply = relay.passed()["down"]
    since = watcher.get_events()[-1]["seq"]
    relay.arm("down", reply)  # the whole reply arrives, and nothing after it
    first = client.get_meta(["x"], 1, "b", task_name="t")
    wait_event(
        watcher, lambda event: event["session"] == "worker" and event["kind"] == "silent", since
    )
    second = watcher.get_meta(["x"], 1, "b", task_name="t")
    assert list(first.global_indexes) == list(second.global_indexes)
    with pytest.raises(TimedOutError):
        watcher.get_meta(["x"], 1, "b", task_name="t", timeout=0.01)


@StorageClientFactory.register("InterruptedStore")
class InterruptedStore(StorageKVClient):
    """A store in this process, with hooks for the next write, and for the moment before a key is removed."""

    values: ClassVar[dict[str, bytes]] = {}
    during: ClassVar[list[Callable[[], None]]] = []
    removing: ClassVar[dict[str, Callable[[], None]]] = {}
    removed: ClassVar[list[str]] = []
    changed: ClassVar[threading.Condition] = threading.Condition()

    @property
    def name(self) -> str:
        """There is only one."""
        return "here"

    def put_from(self, keys: list[str], pointers: list[list[int]], sizes: list[list[int]]) -> None:
        """Store values."""
        for key, pieces, lengths in zip(keys, pointers, sizes, strict=True):
            self.values[key] = b"".join(
                bytes(memory(pointer, size)) for pointer, size in zip(pieces, lengths, strict=True)
            )
        if self.during:
            self.during.pop()()

    def get_into(self, keys: list[str], pointers: list[int], sizes: list[int]) -> list[bool]:
        """Return values."""
        for key, pointer, size in zip(keys, pointers, sizes, strict=True):
            if key in self.values:
                memory(pointer, size)[:] = self.values[key]
        return [key in self.values for key in keys]

    def remove(self, keys: list[str]) -> list[bool]:
        """Delete values."""
        for key in keys:
            self.removing.pop(key, lambda: None)()
        with self.changed:
            found = [self.values.pop(key, None) is not None for key in keys]
            self.removed.extend(keys)
            self.changed.notify_all()
        return found

    @classmethod
    def wait(cls, wanted: Callable[[], bool]) -> None:
        """Wait until removals make the condition true."""
        with cls.changed:
            assert cls.changed.wait_for(wanted, 30), (cls.values, cls.removed)

    @classmethod
    def wait_empty(cls) -> None:
        """Wait until all values are removed."""
        cls.wait(lambda: not cls.values)

    @classmethod
    def put_by(cls, client: transferq.TransferQueueClient, partition: str) -> str:
        """Put one value with a client; returns its key."""
        before = set(cls.values)
        client.put({"x": np.array([1])}, partition_id=partition)
        [key] = cls.values.keys() - before
        return key


@pytest.fixture
def store() -> Iterator[type[InterruptedStore]]:
    """This store, empty."""
    InterruptedStore.values.clear()
    yield InterruptedStore
    InterruptedStore.during.clear()
    InterruptedStore.removing.clear()
    InterruptedStore.removed.clear()


@pytest.fixture
def interrupted(
    system: System, relay: Relay, store: type[InterruptedStore]
) -> transferq.TransferQueueClient:
    """A client of this store, behind the relay."""
    client = system.client("worker", address=f"unix:{relay.path}")
    client.initialize_storage_manager("InterruptedStore")
    return client


def test_a_put_whose_session_ends_while_it_writes_is_done(
    system: System, relay: Relay, interrupted: transferq.TransferQueueClient
) -> None:
    """Its block ids were lost with the session: it takes new ones, and in the end there is one put."""
    watcher = system.client("watcher")
    for i in range(3):
        InterruptedStore.during.append(lambda: end_session(relay, watcher, "worker"))
        meta = interrupted.put({"x": np.array([i, i + 1])}, partition_id="p")
        assert not InterruptedStore.during
        assert interrupted.get_data(meta)["x"].tolist() == [i, i + 1]
    everything = interrupted.get_meta(["x"], 1, "p", mode="force_fetch")
    assert interrupted.get_data(everything)["x"].tolist() == [0, 1, 1, 2, 2, 3]


def test_a_value_that_arrives_late_is_removed_when_the_client_that_removed_it_before_has_closed(
    system: System, relay: Relay, store: type[InterruptedStore]
) -> None:
    """It was in flight when its writer's session ended; a client still there after the write deadline removes it."""
    watcher = system.client("watcher")
    collector, other = system.client("collector"), system.client("other")
    worker = system.client("worker", address=f"unix:{relay.path}")
    collector.initialize_storage_manager("InterruptedStore")
    store.put_by(collector, "first")
    collector.clear_partition("first")
    store.wait_empty()
    for client in (other, worker):
        client.initialize_storage_manager("InterruptedStore")
    next_one = store.put_by(other, "next")
    arrived = threading.Event()

    def lose() -> None:
        [late] = store.values.keys() - {next_one}

        def arrive() -> None:
            store.values[late] = b"late"
            arrived.set()

        # The removal of the next value shows that the collector has reported the late one's.
        store.removing[late] = lambda: other.clear_partition("next")
        store.removing[next_one] = arrive
        end_session(relay, watcher, "worker")
        raise OSError("the store has not answered")

    store.during.append(lose)
    with pytest.raises(TransferQueueError, match="not answered"):
        worker.put({"x": np.array([1])}, partition_id="p")
    assert arrived.wait(30)
    collector.close()
    store.wait_empty()


def test_a_put_that_takes_longer_than_the_write_deadline_removes_what_its_lost_session_has_left(
    system: System, relay: Relay, store: type[InterruptedStore]
) -> None:
    """It continues to write after the last removal of its keys; then only it knows what it wrote."""
    watcher, other = system.client("watcher"), system.client("other")
    worker = system.client("worker", address=f"unix:{relay.path}")
    other.initialize_storage_manager("InterruptedStore")
    store.put_by(other, "first")
    other.clear_partition("first")
    store.wait_empty()
    worker.initialize_storage_manager("InterruptedStore")

    def outlast() -> None:
        [(late, value)] = store.values.items()
        end_session(relay, watcher, "worker")
        store.wait(lambda: store.removed.count(late) == 2)
        store.values[late] = value

    store.during.append(outlast)
    meta = worker.put({"x": np.array([1])}, partition_id="p")
    store.wait(lambda: len(store.values) == 1)
    assert worker.get_data(meta)["x"].tolist() == [1]
    worker.clear_partition("p")
    store.wait_empty()


def test_a_value_that_arrives_late_is_removed_at_the_end_when_the_client_that_removed_it_was_killed(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end does not wait for the write deadline: the remaining clients remove the value at once."""
    folder = tmp_path / "store"
    daemon = system.start(
        settings=["backend.storage_backend=SharedFiles", f"backend.SharedFiles.path={folder}"]
    )
    with subprocess.Popen(
        [sys.executable, remover.__file__, system.address, system.token_file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # its own value: so this client is the collector
        client = system.client("client")
        client.put({"x": np.array([1])}, partition_id="next")
        [next_one] = folder.iterdir()
        with monkeypatch.context() as patch:
            patch.setattr(remover.SharedFiles, "answers", False)
            with pytest.raises(TransferQueueError, match="not answered"):
                client.put({"x": np.array([2])}, partition_id="p")
        [removed, late] = process.stdout.readline().split()
        client.clear_partition("next")
        [removed, key] = process.stdout.readline().split()
        process.kill()  # it reported the first removal, because it got the next notice
    assert removed == "removed"
    assert folder.joinpath(key.replace("/", "-")) == next_one
    folder.joinpath(late.replace("/", "-")).write_bytes(b"late")
    assert daemon.terminate() == 0
    assert not list(folder.iterdir())


def test_a_unit_whose_first_registration_was_not_answered_keeps_no_blocks(
    system: System, tmp_path: Path
) -> None:
    """Registered, written to and abandoned before the answer to the registration: no one knows of its blocks."""
    system.start(
        role="controller",
        settings=["controller.session_grace=0s", "controller.owner_timeout=200ms"],
    )
    watcher = system.client("watcher")
    relay = Relay(tmp_path / "relay.sock", system.runtime / "controller.sock")
    relay.answers = 2  # the challenge and the welcome
    direct, system.address = system.address, f"unix:{relay.path}"
    joining = threading.Thread(
        target=system.join, args=("--runtime-dir", str(tmp_path / "late")), kwargs={"name": "late"}
    )
    joining.start()
    try:
        wait_event(watcher, lambda event: event["kind"] == "owner")
        watcher.put({"x": np.arange(1000)}, partition_id="p")
        relay.answers = 0
        relay.cut()
        wait_event(watcher, lambda event: event["kind"] == "lost")
    finally:
        relay.answers = None
        relay.cut()
        joining.join()
        system.address = direct
    wait_status(watcher, lambda status: bool(status["storage"]) and used(status) == 0)
    watcher.put({"x": np.arange(10)}, partition_id="q")
    relay.close()
