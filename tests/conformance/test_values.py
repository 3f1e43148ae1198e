"""Every type of value comes back the same from every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image as image
import pytest
import torch
from tensordict import NonTensorStack, TensorDict

import transferq
from support.typed_values import (
    COLUMNS,
    DTYPES,
    JAGGED,
    SIMPLER,
    TENSORS,
    VALUES,
    filled,
    row,
    same,
    same_column,
)

from .backend import Backend


class Rounds:
    """Columns put and read under separate keys; differences are recorded."""

    def __init__(self, pid: str) -> None:
        self.pid = pid
        self.problems: list[str] = []
        self.rounds = 0

    def trip(self, column: Any, n: int) -> Any:
        """The column after a round trip, as a separate field."""
        self.rounds += 1
        keys = [f"{self.rounds}-{i}" for i in range(n)]
        field = f"f{self.rounds}"
        transferq.kv_batch_put(keys, self.pid, TensorDict({field: column}, batch_size=[n]))
        data = transferq.kv_batch_get(keys, self.pid, select_fields=[field])
        assert data.batch_size == (n,)
        return data.get(field)

    def check(self, name: str, column: Any, layout: Any, expected: list[Any]) -> None:
        """Make a round trip, and check the result."""
        try:
            same_column(self.trip(column, len(expected)), layout, expected)
        except Exception as error:  # noqa: BLE001 - try the whole table
            self.problems.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")


@pytest.fixture
def rounds(pid: str) -> Any:
    """Fails with all differences."""
    made = Rounds(pid)
    yield made
    assert made.rounds > 0
    assert not made.problems, "\n".join(made.problems)


def test_rows_that_differ_in_dtype_and_kind(backend: Backend, pid: str) -> None:
    """Each row is the row that was put, whichever rows are read with it; an empty tensor has its field's dtype."""
    rows = {
        "float": torch.tensor([1.5, 2.5]),
        "value": {"a": [1, None]},
        "none": None,
        "half": torch.tensor([0.5], dtype=torch.bfloat16),
        "float again": torch.ones(3),
    }
    for key, put in rows.items():
        transferq.kv_put(key, pid, fields={"x": put})
    stack = transferq.kv_batch_get(list(rows), pid).get("x")
    assert isinstance(stack, NonTensorStack)
    for got, put in zip(stack.tolist(), rows.values(), strict=True):
        same(got, put)
    floats = transferq.kv_batch_get(["float", "float again"], pid).get("x")
    same_column(floats, torch.jagged, [rows["float"], rows["float again"]])
    same_column(transferq.kv_batch_get(["half"], pid).get("x"), torch.jagged, [rows["half"]])
    transferq.kv_put("empty", pid, fields={"y": torch.tensor([])})
    transferq.kv_put("full", pid, fields={"y": torch.tensor([1, 2])})
    read = transferq.kv_batch_get(["empty", "full"], pid).get("y")
    same_column(read, torch.jagged, [torch.tensor([], dtype=torch.int64), torch.tensor([1, 2])])


def test_the_ragged_dim_is_that_of_the_field(backend: Backend, pid: str) -> None:
    """Rows of (2, L) are ragged in dim 2, even if the rows that are read have equal lengths."""
    for key, length in (("a", 3), ("b", 5)):
        transferq.kv_put(key, pid, fields={"x": torch.arange(2 * length).reshape(2, length)})
    for keys in (["a"], ["a", "b"], ["b", "b"]):
        assert transferq.kv_batch_get(keys, pid).get("x")._ragged_idx == 2


def test_dtypes(backend: Backend, rounds: Rounds) -> None:
    """Uniform rows, scalars and ragged rows of every dtype of torch."""
    for name in DTYPES:
        dtype = getattr(torch, name, None)
        if dtype is None:
            continue  # exists only in newer versions of torch
        uniform, values = filled(dtype, (4, 3)), filled(dtype, (6,))
        ragged = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 2, 2, 6]))
        rounds.check(name, uniform, JAGGED, list(uniform.unbind()))
        rounds.check(f"{name}, scalars", filled(dtype, (4,)), None, list(filled(dtype, (4,))))
        rounds.check(f"{name}, ragged", ragged, JAGGED, [values[:2], values[2:2], values[2:]])


def test_tensors(backend: Backend, rounds: Rounds) -> None:
    """Every layout of columns of tensors."""
    for name, (make, layout, expected) in TENSORS.items():
        rounds.check(name, make(), layout, expected)


def test_values(backend: Backend, rounds: Rounds) -> None:
    """Values that are not tensors; a store that keeps objects as they are may also keep their types."""
    for name, (value, expected) in VALUES.items():
        if name in SIMPLER and not backend.encodes:
            continue
        rounds.check(name, NonTensorStack(value), "stack", [expected])


def test_columns(backend: Backend, rounds: Rounds) -> None:
    """Columns of values: arrays, tuples, stacks."""
    for number, (column, expected) in enumerate(COLUMNS):
        rounds.check(f"column {number}", column, "stack", expected)


def test_tensordicts(backend: Backend, pid: str) -> None:
    """Columns of TensorDicts, and maps with tensors inside."""
    column = TensorDict({"a": row(2, 3), "deep": TensorDict({"b": row(2)}, [2])}, [2])
    transferq.kv_batch_put(["a", "b"], pid, TensorDict({"x": column}, [2]))
    got = transferq.kv_batch_get(["a", "b"], pid).get("x")
    same(got["a"], row(2, 3))
    same(got["deep", "b"], row(2))
    inside = {"t": row(2), "n": np.arange(3)}
    transferq.kv_put("c", pid, fields={"y": inside})
    same(transferq.kv_batch_get("c", pid).get("y").tolist(), [inside])


def test_pictures(backend: Backend, pid: str) -> None:
    """Objects of a library that is unrelated to the queue."""
    picture = image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    transferq.kv_batch_put(
        ["a", "b"], pid, TensorDict({"x": NonTensorStack(picture, picture)}, [2])
    )
    got = transferq.kv_batch_get(["a", "b"], pid).get("x").tolist()
    assert [type(one) for one in got] == [type(picture)] * 2
    assert got[1].tobytes() == picture.tobytes()


def test_layouts(backend: Backend, pid: str) -> None:
    """A read chooses the layout of its columns."""
    ragged = torch.nested.as_nested_tensor([row(2), row(0), row(3)], layout=JAGGED)
    meta = transferq.get_client().put({"x": ragged, "y": row(3, 2)}, partition_id=pid)
    data = transferq.get_client().get_data(meta, layout={"x": "padded", "y": "dense"})
    same(data["x"], torch.tensor([[0.0, 1, 0], [0, 0, 0], [0, 1, 2]]))
    same(data["y"], row(3, 2))
