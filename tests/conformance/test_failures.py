"""Failures of a store and of its users: killed, full, slow, stopped."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import transferq
from support.waiting import wait_event
from transferq import errors

from .backend import Backend
from .patterns import number_of, numbers_of, rows, unbound
from .worker import Worker, put_and_stay, put_for_ever

MiB = 1 << 20
UNREACHED = (
    errors.UnreachableError,
    errors.TimedOutError,
    errors.LostError,
    OSError,
)
"""Errors that a call may raise while the store is down."""

Launch = Callable[..., Any]


def check_whole(client: transferq.TransferQueueClient, partition: str, count: int) -> None:
    """All samples of a partition exist and are whole."""
    meta = client.get_meta(["x", "y"], count, partition, mode="force_fetch")
    assert meta.size == count
    data = client.get_data(meta)
    numbers = numbers_of(data["x"])
    assert numbers_of(data["y"]) == numbers
    assert sorted(numbers) == list(
        range(count)
    )  # indexes are reused in the order that they were freed


@pytest.mark.needs("share")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.full)])
def test_killed_in_a_put(fresh: Launch, times: int) -> None:
    """If a writer is killed in the middle of a put, either all of it is visible or nothing, and nothing else stays."""
    backend: Backend = fresh(patience=2)
    client = backend.client("watcher")
    ends = ("died", "silent")  # a process on another machine can only fall silent
    for turn in range(times):
        victim = Worker(put_for_ever, backend, f"p{turn}", 50_000)
        assert victim.receive() == "starts"
        deadline = time.monotonic() + 60
        while backend.stored() == 0:  # wait until it is at least in its first put
            assert time.monotonic() < deadline
            assert not victim.pipe.poll(0.005), victim.receive()
        victim.kill()
        wait_event(
            client, lambda event: event["kind"] in ends and event["session"] == "put_for_ever"
        )
        for partition in client.get_partition_list():
            if client.check_production_status(["x", "y"], partition) or "collect" in backend.can:
                check_whole(client, partition, 16)
            client.clear_partition(partition)
        if "collect" in backend.can:
            backend.wait_empty(client)


@pytest.mark.needs("restart")
def test_killed_and_restarted(fresh: Launch) -> None:
    """While the store is down, calls fail in time; when it is back, lost data is reported by sample, and work goes on."""
    backend: Backend = fresh()
    client = backend.client(timeout=2)
    meta = client.put({"x": rows(range(6), 30_000), "y": rows(range(6), 10)}, partition_id="p")
    backend.kill()
    start = time.monotonic()
    try:  # shared memory outlives its owner
        assert numbers_of(client.get_data(meta)["x"]) == list(range(6))
    except UNREACHED as error:
        assert str(error)
    with pytest.raises(UNREACHED):
        client.put({"x": rows(range(2), 30_000)}, partition_id="q")
    assert time.monotonic() - start < 20
    assert client.check_production_status(["x"], "q") is False
    backend.restart()
    client = backend.client(timeout=30)
    with pytest.raises(errors.LostError, match=r"'[xy]'.* samples \[?0, 1, 2, 3, 4"):
        client.get_data(meta)
    client.put({"x": rows(range(6), 20), "y": rows(range(6), 10)}, metadata=meta)
    check_whole(client, "p", 6)
    other = client.put({"x": rows(range(4), 20_000), "y": rows(range(4), 3)}, partition_id="r")
    assert numbers_of(client.get_data(other)["x"]) == [0, 1, 2, 3]
    client.clear_partition("p")
    client.clear_partition("q")
    client.clear_partition("r")


@pytest.mark.needs("restart", "atomic")
def test_restarted_under_traffic(fresh: Launch) -> None:
    """Puts go on while the store is killed and comes back: each is whole, lost by name, or failed and not stored."""
    backend: Backend = fresh()
    client = backend.client(timeout=2)
    ends = threading.Event()
    done: list[transferq.BatchMeta] = []
    failed: list[Exception] = []

    def traffic() -> None:
        while not ends.is_set() or not done:
            numbers = range(4 * len(done), 4 * len(done) + 4)
            try:
                done.append(
                    client.put({"x": rows(numbers, 9000), "y": rows(numbers, 5)}, partition_id="p")
                )
            except UNREACHED as error:
                failed.append(error)

    def wait_for(puts: int) -> None:
        deadline = time.monotonic() + 60
        while len(done) < puts:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            client.get_partition_list()

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        wait_for(5)
        backend.kill()
        backend.restart()
        wait_for(len(done) + 5)
    finally:
        ends.set()
        thread.join(60)
    assert not thread.is_alive()
    lost = 0
    for meta in done:
        try:
            data = client.get_data(meta)
        except errors.LostError:
            lost += 1
            continue
        assert numbers_of(data["x"]) == numbers_of(data["y"])
    assert lost < len(done)
    status = backend.system.status()["partitions"]
    (partition,) = [one for one in status if one["name"] == "p"]
    assert partition["samples"] == 4 * len(done)


@pytest.mark.needs("fill")
def test_full(fresh: Launch) -> None:
    """A put waits for room until its deadline; then it fails and leaves nothing; a clear makes room."""
    backend: Backend = fresh(room=24 * MiB)
    client = backend.client(timeout=4)
    large = {"x": rows(range(4), 75_000), "y": rows(range(4), 75_000)}  # 4.6 MiB
    kept: list[transferq.BatchMeta] = []
    with pytest.raises(errors.StorageFullError) as raised:
        for _ in range(12):
            kept.append(client.put(large, partition_id="p"))
    assert re.search(r"\d+ .*bytes|bytes.* \d+", str(raised.value)), raised.value  # its size
    assert "clear samples, or " in str(raised.value)
    assert len(kept) >= 2
    check = client.get_meta(["x", "y"], 4, "p", mode="force_fetch")
    assert check.size == 4 * len(kept)
    for meta in kept:
        assert numbers_of(client.get_data(meta)["x"]) == [0, 1, 2, 3]
    second: list[transferq.BatchMeta] = []
    patient = backend.client("patient", timeout=60)
    thread = threading.Thread(target=lambda: second.append(patient.put(large, partition_id="q")))
    thread.start()
    client.get_partition_list()
    client.clear_samples(kept[0])
    client.clear_samples(kept[1])
    thread.join(60)
    assert not thread.is_alive()
    assert numbers_of(client.get_data(second[0])["y"]) == [0, 1, 2, 3]
    client.clear_partition("p")
    client.clear_partition("q")
    backend.wait_empty(client)


@pytest.mark.needs("pause")
def test_stopped(fresh: Launch) -> None:
    """While the store's processes are stopped, calls end at their deadline; no partial data remains afterwards."""
    backend: Backend = fresh()
    client = backend.client(timeout=2)
    meta = client.put({"x": rows(range(4), 9000), "y": rows(range(4), 5)}, partition_id="p")
    backend.pause()
    start = time.monotonic()
    try:
        client.put({"x": rows(range(64), 30_000), "y": rows(range(64), 5)}, partition_id="q")
    except UNREACHED:
        put = False
    else:
        put = True  # shared memory needs no running process
    took = time.monotonic() - start
    backend.resume()
    assert took < 8
    other = backend.client("other", timeout=30)
    if put:
        check_whole(other, "q", 64)
    else:
        assert other.check_production_status(["x"], "q") is False
    check_whole(other, "p", 4)
    assert numbers_of(client.get_data(meta)["x"]) == [0, 1, 2, 3]
    for partition in ("p", "q"):
        other.clear_partition(partition)
    backend.wait_empty(other)


