"""External clients of key-value stores: in C, in Python, in both forms."""

from __future__ import annotations

import asyncio
import ctypes
import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferq
from support.kv_stores import started
from transferq.errors import (
    ClearedError,
    ConfigError,
    LostError,
    StorageFullError,
    TimedOutError,
    UnknownManagerError,
)
from transferq.storage import StorageClientFactory, StorageKVClient

EXAMPLES = Path(__file__).parents[2] / "examples" / "storage"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the modules in the folder of the examples importable."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(autouse=True)
def ended(runtime_dir: Path) -> Iterator[None]:
    """End the test's system, which no other process sees."""
    yield
    transferq.close()


def check_traffic() -> None:
    """Small, large, ragged, empty and other values; an overwrite; a second stage; a claim."""
    pytest.importorskip("torch")  # the checks use tensors
    client = transferq.get_client()
    rows = {
        "small": np.arange(24, dtype=np.int16).reshape(6, 2, 2),
        "large": np.arange(6 * 90_000, dtype=np.float64).reshape(6, 90_000),
        "ragged": [np.arange(n, dtype=np.int64) for n in (3, 0, 5, 1, 1, 70_000)],
        "text": ["a", "", "ünïcode", None, {"k": [1, 2]}, b"bytes"],
    }
    meta = client.put(rows, partition_id="p")
    got = client.get_data(meta)
    for name in ("small", "large", "ragged"):
        for mine, theirs in zip(rows[name], got[name].unbind(), strict=True):
            assert np.array_equal(np.asarray(mine), np.asarray(theirs)), name
    assert list(got["text"]) == rows["text"]
    client.put({"small": rows["small"] * 3}, metadata=meta.select_fields(["small"]))
    client.put({"reward": np.arange(6, dtype=np.float32)}, metadata=meta)
    claimed = client.get_meta(["small", "reward"], 4, "p", task_name="t")
    again = client.get_data(claimed)
    assert np.array_equal(np.asarray(again["reward"]), np.arange(4, dtype=np.float32))
    assert np.array_equal(
        np.stack([np.asarray(row) for row in again["small"].unbind()]), rows["small"][:4] * 3
    )
    few = client.get_data(meta.select_samples([5, 0]).select_fields(["ragged"]))
    assert [row.shape[0] for row in few["ragged"].unbind()] == [70_000, 3]
    client.clear_partition("p")


def wait_empty(path: Path) -> None:
    """The values of dead blocks are removed gradually; each put makes the collector check again."""
    for _ in range(1000):
        if not list(path.iterdir()):
            return
        transferq.kv_put("k", "wake", {"x": np.zeros(1)})
        transferq.kv_clear(["k"], "wake")
    raise AssertionError(list(path.iterdir()))


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("closes", [False, True])
def test_a_forked_child_exits(tmp_path: Path, closes: bool) -> None:
    """A child has none of its parent's threads; it still exits by itself, whether it uses the queue or not."""
    started("PyFileStore", module="file_store", path=str(tmp_path))
    transferq.kv_put("k", "p", {"x": np.arange(3)})
    child = os.fork()
    if child == 0:
        if closes:
            transferq.close()
        ctypes.CDLL(None).exit(7)  # runs the exit handlers of libraries, but none of the test's
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert transferq.kv_batch_get("k", "p")["x"][0].tolist() == [0, 1, 2]


@pytest.mark.usefixtures("example")
def test_example_in_python(tmp_path: Path) -> None:
    """The Python example, selected only by its module."""
    sys.modules.pop("file_store", None)
    started("PyFileStore", module="file_store", path=str(tmp_path))
    check_traffic()
    wait_empty(tmp_path)


def test_example_in_c(tmp_path: Path) -> None:
    """The C example, selected only by its library."""
    library = Path(os.environ["TQ_TEST_BUILD"]) / "examples" / "file_store.so"
    started("FileStore", library=str(library), path=str(tmp_path))
    check_traffic()
    wait_empty(tmp_path)


values: dict[str, Any] = {}
"""The data of the clients below."""


