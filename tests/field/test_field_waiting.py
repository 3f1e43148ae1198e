"""A waiting call is visible while it waits, and its timeout error says what was missing."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferq
from support.addresses import free_ports
from support.daemons import System
from support.redis_servers import RedisServer
from support.waiting import wait_event, wait_status

SMALL = ["backend.SimpleStorage.total_storage_size=64MiB"]


def test_a_claim_is_visible_while_it_waits(running: System) -> None:
    trainer = running.client("trainer-0")
    trainer.put({"response": np.arange(3)}, partition_id="train")
    claim = asyncio.new_event_loop()

    async def wait() -> dict[str, Any]:
        task = asyncio.ensure_future(
            trainer.async_get_meta(["response", "rewrad"], 4, "train", task_name="update")
        )
        watcher = running.client("watcher")
        try:
            return await asyncio.to_thread(
                wait_status, watcher, lambda status: status["waiting"] == 1
            )
        finally:
            lines = await asyncio.to_thread(running.tq, "status")
            as_json = await asyncio.to_thread(running.status)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            seen.append((lines, as_json))

    seen: list[tuple[str, dict[str, Any]]] = []
    status = claim.run_until_complete(wait())
    claim.close()
    (row,) = status["waits"]
    assert row["age"] >= 0
    assert {name: row[name] for name in row if name not in ("age", "host", "pid")} == {
        "kind": "claim",
        "client": "trainer-0",
        "task": "update",
        "partition": "train",
        "fields": ["response", "rewrad"],
        "unit": "",
        "wanted": 4,
        "ready": 0,
        "missing": "no sample of the partition has the fields ['rewrad'] (misspelt?); the partition has 3 samples",
        "suspect": True,
    }
    lines, as_json = seen[0]
    (line,) = [line for line in lines.splitlines() if line.startswith("claim ")]
    for word in ("trainer-0", "update", "train", "response, rewrad", "['rewrad'] (misspelt?)"):
        assert word in line
    (same,) = as_json["waits"]
    assert {**same, "age": 0} == {**row, "age": 0}


def test_a_claim_that_times_out_says_which_fields_how_many_samples_lack(running: System) -> None:
    client = running.client()
    meta = client.put({"prompt": np.arange(8)}, partition_id="train")
    client.put({"response": np.arange(5)}, metadata=meta[:5])
    client.get_meta(["prompt"], 2, "train", task_name="update")
    with pytest.raises(transferq.errors.TimedOutError) as raised:
        client.get_meta(["prompt", "response"], 4, "train", task_name="update", timeout=0.2)
    text = str(raised.value)
    assert "4 samples of partition 'train' by task 'update'" in text
    assert "with fields prompt, response: 3 ready" in text
    assert "the partition has 8 samples, 2 of them consumed by the task" in text
    assert "'response': 5 have it, 3 lack it" in text
    assert "'prompt'" not in text
    assert re.search(
        rf"; asked the system '\w+' at {re.escape(running.address)}, started \d+ s ago$", text
    )


def test_a_claim_says_which_group_never_completes(running: System) -> None:
    client = running.client()
    meta = client.put({"x": np.arange(4)}, partition_id="p", groups=["a", "a", "b", "b"])
    client.clear_samples(meta[1:2])
    with pytest.raises(transferq.errors.TimedOutError) as raised:
        client.get_meta(
            ["x"],
            4,
            "p",
            task_name="t",
            sampling_config={"sampler": "GRPOGroupNSampler", "n_samples_per_prompt": 2},
            timeout=0.2,
        )
    text = str(raised.value)
    assert "1 of the ready ones are in 1 incomplete groups of 2" in text
    assert "group 'a' has 1 of 2 left because samples of it were cleared" in text


def test_status_has_one_set_of_names(running: System) -> None:
    client = running.client("one")
    client.put({"x": np.arange(4)}, partition_id="p")
    client.get_meta(["x"], 1, "p", task_name="t")
    python, shown = client.status(), running.status()
    assert python["owners"] is python["storage"]  # deprecated names
    assert python["sessions"] is python["clients"]
    assert set(python) - {"owners", "sessions"} == set(shown)
    for name in ("storage", "clients"):
        assert set(python[name][0]) == set(shown[name][0])
    (partition,), (same,) = python["partitions"], shown["partitions"]
    assert set(same) - set(partition) == {"produced", "consumed"}  # the fields and tasks by name
    assert set(partition["fields"][0]) == set(same["fields"][0])
    assert partition["tasks"] == same["tasks"] == [{"name": "t", "consumed": 1}]


def test_a_put_that_waits_for_room_is_visible(running: System) -> None:
    """64 MiB in all, the last tenth of which is for columns of existing samples."""
    producer = running.client("producer")
    watcher = running.client("watcher")
    big = {"x": np.zeros((1, 10 << 20), dtype=np.float32)}
    first = producer.put(big, partition_id="p")
    done: list[transferq.BatchMeta] = []
    thread = threading.Thread(target=lambda: done.append(producer.put(big, partition_id="p")))
    thread.start()
    status = wait_status(watcher, lambda status: status["waits"] != [])
    (row,) = status["waits"]
    assert (row["kind"], row["client"], row["unit"]) == ("put", "producer", "unit-0")
    assert row["wanted"] == 40 << 20
    assert row["ready"] == (64 << 20) * 9 // 10 - (40 << 20)
    assert (
        "41943040 of 67108864 are used, and the last 6710887 are kept for columns" in row["missing"]
    )
    assert status["storage"][0]["waiting_puts"] == 1
    table = running.tq("status")
    assert "1 put waiting for room" in table
    (line,) = [line for line in table.splitlines() if line.startswith("put ")]
    assert "40.0 MiB" in line and "unit-0" in line
    watcher.clear_samples(first)
    thread.join(30)
    assert done
    wait_status(watcher, lambda status: status["waits"] == [])


def test_a_full_store_names_who_pins_what_was_cleared(running: System) -> None:
    reader = running.client("reader")
    producer = running.client("producer", client={"timeout": 1.0})
    big = {"x": np.zeros((1, 10 << 20), dtype=np.float32)}
    meta = producer.put(big, partition_id="p")
    shown = reader.get_data(meta, zero_copy=True)
    producer.clear_samples(meta)
    with pytest.raises(transferq.errors.StorageFullError) as raised:
        producer.put(big, partition_id="p")
    text = str(raised.value)
    assert "41943040 bytes wanted, 18454937 are free for it: 41943040 of 67108864 are used" in text
    assert "41943040 of the used bytes were cleared, but zero-copy reads still show them" in text
    assert f"'reader' (process {os.getpid()}) pins 41943040" in text
    status = wait_status(producer, lambda status: status["storage"][0]["holders"] != [])
    (holder,) = status["storage"][0]["holders"]
    assert {**holder, "host": ""} == {
        "client": "reader",
        "host": "",
        "pid": os.getpid(),
        "pins": 1,
        "bytes": 40 << 20,
    }
    table = running.tq("status")
    (line,) = [
        line for line in table.splitlines() if line.startswith("reader ") and "unit-0" in line
    ]
    assert "40.0 MiB" in line
    assert running.status()["storage"][0]["holders"] == [holder]
    del shown
    gc.collect()
    producer.put(big, partition_id="p")


def test_a_claim_that_waits_for_long_says_so_in_the_log(
    running: System, capfd: pytest.CaptureFixture[str]
) -> None:
    client = running.client("trainer-0", client={"wait_notice": 0.3})
    client.put({"response": np.arange(3)}, partition_id="train")
    with pytest.raises(transferq.errors.TimedOutError):
        client.get_meta(["response", "rewrad"], 4, "train", task_name="update", timeout=1.5)
    lines = [line for line in capfd.readouterr().err.splitlines() if "has waited" in line]
    assert len(lines) == 1
    assert (
        "a claim of 4 samples of partition 'train' by task 'update' with fields response, rewrad has waited"
        in lines[0]
    )
    assert "0 ready; no sample of the partition has the fields ['rewrad'] (misspelt?)" in lines[0]
    event = wait_event(client, lambda event: event["kind"] == "wait")
    assert (event["session"], event["partition"], event["task"]) == ("trainer-0", "train", "update")
    assert event["samples"] == 4


def test_what_waits_and_looks_right_is_said_once_a_minute(
    running: System, capfd: pytest.CaptureFixture[str]
) -> None:
    """A trainer waits for its rollouts in every step."""
    client = running.client("trainer-0", client={"wait_notice": 0.2})
    client.put({"response": np.arange(3)}, partition_id="train")
    for _ in range(2):
        with pytest.raises(transferq.errors.TimedOutError):
            client.get_meta(["response"], 4, "train", task_name="update", timeout=0.6)
    assert capfd.readouterr().err.count("has waited") == 1
    silent = running.client("trainer-1", client={"wait_notice": 0})
    with pytest.raises(transferq.errors.TimedOutError):
        silent.get_meta(["no"], 4, "train", task_name="update", timeout=0.6)
    assert "has waited" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_put_that_waits_for_long_says_so_in_the_log(
    running: System, capfd: pytest.CaptureFixture[str]
) -> None:
    producer = running.client("producer", client={"timeout": 3, "wait_notice": 1})
    big = {"x": np.zeros((1, 10 << 20), dtype=np.float32)}
    producer.put(big, partition_id="p")
    with pytest.raises(transferq.errors.StorageFullError):
        producer.put(big, partition_id="p")
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "has waited" in line]
    assert "a put has waited" in line
    assert "for room in storage unit 'unit-0': 41943040 bytes wanted, 18454937 are free" in line
    event = wait_event(producer, lambda event: event["kind"] == "wait")
    assert (event["session"], event["partition"], event["bytes"]) == (
        "producer",
        "unit-0",
        40 << 20,
    )


@pytest.mark.slow
@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_put_without_storage_says_what_there_was(
    system: System, capfd: pytest.CaptureFixture[str], end: str
) -> None:
    """Units may come back, so it waits; the status, the log and its error name the last unit and when it left."""
    system.start(role="controller")
    unit = system.join("--listen", "tcp:127.0.0.1:0", name="far", settings=SMALL)
    client = system.client("producer", client={"timeout": 3, "wait_notice": 0.5})
    client.put({"x": np.arange(4)}, partition_id="p")
    getattr(unit, end)()
    raised: list[transferq.errors.TimedOutError] = []

    def put() -> None:
        try:
            client.put({"x": np.arange(4)}, partition_id="p")
        except transferq.errors.TimedOutError as error:
            raised.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    status = wait_status(
        system.client("watcher"),
        lambda status: [each["kind"] for each in status["waits"]] == ["put"],
    )
    (row,) = status["waits"]
    said = (
        r"all storage of manager 'SimpleStorage' that had joined the system at .* is gone; the last one was "
        r"'far-[01]', which left at \d{4}-[-0-9: ]+ \(\d s ago\): start it again, or another one \(tqd storage --join\)"
    )
    assert (row["client"], row["unit"], row["suspect"]) == ("producer", "", True)
    assert re.match(said, row["missing"])
    (line,) = [line for line in system.tq("status").splitlines() if line.startswith("put ")]
    assert "producer" in line
    assert re.search(said, line)
    thread.join()
    assert re.search(said, str(raised[0]))
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "has waited" in line]
    assert re.search("a put has waited 0.[0-9] s for a storage unit: " + said, line)


def test_a_put_without_storage_goes_on_when_some_joins(system: System) -> None:
    system.start(role="controller")
    unit = system.join("--listen", "tcp:127.0.0.1:0", name="far", settings=SMALL)
    client = system.client()
    client.put({"x": np.arange(4)}, partition_id="p")
    unit.kill()
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(client.put, {"x": np.arange(4)}, partition_id="q")
        wait_status(system.client("watcher"), lambda status: len(status["waits"]) == 1)
        system.join("--listen", "tcp:127.0.0.1:0", name="next", settings=SMALL)
        assert put.result(30).size == 4
    assert client.status()["waits"] == []


@pytest.mark.slow
def test_a_put_that_waits_for_room_in_a_store_by_keys_says_so_in_the_log(
    system: System, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The controller does not know of it; the log names the store, the data to be put, and the store's message."""
    server = RedisServer(tmp_path / "redis", free_ports(1)[0], "--maxmemory", "8mb")
    try:
        system.start(
            settings=["backend.storage_backend=Redis", f'backend.Redis={{url: "{server.url}"}}']
        )
        client = system.client("producer", client={"timeout": 3, "wait_notice": 0.5})
        with pytest.raises(transferq.errors.StorageFullError):
            client.put({"x": np.zeros((16, 1 << 20), np.uint8)}, partition_id="p")
        client.close()
    finally:
        server.stop()
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "has waited" in line]
    assert re.search(
        rf"a put of 16777216 bytes has waited \d.\d s for room in storage Redis:.*{server.port}.*: .*OOM",
        line,
    )
