"""Checkpoints: what is restored, what is refused, and that other clients can continue meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferq
from support.daemons import System
from support.waiting import wait_waiting
from transferq.errors import (
    CheckpointError,
    ClearedError,
    ExistsError,
    InvalidArgumentError,
    StorageFullError,
    UnknownPartitionError,
)

torch = pytest.importorskip("torch")
tensordict = pytest.importorskip("tensordict")
TensorDict, NonTensorStack = tensordict.TensorDict, tensordict.NonTensorStack

SMALL = ["backend.SimpleStorage.total_storage_size=64MiB"]


def kinds() -> dict[str, Any]:
    """Three rows of every kind of column."""
    return {
        "floats": torch.arange(6, dtype=torch.float32).reshape(3, 2),
        "bf16": torch.tensor([1.5, -2.0, 3.0], dtype=torch.bfloat16),
        "bools": torch.tensor([[True], [False], [True]]),
        "empty": torch.zeros(3, 0, dtype=torch.int16),
        "ragged": torch.nested.as_nested_tensor(
            [torch.arange(n, dtype=torch.int64) for n in (3, 0, 5)], layout=torch.jagged
        ),
        "text": NonTensorStack("eins", "", "drei"),
        "maps": NonTensorStack({"a": [1, None]}, {"b": b"\0\1"}, {}),
        "large": torch.arange(3 * 50_000, dtype=torch.int32).reshape(3, -1),
    }


def rows(column: Any) -> list[Any]:
    if isinstance(column, torch.Tensor):
        return [row.contiguous() for row in column.unbind()]
    return column.tolist() if hasattr(column, "tolist") else list(column)


def same(got: Any, expected: dict[str, Any]) -> None:
    assert set(got.keys()) == set(expected)
    for name, column in expected.items():
        for one, other in zip(rows(got[name]), rows(column), strict=True):
            if isinstance(one, torch.Tensor):
                assert one.dtype == other.dtype
                assert torch.equal(one, other), name
            else:
                assert one == other


def everything(client: Any) -> dict[str, Any]:
    """Everything that can be read from a system, except where it is stored."""
    status = client.status()
    state: dict[str, Any] = {"keys": client.kv_list()}
    for partition in status["partitions"]:
        name = partition["name"]
        meta = client.get_meta([], 1, name, mode="force_fetch", task_name="all")
        state[name] = {
            "indexes": meta.global_indexes,
            "tags": meta.custom_meta,
            "fields": partition["fields"],
            "tasks": partition["tasks"],
            "consumed": {
                task["name"]: client.get_consumption_status(task["name"], name)[1].tolist()
                for task in partition["tasks"]
            },
        }
    return state


@pytest.fixture
def ck(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ck"


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> None:
    if "tq" in request.fixturenames:
        client = request.getfixturevalue("tq").get_client()
        for name in client.get_partition_list():
            client.clear_partition(name)


def fill(tq: Any) -> None:
    client = tq.get_client()
    tq.kv_batch_put(
        ["a", "b", "c"], "p", TensorDict(kinds(), batch_size=3), [{"n": i} for i in range(3)]
    )
    client.put({"x": torch.arange(8)}, partition_id="q", groups=["g", "g", "h", "h"] * 2)
    client.put({"x": torch.arange(4)}, partition_id="q")
    client.clear_samples(client.get_meta(["x"], 1, "q", task_name="clearer"))
    client.get_meta(["x"], 3, "q", task_name="train")
    tq.kv_put("reserved", "p", tag={"only": "a tag"})


# --- what is restored -----------------------------------------------------------------------------


def test_everything_comes_back(tq: Any, client: Any, ck: Path) -> None:
    fill(tq)
    before = everything(client)
    assert tq.save_checkpoint(ck, metadata={"step": 7, "loss": 0.5}) is None
    about = json.loads((ck / "metadata.json").read_text())
    assert about == {"storage_saved": True, "user_metadata": {"step": 7, "loss": 0.5}}
    assert [path.name for path in ck.parent.iterdir()] == ["ck"]
    for name in ("p", "q"):
        client.clear_partition(name)
    tq.kv_put("later", "gone", {"x": torch.ones(1)})
    assert tq.load_checkpoint(ck) is None
    assert everything(client) == before
    same(tq.kv_batch_get(["a", "b", "c"], "p"), kinds())
    assert client.get_meta(["x"], 8, "q", task_name="train").size == 8


def test_async_forms(tq: Any, client: Any, ck: Path) -> None:
    async def main() -> None:
        await tq.async_save_checkpoint(ck)
        await client.async_clear_partition("p")
        await tq.async_load_checkpoint(ck)
        same(await tq.async_kv_batch_get(["a", "b", "c"], "p"), kinds())
        assert (await client.async_load_checkpoint(ck))["samples"] == 15

    fill(tq)
    asyncio.run(main())


def test_an_empty_system(tq: Any, client: Any, ck: Path) -> None:
    tq.save_checkpoint(ck)
    tq.kv_put("a", "p", {"x": torch.ones(1)})
    tq.load_checkpoint(ck)
    assert client.get_partition_list() == []


def test_nothing_but_empty_cells(tq: Any, client: Any, ck: Path) -> None:
    tq.kv_batch_put(["a", "b"], "p", TensorDict({"empty": torch.zeros(2, 0)}, batch_size=2))
    before = everything(client)
    tq.save_checkpoint(ck)
    client.clear_partition("p")
    tq.load_checkpoint(ck)
    assert everything(client) == before
    same(tq.kv_batch_get(["a", "b"], "p"), {"empty": torch.zeros(2, 0)})


def test_metadata_from_before_is_refused(tq: Any, client: Any, ck: Path) -> None:
    fill(tq)
    meta = client.get_meta(["x"], 2, "q", task_name="other")
    before = client.get_data(meta)["x"].tolist()
    tq.save_checkpoint(ck)
    tq.load_checkpoint(ck)
    with pytest.raises(ClearedError, match="partition 'q'"):
        client.put({"y": torch.zeros(2)}, meta)
    # The unit may not have freed the old blocks yet: until then their data can be read.
    with pytest.raises(ClearedError, match="partition 'q'"):
        while True:
            assert client.get_data(meta)["x"].tolist() == before


def test_waiting_claims_are_served(tq: Any, client: Any, ck: Path) -> None:
    client.put({"x": torch.arange(4)}, partition_id="q")
    tq.save_checkpoint(ck)
    client.clear_partition("q")
    got: list[Any] = []
    waiter = threading.Thread(
        target=lambda: got.append(client.get_meta(["x"], 4, "q", task_name="late", timeout=20))
    )
    waiter.start()
    wait_waiting(client)
    tq.load_checkpoint(ck)
    waiter.join(20)
    assert rows(client.get_data(got[0])["x"]) == [0, 1, 2, 3]


def test_one_partition(tq: Any, client: Any, ck: Path) -> None:
    fill(tq)
    tq.save_checkpoint(ck, partition_id="p")
    client.clear_partition("p")
    client.put({"y": torch.arange(20)}, partition_id="p2")
    tq.load_checkpoint(ck)
    assert sorted(client.get_partition_list()) == ["p", "p2", "q"]
    same(tq.kv_batch_get(["a", "b", "c"], "p"), kinds())
    whole = client.get_meta(["y"], 20, "p2", task_name="t")
    assert rows(client.get_data(whole)["y"]) == list(range(20))
    with pytest.raises(UnknownPartitionError, match="'nowhere'"):
        tq.save_checkpoint(ck, partition_id="nowhere")


def test_memory_is_saved_whatever_is_asked(
    tq: Any, client: Any, ck: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tq)
    with caplog.at_level(logging.WARNING, logger="transferq"):
        tq.save_checkpoint(ck, include_storage=False)
    assert "SimpleStorage" in caplog.text
    client.clear_partition("p")
    tq.load_checkpoint(ck)
    same(tq.kv_batch_get(["a", "b", "c"], "p"), kinds())


def test_the_table_alone(tq: Any, client: Any, ck: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tq)
    before = everything(client)
    client.save_controller_checkpoint(str(ck))
    assert not (ck / "data.bin").exists()
    assert json.loads((ck / "metadata.json").read_text())["storage_saved"] is False
    client.reset_consumption("q")
    client.load_controller_checkpoint(str(ck))
    assert everything(client) == before
    same(tq.kv_batch_get(["a", "b", "c"], "p"), kinds())
    client.clear_partition("p")
    with caplog.at_level(logging.WARNING, logger="transferq"):
        client.load_controller_checkpoint(str(ck))
    assert f"the data of {3 * len(kinds())} cells" in caplog.text
    assert tq.kv_list("p")["p"] == before["keys"]["p"]
    lost = next(one for one in client.status()["partitions"] if one["name"] == "p")["lost"]
    assert len(lost) == 3


def test_storage_then_table(tq: Any, client: Any, ck: Path) -> None:
    fill(tq)
    ck.mkdir(parents=True)
    client.save_controller_checkpoint(str(ck / "controller_state.pkl"))
    client.save_storage_checkpoint(str(ck))
    before = everything(client)
    client.clear_partition("p")
    client.clear_partition("q")
    client.load_storage_checkpoint(str(ck))
    client.load_controller_checkpoint(str(ck / "controller_state.pkl"))
    assert everything(client) == before
    same(tq.kv_batch_get(["a", "b", "c"], "p"), kinds())


# --- the directory --------------------------------------------------------------------------------


def test_a_checkpoint_replaces_the_former_one(tq: Any, client: Any, ck: Path) -> None:
    tq.kv_put("a", "p", {"x": torch.ones(1)})
    tq.save_checkpoint(ck)
    tq.kv_put("b", "p", {"x": torch.ones(1)})
    tq.save_checkpoint(str(ck) + "/")
    assert [path.name for path in ck.parent.iterdir()] == ["ck"]
    client.clear_partition("p")
    tq.load_checkpoint(ck)
    assert list(tq.kv_list("p")["p"]) == ["a", "b"]


def test_what_is_no_checkpoint_is_not_replaced(tq: Any, ck: Path) -> None:
    ck.mkdir(parents=True)
    tq.save_checkpoint(ck)  # empty: fine
    shutil.rmtree(ck)
    ck.mkdir()
    (ck / "thesis.tex").write_text("years")
    with pytest.raises(ExistsError, match="not a checkpoint"):
        tq.save_checkpoint(ck)
    assert [path.name for path in ck.parent.iterdir()] == ["ck"]
    assert (ck / "thesis.tex").read_text() == "years"


def test_a_directory_with_other_metadata_is_not_replaced(tq: Any, ck: Path) -> None:
    ck.mkdir(parents=True)
    (ck / "metadata.json").write_text('{"total_size": 7}')
    (ck / "model.safetensors").write_text("weights")
    with pytest.raises(ExistsError, match="not a checkpoint"):
        tq.save_checkpoint(ck)
    assert (ck / "model.safetensors").read_text() == "weights"
    # An existing checkpoint, of any system, may be damaged and is replaced.
    (ck / "metadata.json").write_text('{"storage_saved": true}')
    tq.save_checkpoint(ck)
    (ck / "metadata.json").write_text("")
    tq.save_checkpoint(ck)
    assert not (ck / "model.safetensors").exists()


def test_a_copy_that_was_put_aside_stays(tq: Any, client: Any, ck: Path) -> None:
    tq.kv_put("a", "p", {"x": torch.ones(1)})
    tq.save_checkpoint(ck)
    ck.rename(ck.with_name("ck.old"))
    tq.kv_put("b", "p", {"x": torch.ones(1)})
    tq.save_checkpoint(ck)
    tq.save_checkpoint(ck)
    client.clear_partition("p")
    tq.load_checkpoint(ck.with_name("ck.old"))
    assert list(tq.kv_list("p")["p"]) == ["a"]


def test_many_save_to_one_place(tq: Any, ck: Path) -> None:
    tq.kv_put("a", "p", {"x": torch.ones(1)})
    with ThreadPoolExecutor(8) as pool:
        for place in range(12):
            path = ck / str(place % 6)  # twice each: a new one, and an existing one
            for saved in [pool.submit(tq.save_checkpoint, path) for _ in range(8)]:
                assert saved.result() is None
    assert sorted(path.name for path in ck.iterdir()) == [str(place) for place in range(6)]
    tq.load_checkpoint(ck / "0")


def test_missing_ones_are_named(tq: Any, ck: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"deep/ck"):
        tq.load_checkpoint(ck)
    ck.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"metadata\.json"):
        tq.load_checkpoint(ck)


def test_metadata_must_be_json(tq: Any, ck: Path) -> None:
    with pytest.raises(TypeError):
        tq.save_checkpoint(ck, metadata={"x": object()})
    with pytest.raises(InvalidArgumentError, match="JSON"):
        tq.save_checkpoint(ck, metadata={"x": float("nan")})
    assert not ck.parent.exists()


def test_an_interrupted_exchange_is_completed(tq: Any, client: Any, ck: Path) -> None:
    tq.kv_put("a", "p", {"x": torch.ones(1)})
    tq.save_checkpoint(ck)
    ck.rename(ck.with_name("ck.tq-former"))
    client.clear_partition("p")
    tq.load_checkpoint(ck)
    assert list(tq.kv_list("p")["p"]) == ["a"]
    assert [path.name for path in ck.parent.iterdir()] == ["ck"]


def test_uninitialised() -> None:
    code = "import transferq; transferq.save_checkpoint('/nowhere')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ClosedError" in done.stderr


# --- what is refused ------------------------------------------------------------------------------


def damage(path: Path, at: int) -> Callable[[], None]:
    def flip() -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 0x10
        path.write_bytes(data)

    return flip


def cut(path: Path, size: int) -> Callable[[], None]:
    return lambda: os.truncate(path, size)


def test_damage_is_found_and_changes_nothing(tq: Any, client: Any, ck: Path) -> None:
    fill(tq)
    tq.save_checkpoint(ck, metadata={"step": 1})
    tq.kv_put("later", "p", {"x": torch.ones(1)})
    before = everything(client)
    used = [owner["blocks"] for owner in client.status()["owners"]]
    spare = ck.with_name("spare")
    shutil.copytree(ck, spare)
    for path in sorted(ck.iterdir()):
        size = path.stat().st_size
        harms = [damage(path, at) for at in {0, size // 3, size // 2, size - 1}]
        harms += [cut(path, at) for at in {0, 1, size // 2, size - 1}]
        for harm in [*harms, path.unlink]:
            harm()
            with pytest.raises((CheckpointError, FileNotFoundError), match="checkpoint"):
                tq.load_checkpoint(ck)
            shutil.copyfile(spare / path.name, path)
    assert everything(client) == before
    assert [owner["blocks"] for owner in client.status()["owners"]] == used
    tq.load_checkpoint(ck)


def test_files_of_two_checkpoints_do_not_mix(tq: Any, client: Any, ck: Path) -> None:
    client.put({"x": torch.arange(100)}, partition_id="q")
    tq.save_checkpoint(ck)
    other = ck.with_name("other")
    client.put({"x": torch.arange(100)}, partition_id="q")
    tq.save_checkpoint(other)
    for name in ("data.bin", "state.bin"):
        shutil.copyfile(other / name, ck / name)
        with pytest.raises(CheckpointError, match=name):
            tq.load_checkpoint(ck)


# --- beside other clients -------------------------------------------------------------------------


def test_a_save_is_of_one_instant(tq: Any, client: Any, ck: Path) -> None:
    """Two fields put together are both in it; so are two keys of one put."""
    stop = threading.Event()
    errors: list[BaseException] = []
    saved = 0

    def guarded(work: Callable[[int], None]) -> threading.Thread:
        def run() -> None:
            turn = 0
            try:
                while not stop.is_set():
                    work(turn)
                    turn += 1
            except BaseException as error:  # noqa: BLE001 - the test raises it
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def produce(turn: int) -> None:
        value = torch.full((2, 5000), turn, dtype=torch.int32)
        tq.kv_batch_put(["l", "r"], "pair", TensorDict({"x": value, "y": -value}, batch_size=2))
        client.put({"z": torch.full((4,), turn)}, partition_id="stream")

    def consume(_: int) -> None:
        meta = client.get_meta(["z"], 4, "stream", task_name="t", timeout=20)
        client.get_data(meta)
        client.clear_samples(meta)

    client.put({"z": torch.zeros(4)}, partition_id="stream")
    client.clear_partition("stream")
    threads = [guarded(produce), guarded(consume)]
    try:
        while saved < 8 and not errors:
            tq.save_checkpoint(ck.with_name(f"ck{saved}"))
            saved += 1
    finally:
        stop.set()
        client.put({"z": torch.zeros(8, dtype=torch.int64)}, partition_id="stream")
        for thread in threads:
            thread.join()
    assert errors == []
    turns = []
    for i in range(saved):
        tq.load_checkpoint(ck.with_name(f"ck{i}"))
        if not tq.kv_list("pair").get("pair"):
            continue
        data = tq.kv_batch_get(["l", "r"], "pair")
        values = {int(v) for row in data["x"].unbind() for v in row.unique()}
        values |= {-int(v) for row in data["y"].unbind() for v in row.unique()}
        assert len(values) == 1
        turns += values
        stream = next((p for p in client.status()["partitions"] if p["name"] == "stream"), None)
        assert stream is None or stream["samples"] % 4 == 0
        assert stream is None or stream["tasks"][0]["consumed"] % 4 == 0
    assert turns == sorted(turns)
    assert len(turns) > 1


def test_a_cancelled_save_leaves_nothing(tq: Any, client: Any, ck: Path) -> None:
    client.put({"x": torch.zeros(4, 1_000_000)}, partition_id="q")
    for _ in range(5):
        op = client._core.save(str(ck))
        op.cancel()
        try:
            op.result()
        except transferq.errors.CanceledError:
            assert list(ck.parent.iterdir()) == []
        else:
            shutil.rmtree(ck)
    client.clear_partition("q")
    # Nothing pins the blocks: there is room for the same amount again, twice.
    for _ in range(4):
        client.put({"x": torch.zeros(4, 1_500_000)}, partition_id="q")
        client.clear_partition("q")


# --- real daemons ---------------------------------------------------------------------------------


def system_in(folder: Path) -> System:
    folder.mkdir()
    return System(folder)


@pytest.mark.parametrize("units", [1, 4])
def test_another_number_of_units(tmp_path: Path, units: int) -> None:
    ck = tmp_path / "ck"
    data = {"x": np.arange(64 * 40_000, dtype=np.int64).reshape(64, -1), "i": np.arange(64)}
    two = system_in(tmp_path / "two")
    try:
        two.start(settings=[*SMALL, "backend.SimpleStorage.num_data_storage_units=2"])
        client = two.client()
        for start in range(0, 64, 16):
            client.put({k: v[start : start + 16] for k, v in data.items()}, partition_id="p")
        client.get_meta(["x"], 10, "p", task_name="t")
        assert client.save_checkpoint(ck)["bytes"] == 64 * 40_001 * 8
        client.close()
    finally:
        two.close()
    other = system_in(tmp_path / "other")
    try:
        other.start(settings=[*SMALL, f"backend.SimpleStorage.num_data_storage_units={units}"])
        client = other.client()
        assert client.load_checkpoint(ck)["lost"] == 0
        owners = client.status()["owners"]
        assert len(owners) == units
        assert sum(owner["blocks"] > 0 for owner in owners) >= min(units, 2)
        meta = client.get_meta(["x", "i"], 54, "p", task_name="t", timeout=10)
        got = client.get_data(meta)
        for row, i in zip(got["x"].unbind(), got["i"].tolist(), strict=True):
            assert row.numpy().tobytes() == data["x"][i].tobytes()
        assert sorted(got["i"].tolist()) == list(range(10, 64))
        told = json.loads(other.tq("save", str(tmp_path / "again"), "p", "--json"))
        assert (told["samples"], told["partitions"], told["lost"]) == (64, 1, 0)
        client.clear_partition("p")
        assert "loaded 64 samples" in other.tq("load", str(tmp_path / "again"))
        client.close()
    finally:
        other.close()


def test_a_full_store_refuses_it(tmp_path: Path) -> None:
    ck = tmp_path / "ck"
    large = system_in(tmp_path / "large")
    try:
        large.start(settings=SMALL)
        client = large.client()
        client.put({"x": np.zeros((12, 1 << 20), dtype=np.uint8)}, partition_id="p")
        client.save_checkpoint(ck)
        client.close()
    finally:
        large.close()
    small = system_in(tmp_path / "small")
    try:
        small.start(
            settings=[
                "backend.SimpleStorage.total_storage_size=8MiB",
                "backend.SimpleStorage.num_data_storage_units=1",
            ]
        )
        client = small.client()
        client.put({"y": np.arange(3)}, partition_id="mine")
        before = everything(client)
        with pytest.raises((StorageFullError, transferq.errors.TimedOutError)):
            client.load_checkpoint(ck, timeout=2)
        assert everything(client) == before
        # Space that had already been written is released.
        client.put({"y": np.zeros((3, 2 << 20), dtype=np.uint8)}, partition_id="mine2")
        client.close()
    finally:
        small.close()


@pytest.mark.slow
def test_a_killed_save_leaves_the_former_checkpoint(running: System, tmp_path: Path) -> None:
    client = running.client()
    ck = tmp_path / "ck"
    client.put({"x": np.arange(8)}, partition_id="p")
    client.save_checkpoint(ck)
    client.put({"x": np.zeros((8, 1 << 20), dtype=np.uint8)}, partition_id="big")
    body = """
    import os, transferq
    client = transferq.TransferQueueClient(
        "saver", transferq.ControllerInfo(os.environ["TQ_ADDRESS"], os.environ["TQ_TOKEN_FILE"])
    )
    print("ready", flush=True)
    while True:
        client.save_checkpoint(os.environ["CK"])
    """
    for wait in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(body)],
            env={**running.environment(), "CK": str(ck)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(wait * 3):  # a little later each time
            client.get_partition_list()
            client.save_checkpoint(tmp_path / "mine", partition_id="p")
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        loaded = client.load_checkpoint(ck)
        assert loaded["partitions"] in (1, 2)
        if loaded["partitions"] == 1:
            client.put({"x": np.zeros((8, 1 << 20), dtype=np.uint8)}, partition_id="big")
    client.save_checkpoint(ck)
    assert sorted(path.name for path in tmp_path.iterdir() if "ck" in path.name) == ["ck"]
    client.close()
