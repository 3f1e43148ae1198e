"""Columns of long texts: each is read unchanged, and the stack that holds them is like tensordict's own."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
from array import array
from collections.abc import Sequence
from typing import Any

import pytest

import transferq
from transferq._impl import stacks
from transferq._impl.encoding import Decoder, Encoder
from transferq.errors import SerializationError

torch = pytest.importorskip("torch")
tensordict = pytest.importorskip("tensordict")

ALPHABETS = {
    "ASCII": "abc\x00\x7f\n",
    "Latin-1": "aé\x80ÿ",
    "BMP": "aéλ語\uffff",
    "astral": "aé語😀\U0010ffff",
    "surrogates": "a\ud800\udfff",
}
SIZES = (0, 1, 31, 255, 256, 4095, 4096, 4097, 5119, 5120, 5121, 32768, 65535, 65536, 300_001)


def columns_of(rows: Sequence[Any]) -> tuple[bytes, memoryview]:
    """Encoded rows end to end, and their offsets."""
    encoded = [Encoder().encode(row) for row in rows]
    offsets = array("Q", [0])
    for each in encoded:
        offsets.append(offsets[-1] + len(each))
    return b"".join(encoded), memoryview(offsets)


def decoded(rows: Sequence[Any]) -> list[Any]:
    encoded, offsets = columns_of(rows)
    return Decoder().decode_rows("f", encoded, offsets)


def same(got: Any, expected: Any) -> bool:
    """Equal, of the same type, and stored alike: an ASCII str must be compact ASCII inside too."""
    if type(got) is not type(expected) or got != expected:
        return False
    return not isinstance(got, str) or got.isascii() == expected.isascii()


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_texts_of_every_size(alphabet: str) -> None:
    letters = ALPHABETS[alphabet]
    rows = [(letters * (size // len(letters) + 1))[:size] for size in SIZES]
    # Long ones first: only columns that begin with one are handled as texts.
    rows = rows[::-1] + rows
    assert all(map(same, decoded(rows), rows))
    assert hash(tuple(decoded(rows))) == hash(tuple(rows))


@pytest.mark.parametrize("letter", ["é", "語", "😀", "\ud800"])
def test_one_letter_anywhere_in_a_text(letter: str) -> None:
    size = 5000
    places = [*range(70), *range(1000, 1100), *range(size - 70, size)]
    rows = ["x" * place + letter + "y" * (size - place - 1) for place in places]
    rows = ["z" * size, *rows, "z" * size]
    assert all(map(same, decoded(rows), rows))


def test_texts_beside_other_values() -> None:
    rows: list[Any] = ["a" * 40_000, None, 3, {"k": "b" * 70_000}, b"\xff" * 40_000, "é" * 30_000]
    rows += [b"a" * 5000, ["c" * 5000], "", b"", "short", "d" * 100_000]
    for first in range(len(rows)):
        turned = rows[first:] + rows[:first]
        assert all(map(same, decoded(turned), turned))


@pytest.mark.parametrize("spoil", ["length", "utf8", "behind"])
def test_a_malformed_text_is_an_error_that_names_its_row(spoil: str) -> None:
    rows = ["a" * 70_000 for _ in range(6)]
    encoded, offsets = columns_of(rows)
    bad, start = bytearray(encoded), offsets[4]
    if spoil == "length":
        bad[start + 4] += 1
    elif spoil == "utf8":
        bad[start + 100] = 0xFF
    else:
        bad[start + 4] -= 1
    with pytest.raises(SerializationError, match="field 'f', row 4"):
        Decoder().decode_rows("f", bytes(bad), offsets)


def test_large_columns_from_many_threads() -> None:
    """More than 4 MiB, so another thread may copy a part."""
    rows: list[Any] = [f"{row:08d}" * 4096 for row in range(200)]
    rows[100] = "é" * 20_000
    rows[150] = b"\x00\xff" * 20_000
    encoded, offsets = columns_of(rows)
    wrong: list[int] = []

    def check() -> None:
        for _ in range(8):
            got = Decoder().decode_rows("f", encoded, offsets)
            wrong.extend(row for row in range(len(rows)) if not same(got[row], rows[row]))

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_texts_that_are_overwritten_and_cleared_are_never_mixed(client: Any, pid: str) -> None:
    """A reader sees a text as one writer put it, or an error that it does not exist."""
    keys = [f"k{row}" for row in range(64)]
    versions = [f"{version:08d}" * 2048 for version in range(12)]
    versions += [f"é{version:07d}" * 2048 for version in range(12)]
    whole = set(versions)

    def fields(version: str) -> Any:
        stack = tensordict.NonTensorStack(*[version] * len(keys))
        return tensordict.TensorDict({"t": stack}, batch_size=[len(keys)])

    transferq.kv_batch_put(keys, pid, fields(versions[0]))
    ended = threading.Event()
    seen: list[str] = []
    reads = [0]

    def read() -> None:
        while not ended.is_set():
            try:
                got = transferq.kv_batch_get(keys, pid).get("t").tolist()
            except transferq.TransferQueueError:
                continue  # cleared meanwhile
            seen.extend(set(got) - whole)
            reads[0] += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for place, version in enumerate(versions):
        if place % 3 == 2:
            transferq.kv_clear(keys, pid)
        transferq.kv_batch_put(keys, pid, fields(version))
    ended.set()
    for reader in readers:
        reader.join()
    assert seen == []
    assert reads[0] > 0
    last = transferq.kv_batch_get(keys, pid).get("t").tolist()
    assert last == [versions[-1]] * len(keys)


# --- stacks ---------------------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "texts": ["one", "two", "", "é"],
    "mixed": ["one", 2, 3.5, True, b"five"],
    "maps": [{"a": 1}, {"b": [2]}, {}],
    "lists": [[1, 2], [], ["x"]],
    "many": [f"row {row}" for row in range(1000)],
}


def by_tensordict(rows: list[Any]) -> Any:
    return tensordict.NonTensorStack(*rows)


def test_this_tensordict_makes_stacks_as_expected() -> None:
    """Otherwise tensordict builds them, at four times the cost."""
    assert stacks._pattern() is not None
    assert stacks._is_simple()


@pytest.mark.parametrize("kind", VALUES)
def test_a_stack_is_what_tensordict_makes(kind: str) -> None:
    rows = VALUES[kind]
    made, expected = stacks.stack_of_objects(list(rows)), by_tensordict(rows)
    assert type(made) is type(expected)
    assert made.tolist() == expected.tolist() == rows
    assert made.batch_size == expected.batch_size
    assert made.__dict__.keys() == expected.__dict__.keys()
    for one, other in zip(made.tensordicts, expected.tensordicts, strict=True):
        assert type(one) is type(other)
        assert one.__dict__.keys() == other.__dict__.keys()
        assert one._non_tensordict == other._non_tensordict
        assert one._tensordict.__dict__ == other._tensordict.__dict__
    for what in (
        lambda stack: stack[1:].tolist(),
        lambda stack: stack[-1].data,
        lambda stack: stack.clone().tolist(),
        lambda stack: torch.cat([stack, stack]).tolist(),
        lambda stack: torch.stack([stack, stack]).tolist(),
        lambda stack: pickle.loads(pickle.dumps(stack)).tolist(),
        lambda stack: copy.deepcopy(stack).tolist(),
        lambda stack: stack.reshape(-1).tolist(),
        lambda stack: [each.tolist() for each in stack.unbind(0)],
        lambda stack: tensordict.TensorDict({"v": stack}, [len(rows)])[:2].get("v").tolist(),
        repr,
    ):
        assert what(made) == what(expected)


def test_rows_of_a_stack_are_independent() -> None:
    made = stacks.stack_of_objects(["a", "b", "c"])
    again = stacks.stack_of_objects(["a", "b", "c"])
    fields = tensordict.TensorDict({"v": made}, [3])
    fields[1] = tensordict.TensorDict({"v": "changed"}, [])
    made.tensordicts[0]._tensordict._tensordict["x"] = 1
    assert fields.get("v").tolist() == ["a", "changed", "c"]
    assert again.tolist() == stacks.stack_of_objects(["a", "b", "c"]).tolist() == ["a", "b", "c"]
    assert "x" not in again.tensordicts[0]._tensordict._tensordict
    fields.lock_()
    assert made.is_locked
    assert not again.is_locked


def test_a_tensordict_that_differs_makes_the_stacks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "_pattern", lambda: None)
    monkeypatch.setattr(stacks, "_is_simple", lambda: False)
    for rows in VALUES.values():
        made = stacks.stack_of_objects(list(rows))
        assert type(made) is tensordict.NonTensorStack
        assert made.tolist() == rows


def test_stacks_are_given_back() -> None:
    """Even those that the garbage collector does not track."""
    for count in (3, 1000):
        held = [{"row": row} for row in range(count)]
        before = [sys.getrefcount(row) for row in held]
        made = stacks.stack_of_objects(list(held))
        assert [sys.getrefcount(row) for row in held] == [each + 1 for each in before]
        del made
        assert [sys.getrefcount(row) for row in held] == before


def test_the_collector_has_nothing_to_visit_in_a_long_stack() -> None:
    """Otherwise it holds the GIL for tens of milliseconds when it is switched on again, which blocks the event loop."""
    gc.collect()
    gc.disable()
    try:
        made = stacks.stack_of_objects([str(row) for row in range(10_000)])
        young = len(gc.get_objects(0))
    finally:
        gc.enable()
    assert len(made) == 10_000
    assert young < 100
