"""Storage managers written in Python."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferq
from transferq import errors

torch = pytest.importorskip("torch")
TensorDict = pytest.importorskip("tensordict").TensorDict

NAME = "Shelf"
shelf: dict[tuple[str, int, str], Any] = {}
"""The data of the manager below: by partition, index and field."""


@transferq.StorageManagerFactory.register(NAME)
class ShelfManager(transferq.StorageManager):
    """Keeps rows in a dict of this process."""

    async def put_data(self, data: Any, metadata: transferq.BatchMeta) -> None:
        schema: dict[str, Mapping[str, Any]] = {}
        notes: dict[int, dict[str, Any]] = {index: {} for index in metadata.global_indexes}
        for name in data.keys():  # noqa: SIM118 - a TensorDict iterates over rows
            column = data[name]
            rows = list(column.unbind()) if isinstance(column, torch.Tensor) else list(column)
            for index, partition, row in zip(
                metadata.global_indexes, metadata.partition_ids, rows, strict=True
            ):
                shelf[partition, index, name] = row
                notes[index][name] = {"kept as": type(row).__name__}
            tensors = all(isinstance(row, torch.Tensor) for row in rows)
            schema[name] = {
                "dtype": rows[0].dtype if tensors else None,
                "shape": None,
                "is_nested": tensors,
                "is_non_tensor": not tensors,
                "per_sample_shapes": [tuple(row.shape) for row in rows] if tensors else None,
            }
        for part in metadata.chunk_by_partition():
            await self.notify_data_update(part.partition_ids[0], part.global_indexes, schema, notes)

    async def get_data(self, metadata: transferq.BatchMeta) -> Any:
        assert all(
            set(notes) == set(metadata.field_names) for notes in metadata._custom_backend_meta
        )
        columns = {}
        for name in metadata.field_names:
            rows = [
                shelf[partition, index, name]
                for partition, index in zip(
                    metadata.partition_ids, metadata.global_indexes, strict=True
                )
            ]
            tensors = all(isinstance(row, torch.Tensor) for row in rows)
            columns[name] = torch.stack(rows) if tensors else rows
        return TensorDict(columns, batch_size=[metadata.size])

    async def clear_data(self, metadata: transferq.BatchMeta) -> None:
        gone = set(zip(metadata.partition_ids, metadata.global_indexes, strict=True))
        for key in [key for key in shelf if key[:2] in gone]:
            del shelf[key]


@pytest.fixture(scope="module")
def managed() -> Iterator[Any]:
    """A system whose clients store data through the manager above."""
    with tempfile.TemporaryDirectory(prefix="tq-") as path, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", path)
        patch.delenv("TQ_ADDRESS", raising=False)
        transferq.init(
            {"backend": {"storage_backend": NAME, NAME: {"depth": 3}}, "client": {"timeout": 20}}
        )
        yield transferq.get_client()
        transferq.close()
        assert list(Path(path).iterdir()) == []


def test_the_client_uses_it(managed: Any) -> None:
    manager = managed.storage_manager
    assert isinstance(manager, ShelfManager)
    assert manager.config.depth == 3
    assert managed.status()["owners"] == []


def test_put_claim_read_clear(managed: Any) -> None:
    meta = managed.put(
        {"x": torch.arange(6.0).reshape(3, 2), "s": ["a", "b", "c"]}, partition_id="p"
    )
    assert (meta.size, meta.field_names, meta.is_ready) == (3, ["s", "x"], True)
    assert len(shelf) == 6
    claimed = managed.get_meta(["x", "s"], 2, "p", task_name="t")
    assert claimed.get_shapes("x") == [(2,), (2,)]
    data = managed.get_data(claimed)
    assert data["x"].tolist() == [[0, 1], [2, 3]]
    assert list(data["s"]) == ["a", "b"]
    managed.put({"y": torch.ones(2)}, metadata=claimed)
    assert managed.get_data(claimed)["y"].tolist() == [1, 1]
    managed.clear_samples(claimed)
    assert {index for _, index, _ in shelf} == set(meta.global_indexes) - set(
        claimed.global_indexes
    )
    managed.clear_partition("p")
    assert shelf == {}
    assert managed.get_partition_list() == []


def test_a_checkpoint_has_the_table_only(
    managed: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transferq.kv_batch_put(["a", "b"], "ck", {"x": torch.arange(2)}, tags=[{"t": 1}, {}])
    transferq.save_checkpoint(tmp_path / "ck")
    assert "ShelfManager keeps its data itself" in caplog.text
    assert '"storage_saved": false' in (tmp_path / "ck" / "metadata.json").read_text()
    managed.get_meta(["x"], 2, "ck", task_name="t")
    transferq.kv_batch_put(["c"], "ck", {"x": torch.arange(1)})
    transferq.load_checkpoint(tmp_path / "ck")
    assert transferq.kv_list("ck")["ck"] == {"a": {"t": 1}, "b": {}}
    assert transferq.kv_batch_get(["b", "a"], "ck")["x"].tolist() == [1, 0]
    assert managed.get_meta(["x"], 2, "ck", task_name="t").size == 2
    managed.clear_partition("ck")
    shelf.clear()


def test_by_key_and_in_a_loop(managed: Any) -> None:
    async def main() -> None:
        meta = await transferq.async_kv_batch_put(
            ["a", "b"], "kv", {"x": torch.arange(2)}, tags=[{"t": 1}, {}]
        )
        assert (meta.fields, meta.tags) == (["x"], [{"t": 1}, {}])
        assert (await transferq.async_kv_batch_get(["b", "a"], "kv"))["x"].tolist() == [1, 0]
        await transferq.async_kv_clear("a", "kv")
        assert list((await transferq.async_kv_list("kv"))["kv"]) == ["b"]
        assert len(shelf) == 1

    asyncio.run(main())
    managed.clear_partition("kv")
    managed.clear_partition("kv")


def test_a_failing_manager_publishes_nothing(managed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise OSError("the shelf is full")

    monkeypatch.setattr(ShelfManager, "put_data", fail)
    with pytest.raises(OSError, match="the shelf is full"):
        managed.put({"x": np.ones(2)}, partition_id="q")
    assert managed.check_production_status(["x"], "q") is False
    managed.clear_partition("q")


def rows_of(partition: str) -> set[int]:
    """Indexes of samples with data on the shelf."""
    return {index for name, index, _ in shelf if name == partition}


def test_a_clear_in_the_middle(managed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While data is being removed its samples are cleared for everyone, and their indexes are not reused."""
    meta = managed.put({"x": torch.arange(3.0)}, partition_id="mid")
    transferq.kv_batch_put(["k"], "mid", {"x": torch.ones(1)})
    seen: list[str] = []
    remove = ShelfManager.clear_data

    async def slowly(self: Any, metadata: transferq.BatchMeta) -> None:
        if set(metadata.global_indexes) != set(meta.global_indexes):
            await remove(self, metadata)
            return
        assert metadata._custom_backend_meta == [{"x": {"kept as": "Tensor"}}] * 3
        assert rows_of("mid") > set(meta.global_indexes)
        with pytest.raises(errors.ClearedError):
            await managed.async_get_data(meta)
        with pytest.raises(errors.ClearedError):
            await managed.async_put({"y": torch.ones(3)}, metadata=meta)
        other = await managed.async_put({"x": torch.ones(4)}, partition_id="mid")
        assert set(other.global_indexes).isdisjoint(meta.global_indexes)
        await remove(self, metadata)
        seen.append("removed")

    monkeypatch.setattr(ShelfManager, "clear_data", slowly)
    asyncio.run(managed.async_clear_samples(meta))
    assert seen == ["removed"]
    again = managed.put({"x": torch.ones(200)}, partition_id="mid")
    assert set(again.global_indexes) > set(meta.global_indexes)
    asyncio.run(managed.async_kv_clear("k", "mid"))
    asyncio.run(managed.async_clear_partition("mid"))
    assert rows_of("mid") == set()
    assert "mid" not in managed.get_partition_list()