@StorageClientFactory.register("ValueStore")
class ValueStore(StorageKVClient):
    """Tensors and objects as they are; expects the result of put to be passed back."""

    def put(self, keys: list[str], values_: list[Any]) -> list[Any]:
        for key, value in zip(keys, values_, strict=True):
            values[key] = value
        return [{"length": len(key)} for key in keys]

    def get(
        self,
        keys: list[str],
        shapes: list[Any] | None = None,
        dtypes: list[Any] | None = None,
        custom_backend_meta: list[Any] | None = None,
    ) -> list[Any]:
        assert custom_backend_meta == [{"length": len(key)} for key in keys]
        assert shapes is not None and dtypes is not None and len(shapes) == len(keys)
        return [values.get(key) for key in keys]

    def clear(self, keys: list[str], custom_backend_meta: list[Any] | None = None) -> None:
        for key in keys:
            values.pop(key, None)


def test_value_form() -> None:
    """A client as users write it for TransferQueue."""
    torch = pytest.importorskip("torch")
    values.clear()
    started("ValueStore")
    client = transferq.get_client()
    data = {"x": torch.arange(12).reshape(3, 4), "s": ["a", {"b": 1}, None]}
    meta = client.put(data, partition_id="p")
    assert len(values) == 6
    got = client.get_data(meta)
    assert torch.equal(torch.stack(list(got["x"].unbind())), data["x"])
    assert list(got["s"]) == data["s"]
    values.pop(next(key for key in values if key.endswith("/x")))
    with pytest.raises(LostError, match=r"'x'.*samples"):
        client.get_data(meta)
    client.clear_samples(meta)
    assert not values


class Hook:
    """An action in the middle of a call of the store below."""

    before_put: Callable[[list[str]], None] | None = None
    after_put: Callable[[], None] | None = None
    before_get: Callable[[], None] | None = None


@StorageClientFactory.register("PeerStore")
class PeerStore(StorageKVClient):
    """A client in TransferQueue's style: tensors as bytes, with shape and dtype as arguments."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.prefix = config["prefix"]

    def put(self, keys: list[str], values_: list[Any]) -> list[Any] | None:
        if Hook.before_put is not None:
            Hook.before_put(keys)
        for key, value in zip(keys, values_, strict=True):
            raw = hasattr(value, "numpy")
            values[self.prefix + key] = value.numpy().tobytes() if raw else value
        if Hook.after_put is not None:
            Hook.after_put()
        return None

    def get(
        self,
        keys: list[str],
        shapes: Any = None,
        dtypes: Any = None,
        custom_backend_meta: Any = None,
    ) -> list[Any]:
        torch = pytest.importorskip("torch")
        if Hook.before_get is not None:
            hook, Hook.before_get = Hook.before_get, None
            hook()
        found: list[Any] = []
        for key, shape, dtype in zip(keys, shapes, dtypes, strict=True):
            value = values.get(self.prefix + key)
            raw = isinstance(value, bytes)
            found.append(
                torch.frombuffer(bytearray(value), dtype=dtype).reshape(shape) if raw else value
            )
        return found

    def clear(self, keys: list[str], custom_backend_meta: Any = None) -> None:
        for key in keys:
            values.pop(self.prefix + key, None)


@pytest.fixture
def peer_store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client of a system on the store above."""
    for name in ("before_put", "after_put", "before_get"):
        monkeypatch.setattr(Hook, name, None)
    values.clear()
    started("PeerStore", prefix="mine:")
    return transferq.get_client()


def column(data: Any, name: str) -> list[list[int]]:
    """Rows of a field as lists."""
    return [row.tolist() for row in data[name].unbind()]


WRONG: list[tuple[Any, str]] = [
    (None, "a list with one value for each of 2 keys, got NoneType None"),
    (7, "a list with one value for each of 2 keys, got int 7"),
    ("ab", "a list with one value for each of 2 keys, got str 'ab'"),
    ([1], "a list with one value for each of 2 keys, got 1"),
    ([1, 2], r"for key 'tq/.*/x' a tensor of shape \(2,\) and torch.int64, got int 1"),
    ([np.zeros(2)] * 2, r".* of shape \(2,\) and torch.int64, got one of shape \(2,\) and float64"),
    ([np.zeros(3, np.int64)] * 2, r".* of shape \(2,\) and torch.int64, got one of shape \(3,\)"),
]


