"""Situations where upstream fails and this system must not: one test for each line of the contract."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue.dataloader.streaming_dataset import chunk_batch_fn

from transferq.errors import StorageFullError

DEADLINE = 20.0


@pytest.fixture(autouse=True)
def stop() -> Iterator[None]:
    yield
    tq.close()


def data(**columns: Any) -> TensorDict:
    return TensorDict(columns, batch_size=len(next(iter(columns.values()))))


def test_a_claim_that_cannot_be_met_blocks_nobody() -> None:
    """In upstream it blocks every other request, fails, and kills the request thread."""
    tq.init()
    client = tq.get_client()
    client.put(data(x=torch.ones(2, 3)), partition_id="p")
    waiting = threading.Event()
    got: list[Any] = []

    def claim() -> None:
        waiting.set()
        got.append(client.get_meta(["x"], 4, "p", task_name="t"))

    thread = threading.Thread(target=claim)
    thread.start()
    assert waiting.wait(DEADLINE)
    tq.kv_put("a", "q", {"y": torch.ones(1)})
    assert tq.kv_batch_get("a", "q")["y"].unbind()[0].tolist() == [1.0]
    assert client.get_meta(["x"], 2, "p", task_name="u").size == 2
    with pytest.raises(TimeoutError):
        client.get_meta(["x"], 9, "p", task_name="u", timeout=0.05)
    assert client.get_partition_list() == ["p", "q"]
    assert not got
    client.put(data(x=torch.ones(2, 3)), partition_id="p")
    thread.join(DEADLINE)
    assert got[0].size == 4


def test_concurrent_tag_puts_on_one_key_all_stay() -> None:
    """In upstream, 20 concurrent puts leave one tag."""
    tq.init()
    tq.kv_put("a", "p", {"x": torch.ones(1)})
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda i: tq.kv_put("a", "p", tag={f"t{i}": i}), range(20)))
    assert tq.kv_list("p") == {"p": {"a": {f"t{i}": i for i in range(20)}}}


def test_a_failed_put_leaves_no_keys() -> None:
    """In upstream a put of the wrong size leaves its keys registered."""
    tq.init()
    tq.kv_put("a", "p", {"x": torch.ones(2)})
    with pytest.raises(ValueError, match="expected 2 rows, one per key, got 3"):
        tq.kv_batch_put(["b", "c"], "p", data(x=torch.ones(3, 2)))
    with pytest.raises(ValueError, match="expected 2 tags, one per key, got 1"):
        tq.kv_batch_put(["b", "c"], "p", tags=[{}])
    assert list(tq.kv_list("p")["p"]) == ["a"]
    assert tq.get_client().get_production_status(["x"], "p")[1].tolist() == [[1]]


def test_more_than_the_capacity_is_an_error_and_everything_goes_on() -> None:
    """In upstream, later status calls are broken."""
    tq.init(
        {
            "backend": {
                "SimpleStorage": {"total_storage_size": "32MiB", "num_data_storage_units": 1}
            },
            "client": {"timeout": 1},
        }
    )
    client = tq.get_client()
    tq.kv_put("a", "p", {"x": torch.ones(1024)})
    with pytest.raises(StorageFullError):
        tq.kv_put("b", "p", {"x": torch.ones(16 << 20)})
    assert list(tq.kv_list("p")["p"]) == ["a"]
    assert client.get_production_status(["x"], "p")[1].tolist() == [[1]]
    assert client.get_consumption_status("t", "p")[1].tolist() == [0]
    tq.kv_put("b", "p", {"x": torch.ones(2048)})
    assert client.get_meta(["x"], 2, "p", task_name="t").size == 2


def test_groups_are_found_after_partial_clears() -> None:
    """In upstream the GRPO sampler finds none, although complete ones exist."""
    tq.init({"controller": {"polling_mode": True, "sampler": tq.GRPOGroupNSampler(2)}})
    client = tq.get_client()
    meta = client.put(data(x=torch.arange(6)), partition_id="p")
    client.clear_samples(meta.select_samples([1, 4]))
    client.put(data(x=torch.arange(10, 14)), partition_id="p")
    groups = []
    while (claimed := client.get_meta(["x"], 2, "p", task_name="t")).size:
        groups.append(client.get_data(claimed)["x"].tolist())
    assert [2, 3] in groups
    assert [10, 11] in groups
    assert [12, 13] in groups


def test_a_put_of_another_dtype_is_stored_as_it_is() -> None:
    """In upstream this fails with the rows already marked as produced, and the put returns success."""
    tq.init()
    client = tq.get_client()
    tq.kv_put("a", "p", {"x": torch.ones(2)})
    tq.kv_batch_put(["b"], "p", data(x=torch.ones(1, 2, dtype=torch.int64), y=torch.ones(1, 2)))
    assert [tq.kv_batch_get(key, "p")["x"][0].dtype for key in "ab"] == [torch.float32, torch.int64]
    both = tq.kv_batch_get(["a", "b"], "p")["x"].tolist()
    assert [row.dtype for row in both] == [torch.float32, torch.int64]
    meta = client.get_meta(["x"], 1, "p", "insert")
    client.put(data(x=torch.ones(1, 2, dtype=torch.int64)), meta)
    assert client.get_data(meta)["x"][0].dtype == torch.int64


def test_uneven_chunks_split_data_and_metadata_alike() -> None:
    """In upstream, `chunk_batch_fn` splits them differently."""
    meta = tq.BatchMeta(list(range(5)), ["p"] * 5)
    rows = torch.nested.as_nested_tensor([torch.full((n,), n) for n in range(1, 6)])
    columns = data(n=torch.arange(5))
    columns["rows"] = rows
    for size in (1, 2, 3, 4, 5):
        start = 0
        for part, described in chunk_batch_fn(columns, meta, size):
            places = list(range(start, start + part.batch_size[0]))
            assert described.global_indexes == part["n"].tolist() == places
            assert [len(row) for row in part["rows"].unbind()] == [place + 1 for place in places]
            start += len(places)
        assert start == 5


def test_two_processes_that_start_at_once_share_one_system(tmp_path: Path) -> None:
    """In upstream they race for the same actor names."""
    code = (
        "import sys, transferq\n"
        "sys.stdin.readline()\n"
        "transferq.init()\n"
        "me = sys.argv[1]\n"
        "transferq.kv_put(me, 'p', tag={'v': 1})\n"
        "print(transferq.get_client().status()['epoch'], flush=True)\n"
        "sys.stdin.readline()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"k{number}"],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    try:
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        epochs = {process.stdout.readline() for process in processes if process.stdout}
        assert len(epochs) == 1
        assert epochs != {""}
        tq.init(attach=True)
        assert sorted(tq.kv_list("p")["p"]) == ["k0", "k1", "k2"]
        tq.close()
    finally:
        for process in processes:
            process.communicate("end\n", timeout=DEADLINE)
