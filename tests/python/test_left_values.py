"""Values that a read leaves in the store: decoded straight from there, or read again if they have gone meanwhile."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

import transferq
from support.waiting import wait_status, wait_until
from transferq import _core
from transferq._core import Left, unpack_rows
from transferq._impl.calls import run
from transferq._impl.encoding import Decoder
from transferq.errors import SerializationError

torch = pytest.importorskip("torch")
tensordict = pytest.importorskip("tensordict")

ROWS = 40
KEYS = [f"k{row}" for row in range(ROWS)]
DECODER = Decoder()

COLUMNS: dict[str, list[Any]] = {
    "texts": [f"{row:08d}" * 2000 for row in range(ROWS)],
    "letters": [f"é語{row:08d}" * 2000 for row in range(ROWS)],
    "bytes": [bytes([row, 255]) * 8000 for row in range(ROWS)],
    "lists": [[f"{row:08d}" * 1000, "é" * row, row] for row in range(ROWS)],
    "maps": [{"prompt": f"{row:08d}" * 1000, "answer": [b"x" * 4000], "n": row} for row in range(ROWS)],
    "mixed": [
        [f"{row:08d}" * 4000, None, b"y" * 9000, {"a": "z" * 20_000}, "", "short", 2**70, 1.5][row % 8]
        for row in range(ROWS)
    ],
    "beside tensors": [
        f"{row:08d}" * 4000 if row % 2 == 0 else {"x": torch.arange(9000) + row}
        for row in range(ROWS)
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def all_given_back(client: Any) -> Iterator[None]:
    """Nothing of a read is left, here or at a unit."""
    yield
    gc.collect()
    # The decoding thread drops its read after returning the result; a unit reports its pins by itself.
    wait_status(
        client,
        lambda status: (
            _core.live()["left"] == 0
            and all((unit["pins"], unit["pinned_bytes"]) == (0, 0) for unit in status["owners"])
        ),
    )


def put(pid: str, rows: list[Any], keys: list[str] = KEYS) -> None:
    stack = tensordict.NonTensorStack(*rows)
    transferq.kv_batch_put(keys, pid, tensordict.TensorDict({"v": stack}, batch_size=[len(rows)]))


def left_of(client: Any, pid: str, keys: list[str] = KEYS) -> Any:
    """The column as the library returns it to a reader that makes objects of it."""
    _, data = client._core.get_keys(pid, keys, ["v"], leave_values=True).result()
    return data.columns[0].data


def values_of(left: Any) -> list[Any] | None:
    return unpack_rows(left, b"", DECODER._build, DECODER._decode_other)


def until_gone(client: Any, left: Any) -> None:
    """A unit frees a block when it is notified, slightly later."""
    wait_until("the block to be freed", lambda: values_of(left), lambda values: values is None)


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(one.get("x"), torch.Tensor):
        return torch.equal(one["x"], other["x"])
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_kind_comes_back_as_it_was(client: Any, pid: str, kind: str) -> None:
    rows = COLUMNS[kind]
    put(pid, rows)
    assert type(left_of(client, pid)) is Left
    meta = client.kv_retrieve_meta(KEYS, pid)
    reads = [
        transferq.kv_batch_get(KEYS, pid),
        asyncio.run(transferq.async_kv_batch_get(KEYS, pid)),
        client.get_data(meta),
        client.get_data(meta, layout="padded", zero_copy=True),
        asyncio.run(client.async_get_data(meta)),
    ]
    for read in reads:
        got = read.get("v").tolist()
        assert all(map(alike, got, rows))
    if kind == "beside tensors":
        got[1]["x"] += 1  # the reader owns it
        assert alike(values_of(left_of(client, pid))[1], rows[1])


def test_rows_of_several_puts_and_units_in_any_order(client: Any, pid: str) -> None:
    rows = COLUMNS["texts"]
    for start in range(0, ROWS, 5):
        put(pid, rows[start : start + 5], KEYS[start : start + 5])
    order = [(7 * row) % ROWS for row in range(ROWS)]
    keys = [KEYS[row] for row in order]
    assert type(left_of(client, pid, keys)) is Left
    assert transferq.kv_batch_get(keys, pid).get("v").tolist() == [rows[row] for row in order]


@pytest.mark.parametrize(
    "rows",
    [
        ["x" * 100_000, "y"],  # few bytes
        ["x" * 1000] * 500,  # short rows
        [{"x": torch.zeros(50_000)}] * 4,  # needs the memory of the read
        [[1, {"n": "a" * 5000, "x": torch.zeros(50_000)}]] * 4,
    ],
    ids=["few", "short", "tensors", "tensors behind texts"],
)
def test_what_is_copied_as_before(client: Any, pid: str, rows: list[Any]) -> None:
    keys = [f"k{row}" for row in range(len(rows))]
    put(pid, rows, keys)
    assert type(left_of(client, pid, keys)) is not Left


class Resumed:
    """The rest of a call, after its first operation has returned."""

    def __init__(self, steps: Any, answer: Any) -> None:
        self._steps, self._first = steps, [answer]

    def send(self, value: Any) -> Any:
        return self._steps.send(self._first.pop() if self._first else value)

    def throw(self, error: BaseException) -> Any:
        return self._steps.throw(error)


# --- gone meanwhile -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["texts", "lists"])
def test_what_has_gone_is_noticed(client: Any, pid: str, kind: str) -> None:
    put(pid, COLUMNS[kind])
    left = left_of(client, pid)
    assert values_of(left) == COLUMNS[kind]
    client.clear_partition(pid)
    until_gone(client, left)
    put(pid, COLUMNS["bytes"])  # in the same place
    assert values_of(left) is None
    del left


@pytest.mark.parametrize("by", ["keys", "metadata", "metadata, laid out"])
def test_a_read_finds_what_replaced_it(client: Any, pid: str, by: str) -> None:
    put(pid, COLUMNS["texts"])
    if by == "keys":
        steps: Any = client._kv_batch_get(KEYS, pid)
    else:
        meta = client.kv_retrieve_meta(KEYS, pid)
        steps = client._get_data(meta, layout="dense" if "laid out" in by else None)
    answer = next(steps).result()
    data = answer[1] if by == "keys" else answer
    put(pid, COLUMNS["letters"])
    until_gone(client, data.columns[0].data)
    got = run(cast("Any", Resumed(steps, answer))).get("v").tolist()
    del answer, data
    assert got == COLUMNS["letters"]


@pytest.mark.parametrize("kind", ["bytes", "lists", "maps", "letters"])
def test_values_that_are_overwritten_and_cleared_are_never_mixed(
    client: Any, pid: str, kind: str
) -> None:
    """A reader sees rows as one writer put them, or an error that they do not exist."""

    def version(number: int) -> Any:
        text = f"{number:08d}" * 2000
        made = {"bytes": text.encode(), "lists": [text, number], "maps": {"t": text, "n": number}}
        return made.get(kind, f"é{text}")

    versions = [version(number) for number in range(16)]
    ended = threading.Event()
    wrong: list[Any] = []
    good = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                got = transferq.kv_batch_get(KEYS, pid).get("v").tolist()
            except transferq.TransferQueueError:
                continue  # cleared meanwhile
            wrong.extend(value for value in got if value not in versions)
            good.set()

    put(pid, [versions[0]] * ROWS)
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    assert good.wait(60)
    for place, each in enumerate(versions):
        if place % 3 == 2:
            transferq.kv_clear(KEYS, pid)
        put(pid, [each] * ROWS)
    ended.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert transferq.kv_batch_get(KEYS, pid).get("v").tolist() == [versions[-1]] * ROWS


# --- processes ------------------------------------------------------------------------------------


def test_a_closed_client_leaves_copies(client: Any, pid: str) -> None:
    put(pid, COLUMNS["texts"])
    other = transferq.TransferQueueClient("other", client._info)
    left = left_of(other, pid)
    other.close()
    client.clear_partition(pid)
    for kind in ("bytes", "letters"):
        put(pid, COLUMNS[kind])  # in the same place
        client.clear_partition(pid)
    assert values_of(left) == COLUMNS["texts"]
    del left


def test_a_child_has_copies(client: Any, pid: str) -> None:
    """The memory of a unit is not inherited."""
    put(pid, COLUMNS["texts"])
    left = left_of(client, pid)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if values_of(left) == COLUMNS["texts"] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert values_of(left) == COLUMNS["texts"]
    del left


# --- what cannot be decoded -----------------------------------------------------------------------


class Refuses:
    """Cannot be unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_a_value_that_cannot_be_decoded_is_named(client: Any, pid: str) -> None:
    rows: list[Any] = list(COLUMNS["texts"])
    rows[11] = Refuses()
    put(pid, rows)
    assert type(left_of(client, pid)) is Left
    with pytest.raises(SerializationError, match="field 'v', row 11"):
        transferq.kv_batch_get(KEYS, pid)
    with pytest.raises(SerializationError, match="field 'v', row 11"):
        client.get_data(client.kv_retrieve_meta(KEYS, pid))