@pytest.mark.parametrize(("answer", "expected"), WRONG)
def test_answers_that_are_none(
    peer_store: Any, monkeypatch: pytest.MonkeyPatch, answer: Any, expected: str
) -> None:
    """A client's answers are checked: the error names client, key and what was expected."""
    torch = pytest.importorskip("torch")
    meta = peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")
    monkeypatch.setattr(PeerStore, "get", lambda *args: answer)
    with pytest.raises(ValueError, match=f"^PeerStore.get: expected {expected}"):
        peer_store.get_data(meta)
    monkeypatch.undo()
    monkeypatch.setattr(PeerStore, "put", lambda *args: answer)
    if answer is None or (isinstance(answer, list) and len(answer) == 2):
        return  # any result of put is valid
    with pytest.raises(ValueError, match=r"^PeerStore.put: expected a list with one answer"):
        peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")


def blocked(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> tuple[threading.Event, queue.Queue[Any]]:
    """Make a method of the store first wait for an event; returns that, and the keys cleared from now on."""
    goes_on, cleared = threading.Event(), queue.Queue[Any]()
    original, clear = getattr(PeerStore, method), PeerStore.clear

    def waits(self: Any, *args: Any, **kwargs: Any) -> Any:
        assert goes_on.wait(60)
        return original(self, *args, **kwargs)

    def tells(self: Any, keys: list[str], custom_backend_meta: Any = None) -> None:
        clear(self, keys, custom_backend_meta)
        cleared.put(keys)

    monkeypatch.setattr(PeerStore, "clear", tells)
    monkeypatch.setattr(PeerStore, method, waits)
    return goes_on, cleared


@pytest.mark.slow
def test_a_client_that_blocks(peer_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for up to `client.timeout`; anything it does afterwards is undone."""
    torch = pytest.importorskip("torch")
    meta = peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")
    before = dict(values)
    peer_store.storage_manager.client_timeout = 1
    with monkeypatch.context() as patch:
        goes_on, cleared = blocked(patch, "put")
        with pytest.raises(TimedOutError, match=r"^PeerStore\.put did not end within 1 s"):
            peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")
        goes_on.set()
        assert len(cleared.get(timeout=60)) == 2
    assert values == before
    with monkeypatch.context() as patch:
        goes_on, _ = blocked(patch, "get")
        with pytest.raises(TimedOutError, match=r"^PeerStore\.get did not end within 1 s"):
            peer_store.get_data(meta)
        goes_on.set()
    peer_store.storage_manager.client_timeout = 60
    assert column(peer_store.get_data(meta), "x") == [[0, 1], [2, 3]]


def test_a_put_that_is_cancelled_while_the_client_blocks(
    peer_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancelled caller does not wait, and its values are removed after the client has put them."""
    torch = pytest.importorskip("torch")
    goes_on, cleared = blocked(monkeypatch, "put")

    async def give_up() -> None:
        put = peer_store.async_put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(put, 0.2)
        assert not goes_on.is_set()

    asyncio.run(give_up())
    goes_on.set()
    assert len(cleared.get(timeout=60)) == 2
    assert not values


def test_a_full_store_of_values(peer_store: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A put waits for room without occupying any, and fails if there is none in time."""
    torch = pytest.importorskip("torch")
    tries: list[int] = []
    peer_store.storage_manager.client_timeout = 60

    def full(keys: list[str]) -> None:
        assert not values
        tries.append(len(keys))
        values["mine:" + keys[0]] = b"half"
        if len(tries) < 4:
            raise StorageFullError("no room")

    Hook.before_put = full
    meta = peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")
    assert tries == [2, 2, 2, 2]
    assert column(peer_store.get_data(meta), "x") == [[0, 1], [2, 3]]
    peer_store.clear_samples(meta)
    tries.clear()

    def always_full(keys: list[str]) -> None:
        tries.append(len(keys))
        raise StorageFullError("no room")

    Hook.before_put = always_full
    peer_store.storage_manager.client_timeout = 1
    with pytest.raises(StorageFullError, match="no room"):
        peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")
    assert len(tries) > 1
    assert not values
    assert not caplog.records


def test_what_cannot_be_undone_is_told(
    peer_store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the first key that may be left; not if the put's error already says it."""
    torch = pytest.importorskip("torch")

    def fails(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no store")

    def puts(error: Exception) -> None:
        def put(keys: list[str]) -> None:
            raise error

        Hook.before_put = put
        with pytest.raises(type(error)):
            peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")

    monkeypatch.setattr(PeerStore, "clear", fails)
    puts(ConnectionError("no store"))
    assert not caplog.records
    puts(OSError("disk on fire"))
    (record,) = caplog.records
    assert re.search(
        r"PeerStore: 2 values of a failed put may be left, the first one is tq/.*: no store",
        record.getMessage(),
    )


def test_an_overwrite_is_seen_as_a_whole(peer_store: Any) -> None:
    """Overwritten values are stored elsewhere until all are complete; then the replaced ones are removed."""
    torch = pytest.importorskip("torch")
    meta = peer_store.put(
        {"x": torch.arange(4).reshape(2, 2), "y": torch.ones(2)}, partition_id="p"
    )
    assert len(values) == 4
    seen: list[Any] = []

    def look() -> None:
        assert len(values) == 6
        seen.append(column(peer_store.get_data(meta.select_fields(["x"])), "x"))

    Hook.after_put = look
    peer_store.put({"x": torch.arange(4, 8).reshape(2, 2)}, metadata=meta.select_fields(["x"]))
    assert seen == [[[0, 1], [2, 3]]]
    assert len(values) == 4
    # Metadata from before the overwrite finds the current values.
    Hook.after_put = None
    assert column(peer_store.get_data(meta.select_fields(["x"])), "x") == [[4, 5], [6, 7]]
    peer_store.clear_samples(meta)
    assert not values


def test_what_an_overwrite_could_not_remove_is_asked_for(
    peer_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that it left, or that did not fit into one answer, are removed by the next check."""
    torch = pytest.importorskip("torch")
    meta = peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")

    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk on fire")

    with monkeypatch.context() as patch:
        patch.setattr(PeerStore, "clear", fails)
        peer_store.put({"x": torch.arange(4, 8).reshape(2, 2)}, metadata=meta)
    assert len(values) == 4
    asyncio.run(peer_store.storage_manager._remove_rest())
    assert len(values) == 2
    assert column(peer_store.get_data(meta), "x") == [[4, 5], [6, 7]]


def test_a_put_that_fails_leaves_nothing(peer_store: Any) -> None:
    """Neither a first put nor an overwrite; existing values stay."""
    torch = pytest.importorskip("torch")
    meta = peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")
    before = dict(values)

    def half(keys: list[str]) -> None:
        values["mine:" + keys[0]] = b"torn"
        raise error

    Hook.before_put = half
    # If the controller raised the second error, it would mean that the put may have been done.
    for error in (OSError("disk on fire"), TimedOutError("still on fire")):
        with pytest.raises(type(error), match="on fire"):
            peer_store.put({"x": torch.arange(4, 8).reshape(2, 2)}, metadata=meta)
        with pytest.raises(type(error), match="on fire"):
            peer_store.put({"x": torch.arange(4, 8).reshape(2, 2)}, partition_id="p")
        assert values == before
    Hook.before_put = None
    assert values == before
    assert column(peer_store.get_data(meta), "x") == [[0, 1], [2, 3]]

    # Refused by the controller, because the samples are cleared while their values are being put.
    def clear() -> None:
        Hook.after_put = None
        peer_store.clear_samples(meta)

    Hook.after_put = clear
    with pytest.raises(ClearedError):
        peer_store.put({"y": torch.ones(2)}, metadata=meta)
    assert not values


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_client_that_wants_to_end_the_process(peer_store: Any, error: BaseException) -> None:
    """The call raises the client's exception, and the next call works: they share a thread."""
    torch = pytest.importorskip("torch")

    def end(keys: list[str]) -> None:
        raise error

    Hook.before_put = end
    with pytest.raises(type(error)):
        peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")
    Hook.before_put = None
    meta = peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")
    assert column(peer_store.get_data(meta), "x") == [[0, 1], [2, 3]]


@pytest.mark.parametrize("error", [asyncio.CancelledError, TimedOutError])
def test_a_put_that_is_given_up_may_be_published(
    peer_store: Any, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """A caller that stops waiting for the controller does not know the outcome, so data that may be published stays."""
    torch = pytest.importorskip("torch")
    manager = peer_store._managed.manager
    publish = manager._notify

    async def too_late(*args: Any) -> None:
        await publish(*args)
        raise error

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(manager, "_notify", too_late)
        asyncio.run(
            peer_store.async_put({"x": torch.arange(4).reshape(2, 2)}, partition_id="given up")
        )
    meta = peer_store.get_meta(["x"], 2, "given up", mode="force_fetch")
    assert column(peer_store.get_data(meta), "x") == [[0, 1], [2, 3]]
    peer_store.clear_samples(meta)
    assert not values


def test_a_read_that_an_overwrite_overtakes(peer_store: Any) -> None:
    """If values disappear under a reader, it looks up where they are now."""
    torch = pytest.importorskip("torch")
    meta = peer_store.put({"x": torch.arange(4).reshape(2, 2)}, partition_id="p")

    def again() -> None:
        peer_store.put({"x": torch.arange(4, 8).reshape(2, 2)}, metadata=meta)

    Hook.before_get = again
    assert column(peer_store.get_data(meta), "x") == [[4, 5], [6, 7]]
    Hook.before_get = lambda: peer_store.clear_samples(meta)
    with pytest.raises(ClearedError):
        peer_store.get_data(meta)


def test_objects_that_are_lost(peer_store: Any) -> None:
    """None is a value; an object that the store no longer has is lost."""
    meta = peer_store.put({"s": ["a", None, {"b": 1}]}, partition_id="p")
    assert list(peer_store.get_data(meta)["s"]) == ["a", None, {"b": 1}]
    for key in [key for key, value in values.items() if value == {"b": 1}]:
        del values[key]
    with pytest.raises(LostError, match=rf"'s'.*samples \[{meta.global_indexes[2]}\]"):
        peer_store.get_data(meta)


def test_two_writers_of_one_cell(peer_store: Any) -> None:
    """However many writers write a cell at once, one value is left."""
    torch = pytest.importorskip("torch")
    meta = peer_store.put({"x": torch.zeros(2, 2)}, partition_id="p")

    async def both() -> None:
        await asyncio.gather(
            *(
                peer_store.async_put({"x": torch.full((2, 2), float(n))}, metadata=meta)
                for n in range(20)
            )
        )

    asyncio.run(both())
    assert len(values) == 2
    rows = column(peer_store.get_data(meta), "x")
    assert rows[0] == rows[1] and rows[0][0] == rows[0][1]


def test_what_cannot_be_registered() -> None:
    """A class without a complete form; an unknown client; a module that registers nothing."""
    with pytest.raises(TypeError, match="put_from, get_into, remove"):

        @StorageClientFactory.register("Half")
        class _Half(StorageKVClient):
            def put_from(self, keys: Any, pointers: Any, sizes: Any) -> None: ...

    with pytest.raises(ValueError, match="'Nothing'"):
        StorageClientFactory.create("Nothing", {})
    with pytest.raises(UnknownManagerError, match="Nobody"):
        started("Nobody", module="json")


def test_a_module_that_cannot_be_imported(capfd: pytest.CaptureFixture[str]) -> None:
    """It is named with its place in the configuration, and the client leaves before its system ends."""
    with pytest.raises(ConfigError, match=r"^backend\.Nobody\.module: 'no_such_store' cannot be"):
        started("Nobody", module="no_such_store")
    assert capfd.readouterr().err == ""
