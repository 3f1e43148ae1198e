"""Data in Mooncake: a system whose config names a master."""

from __future__ import annotations

import builtins
import json
import mmap
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferq
from support.daemons import executable
from support.mooncake_servers import MooncakeMaster
from support.runtime import own_runtime
from transferq.errors import ConfigError, StorageFullError, UnreachableError, UnsupportedError
from transferq.storage.mooncake import Regions, merged

SEGMENT = 64 << 20


@pytest.fixture
def runtime() -> Iterator[None]:
    """A runtime directory for the test."""
    with own_runtime():
        yield
        transferq.close()


@pytest.fixture
def master(runtime: None) -> Iterator[MooncakeMaster]:
    """A master with one segment; ends everything that a test has started."""
    made = MooncakeMaster(SEGMENT)
    yield made
    transferq.close()
    made.stop()


def started(address: str, timeout: float = 20, **more: object) -> None:
    """Start a system on the master; this client holds no data itself."""
    section = {"master_server_address": address, "global_segment_size": 0, **more}
    transferq.init(
        {
            "backend": {"storage_backend": "MooncakeStore", "MooncakeStore": section},
            "client": {"timeout": timeout},
        }
    )


READER = """
import transferq, numpy as np
transferq.init(attach=True)
client = transferq.get_client()
meta = client.get_meta(["dense", "ragged", "text"], 8, "p", task_name="t")
got = client.get_data(meta)
assert all(np.array_equal(np.asarray(row), np.arange(50_000) + i) for i, row in enumerate(got["dense"].unbind()))
assert [row.shape[0] for row in got["ragged"].unbind()] == [0, 1, 2, 3, 4, 5, 6, 7]
assert list(got["text"]) == [str(i) for i in range(8)]
transferq.close()
"""


@pytest.mark.slow
def test_two_processes(master: MooncakeMaster) -> None:
    """Put here, claim and read in another process, clear: the store has the room again."""
    started(master.address)
    client = transferq.get_client()
    data = {
        "dense": np.stack([np.arange(50_000) + i for i in range(8)]),
        "ragged": [np.arange(i, dtype=np.float32) for i in range(8)],
        "text": [str(i) for i in range(8)],
    }
    client.put(data, partition_id="p")
    client.put(data, partition_id="q")
    subprocess.run([sys.executable, "-c", READER], check=True, timeout=120)
    client.clear_partition("p")
    client.clear_partition("q")