@pytest.mark.needs("delay")
def test_slow(fresh: Launch) -> None:
    """Calls wait for a slow store up to the deadline; after that no partial data remains."""
    backend, relay = fresh(delayed=True)
    client = backend.client(timeout=30)
    relay.delay = 0.01
    meta = client.put({"x": rows(range(4), 20_000), "y": rows(range(4), 5)}, partition_id="p")
    check_whole(client, "p", 4)
    hasty = backend.client("hasty", timeout=1)
    relay.delay = 0.4
    start = time.monotonic()
    with pytest.raises((errors.TimedOutError, errors.UnreachableError)):
        hasty.put({"x": rows(range(16), 60_000), "y": rows(range(16), 5)}, partition_id="q")
    assert time.monotonic() - start < 6
    relay.delay = 0.0
    assert client.check_production_status(["x"], "q") is False
    assert numbers_of(client.get_data(meta)["x"]) == [0, 1, 2, 3]
    client.clear_partition("p")
    backend.wait_empty(client)


@pytest.mark.needs("share")
def test_data_outlives_its_writer(fresh: Launch) -> None:
    """Data put by a killed process is read, or reported as lost; never anything else."""
    backend: Backend = fresh()
    client = backend.client()
    victim = Worker(put_and_stay, backend, "p")
    assert victim.receive() == "done"
    victim.kill()
    meta = client.get_meta(["x"], 8, "p", mode="force_fetch")
    assert meta.size == 8
    data = client.get_data(meta)
    assert [number_of(value) for value in unbound(data["x"])] == list(range(8))
    assert np.asarray(unbound(data["x"])[7]).shape == (20_000,)
