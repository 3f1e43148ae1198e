"""An external storage manager: a plug-in in C, loaded because the config names its library.

The same tests run in a build without storage units and their manager (-Dsimple=false), to prove that nothing else needs
them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.daemons import System
from support.waiting import wait_event, wait_until

pytestmark = pytest.mark.out_of_tree


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder in which the plug-in keeps its blocks."""
    return tmp_path / "store"


@pytest.fixture
def stored(system: System, store: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system whose data is in files; clients, here and in other processes, may load the library it names."""
    library = Path(os.environ["TQ_TEST_BUILD"]) / "src" / "manager" / "dir_store.so"
    monkeypatch.setenv("TQ_LIBRARIES", str(library))
    system.start(
        settings=[
            "backend.storage_backend=DirStore",
            f'backend.DirStore={{path: "{store}", library: "{library}"}}',
        ]
    )
    return system


def test_values_come_back(stored: System, store: Path) -> None:
    """Dense, ragged and other values, read by another client than the one that wrote them."""
    data = {
        "dense": np.arange(12, dtype=np.int16).reshape(3, 2, 2),
        "ragged": [np.arange(n, dtype=np.float64) for n in (4, 0, 2)],
        "text": ["a", "", "ünïcode"],
    }
    meta = stored.client("writer").put(data, partition_id="p")
    assert list(store.iterdir())
    got = stored.client("reader").get_data(meta)
    assert np.array_equal(np.stack(list(got["dense"])), data["dense"])
    assert all(np.array_equal(a, b) for a, b in zip(got["ragged"], data["ragged"], strict=True))
    assert list(got["text"]) == data["text"]


def test_stages(stored: System) -> None:
    """A second stage adds a column, a third claims both; an overwrite is seen."""
    client = stored.client()
    client.put({"x": np.arange(8)}, partition_id="p")
    batch = client.get_meta(["x"], 8, "p", task_name="reward")
    client.put({"y": client.get_data(batch)["x"] * 10}, metadata=batch)
    batch = client.get_meta(["x", "y"], 8, "p", task_name="train")
    assert [int(row) for row in client.get_data(batch)["y"]] == [10 * i for i in range(8)]
    client.put({"y": np.zeros(8, dtype=np.int64)}, metadata=batch)
    again = client.get_meta(["y"], 1, "p", mode="force_fetch")
    assert [int(row) for row in client.get_data(again)["y"]] == [0] * 8


def test_rows_in_any_order(stored: System) -> None:
    """Some rows of some fields, in a different order than they were written."""
    client = stored.client()
    meta = client.put(
        {"x": np.arange(100), "y": [np.arange(i) for i in range(100)]}, partition_id="p"
    )
    chosen = meta.select_samples([7, 3, 98]).select_fields(["y"])
    assert [len(row) for row in client.get_data(chosen)["y"]] == [7, 3, 98]


def test_cleared_blocks_are_removed(stored: System, store: Path) -> None:
    """Nothing is left of a cleared partition, nor of killed writers."""
    client = stored.client()
    body = """
import os, signal
import numpy as np
import transferq
client = transferq.TransferQueueClient("victim", transferq.ControllerInfo(os.environ["TQ_ADDRESS"], os.environ["TQ_TOKEN_FILE"]))
client.put({"x": np.arange(1000)}, partition_id="q")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", body], env=stored.environment(), check=False
        ).returncode
        < 0
    )
    wait_event(client, lambda event: event["kind"] == "died" and event["session"] == "victim")
    for number in range(20):
        client.put({"x": np.arange(number + 1)}, partition_id="p")
    client.clear_partition("p")
    client.clear_partition("q")
    # Dead blocks are collected in order: once those of this put are gone, so are all before them.
    last = client.put({"x": np.arange(3)}, partition_id="r")
    client.clear_samples(last)
    wait_until("the store to be empty", lambda: list(store.iterdir()), lambda files: not files)
    assert client.status()["owners"][0]["blocks"] == 0


def test_gone_file_is_lost_data(stored: System, store: Path) -> None:
    """A block that the store no longer has is reported as lost, by sample and field."""
    client = stored.client()
    meta = client.put({"x": np.arange(3)}, partition_id="p")
    for path in store.iterdir():
        path.unlink()
    with pytest.raises(transferq.errors.LostError, match="x"):
        client.get_data(meta)
    assert stored.status()["partitions"][0]["lost"] == [0, 1, 2]
    client.put({"x": np.arange(3) + 5}, metadata=meta)
    assert [int(row) for row in client.get_data(meta)["x"]] == [5, 6, 7]


def test_missing_library(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that cannot be loaded is an error that names the file."""
    monkeypatch.setenv("TQ_LIBRARIES", "/no/such/plugin.so")
    system.start(
        role="controller",
        settings=[
            "backend.storage_backend=DirStore",
            'backend.DirStore={library: "/no/such/plugin.so"}',
        ],
    )
    with pytest.raises(transferq.errors.TransferQueueError, match=r"/no/such/plugin\.so"):
        system.client()