def fill(client: transferq.TransferQueueClient) -> int:
    """Puts eighths of the segment until there is no room; returns how many fit."""
    eighth = {"x": np.zeros((1, SEGMENT // 8), dtype=np.uint8)}
    for place in range(9):
        began = time.monotonic()
        try:
            client.put(eighth, partition_id=f"p{place}")
        except StorageFullError as error:
            assert "no segment has room" in str(error)
            assert time.monotonic() - began >= 2
            return place
    raise AssertionError("the store took more than it has")


@pytest.mark.slow
def test_full(master: MooncakeMaster) -> None:
    """A put that does not fit waits until its deadline, or until there is room after a clear."""
    started(master.address, timeout=2)
    client = transferq.get_client()
    assert fill(client) >= 7
    waiting = threading.Thread(target=client.clear_partition, args=("p0",))
    waiting.start()
    client.put({"x": np.zeros((1, SEGMENT // 8), dtype=np.uint8)}, partition_id="again")
    waiting.join()


@pytest.mark.slow
def test_the_process_that_holds_the_data_is_lost(master: MooncakeMaster) -> None:
    """Reads name the store while it does not answer; another segment accepts new data."""
    started(master.address)
    client = transferq.get_client()
    meta = client.put({"x": np.arange(1000).reshape(4, 250)}, partition_id="p")
    master.processes[1].kill()
    with pytest.raises((UnreachableError, transferq.errors.LostError)):
        client.get_data(meta)
    master.add_segment(SEGMENT)
    deadline = time.monotonic() + 20
    while True:  # the master uses the dead one until its time to live expires
        try:
            again = client.put({"x": np.arange(1000).reshape(4, 250)}, partition_id="q")
            break
        except UnreachableError:
            assert time.monotonic() < deadline
    assert np.array_equal(np.asarray(client.get_data(again)["x"][3]), np.arange(750, 1000))


@pytest.mark.slow
def test_what_systems_have_left_is_removed_as_documented(master: MooncakeMaster) -> None:
    """The commands in docs/backends.md: data left by other systems is removed; this one's data and foreign keys stay."""
    from mooncake.store import MooncakeDistributedStore

    started(master.address)
    client = transferq.get_client()
    meta = client.put({"x": np.arange(1000)}, partition_id="p")
    other = MooncakeDistributedStore()
    assert other.setup("127.0.0.1", "P2PHANDSHAKE", 0, 16 << 20, "tcp", "", master.address) == 0
    left = [f"tq/0123456789abcdef/{number:x}" for number in range(1, 4)]
    for key in [*left, "somebody/else"]:
        assert other.put(key, b"value") == 0

    page = Path(__file__).parents[2].joinpath("docs", "backends.md").read_text("utf-8")
    (lines,) = re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    status = subprocess.run([executable("tq"), "status", "--json"], capture_output=True, check=True)
    for word, value in (
        ("this-host", "127.0.0.1"),
        ("master-host:50051", master.address),
        ("EPOCH", json.loads(status.stdout)["epoch"]),
    ):
        assert word in lines
        lines = lines.replace(word, value)
    scope: dict[str, Any] = {}
    exec(lines, scope)
    scope["store"].close()

    assert scope["removed"] == len(left)
    assert other.batch_is_exist([*left, "somebody/else"]) == [0, 0, 0, 1]
    other.close()
    assert list(client.get_data(meta)["x"]) == list(range(1000))


def test_what_cannot_be(master: MooncakeMaster) -> None:
    """A nonexistent protocol or address; a master that is not running."""
    with pytest.raises(ConfigError, match=r"MooncakeStore\.protocol"):
        started(master.address, protocol="pigeon")
    transferq.close()
    with pytest.raises(ConfigError, match=r"MooncakeStore\.offload\.enabled: expected false"):
        started(master.address, offload={"enabled": True})
    transferq.close()
    with pytest.raises(ConfigError, match=r"expected HOST:PORT, got 'nowhere'"):
        started("nowhere")
    transferq.close()
    master.kill()
    with pytest.raises(
        UnreachableError, match=r"Mooncake master 127\.0\.0\.1:\d+ cannot be reached"
    ):
        started(master.address)


def test_without_mooncake(runtime: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """init() names the package to install."""
    plain = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("mooncake"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnsupportedError, match=r"install the extra 'mooncake' of transferq"):
        started("127.0.0.1:1")


def test_merged_regions() -> None:
    """Pieces that touch or overlap are merged."""
    assert merged([(30, 10), (0, 10), (10, 5), (12, 6), (50, 0)]) == [(0, 18), (30, 40)]


@pytest.mark.slow
def test_regions_are_shared_and_let_go(master: MooncakeMaster) -> None:
    """Several threads register overlapping memory with the store at once; nothing stays registered."""
    from mooncake.store import MooncakeDistributedStore

    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", 0, 0, "tcp", "", master.address) == 0
    memory = mmap.mmap(-1, 1 << 20)
    base = np.frombuffer(memory, dtype=np.uint8).ctypes.data
    regions = Regions(store)

    def use(seed: int) -> None:
        numbers = np.random.default_rng(seed)
        for _ in range(200):
            starts = numbers.integers(0, 1 << 19, 3)
            with regions.hold((base + int(start), 1 << 18) for start in starts):
                assert store.register_buffer(base + int(starts[0]), 1) != 0  # already registered

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(use, seed) for seed in range(4)]:
            done.result()
    assert store.register_buffer(base, 1 << 20) == 0
    assert store.unregister_buffer(base) == 0
    store.close()