def test_a_read_that_a_clear_overtakes(managed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data is not returned if its samples were cleared during the read."""
    meta = managed.put({"x": torch.arange(3.0)}, partition_id="over")
    read = ShelfManager.get_data

    async def overtaken(self: Any, metadata: transferq.BatchMeta) -> Any:
        data = await read(self, metadata)
        await managed.async_clear_samples(metadata.select_samples([1]))
        return data

    monkeypatch.setattr(ShelfManager, "get_data", overtaken)
    with pytest.raises(errors.ClearedError, match=str(meta.global_indexes[1])):
        asyncio.run(managed.async_get_data(meta))
    managed.clear_partition("over")


def test_data_that_cannot_be_removed(
    managed: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The clear fails, its samples are gone, and the next clear removes the data again."""
    meta = managed.put({"x": torch.arange(2.0)}, partition_id="stuck")
    kept = managed.put({"x": torch.arange(1.0)}, partition_id="stuck")
    calls: list[list[int]] = []
    remove = ShelfManager.clear_data

    async def fail(self: Any, metadata: transferq.BatchMeta) -> None:
        calls.append(metadata.global_indexes)
        if len(calls) < 3:
            raise OSError("the shelf is locked")
        await remove(self, metadata)

    monkeypatch.setattr(ShelfManager, "clear_data", fail)
    with pytest.raises(OSError, match="locked"):
        managed.clear_samples(meta)
    assert rows_of("stuck") == {*meta.global_indexes, *kept.global_indexes}
    with pytest.raises(errors.ClearedError):
        managed.get_data(meta)
    # Its own clear fails, the leftover one does not.
    with pytest.raises(OSError, match="locked"):
        managed.clear_samples(kept)
    assert calls[1:] == [kept.global_indexes, meta.global_indexes]
    with caplog.at_level(logging.WARNING, "transferq"):
        managed.clear_partition("stuck")
    assert calls[3:] == [kept.global_indexes]
    assert rows_of("stuck") == set()


def clear_and_stop(meta: transferq.BatchMeta, said: int) -> None:
    """In a child: hang while data is being removed."""

    async def stop(_: Any, metadata: transferq.BatchMeta) -> None:
        os.write(said, b"x")
        signal.pause()

    ShelfManager.clear_data = stop  # type: ignore[method-assign]
    transferq.get_client().clear_samples(meta)


def test_a_client_that_dies_in_the_middle_of_a_clear(managed: Any) -> None:
    """The next client of this storage removes the data again; until then the indexes are not reused."""
    meta = managed.put({"x": torch.arange(3.0)}, partition_id="crash")
    last = max((event["seq"] for event in managed.get_events()), default=0)
    hear, said = os.pipe()
    child = multiprocessing.get_context("fork").Process(target=clear_and_stop, args=(meta, said))
    child.start()
    assert os.read(hear, 1) == b"x"
    os.close(hear)
    os.close(said)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    left = False
    while not left:
        events = managed.get_events(last, wait=True, timeout=20)
        left = any(event["kind"] == "died" for event in events)
        last = events[-1]["seq"]
    held = managed.put({"x": torch.ones(3)}, partition_id="crash")
    assert set(held.global_indexes).isdisjoint(meta.global_indexes)
    assert rows_of("crash") == {*meta.global_indexes, *held.global_indexes}
    info = managed.config["controller"]["zmq_info"]
    transferq.TransferQueueClient("next", info).close()
    assert rows_of("crash") == set(held.global_indexes)
    free = managed.put({"x": torch.ones(400)}, partition_id="crash")
    assert set(free.global_indexes) > set(meta.global_indexes)
    managed.clear_partition("crash")


def test_a_load_while_a_clear_is_left_behind(
    managed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint has no samples that are being cleared, and after loading one the clear still has to be ended."""
    meta = managed.put({"x": torch.arange(2.0)}, partition_id="load")

    async def fail(*_: Any) -> None:
        raise OSError("the shelf is locked")

    with monkeypatch.context() as patch:
        patch.setattr(ShelfManager, "clear_data", fail)
        with pytest.raises(OSError, match="locked"):
            managed.clear_samples(meta)
        transferq.save_checkpoint(tmp_path / "ck")
        transferq.load_checkpoint(tmp_path / "ck")
    assert managed.get_meta(["x"], 1, "load", mode="force_fetch").size == 0
    assert rows_of("load") == set(meta.global_indexes)
    managed.clear_partition("load")
    assert rows_of("load") == set()


def test_registration_is_checked() -> None:
    with pytest.raises(TypeError, match="not a subclass"):
        transferq.StorageManagerFactory.register("x")(int)  # type: ignore[type-var]
    with pytest.raises(errors.UnknownManagerError, match=r"'nothing'.*Shelf"):
        transferq.StorageManagerFactory.create("nothing", transferq.ControllerInfo(""), {})
    assert transferq.TransferQueueStorageManager is transferq.StorageManager


def test_a_misspelt_backend_is_named_with_those_there_are(tmp_path: Path) -> None:
    program = 'import transferq; transferq.init({"backend": {"storage_backend": "Redsi"}})'
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(tmp_path), "TQ_SYSTEM": f"misspelt-{os.getpid()}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    said = ended.stderr.splitlines()[-1]
    assert "backend.storage_backend: 'Redsi' is unknown" in said
    assert "SimpleStorage, Redis, MooncakeStore, RayStore" in said
    assert "backend.NAME.module" in said


def test_an_unknown_manager_is_refused(managed: Any) -> None:
    with pytest.raises(errors.UnknownManagerError, match="Nowhere"):
        managed.initialize_storage_manager("Nowhere", {})
    assert managed.get_partition_list() == []
