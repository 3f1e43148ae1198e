"""Results of reads: kinds, dtypes, shapes and values of every kind of column."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from transferq import _core

torch = pytest.importorskip("torch")
tensordict = pytest.importorskip("tensordict")
TensorDict, NonTensorStack = tensordict.TensorDict, tensordict.NonTensorStack

DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
    "complex64", "complex128", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


def keys(n: int) -> list[str]:
    return [f"k{i}" for i in range(n)]


def stored(tq: Any, pid: str, column: Any, n: int) -> Any:
    """The column after a round trip."""
    tq.kv_batch_put(keys(n), pid, TensorDict({"x": column}, batch_size=[n]))
    data = tq.kv_batch_get(keys(n), pid)
    assert data.batch_size == (n,)
    return data["x"]


def same(rows: Any, expected: list[Any]) -> None:
    got = list(rows.unbind()) if isinstance(rows, torch.Tensor) else list(rows)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert torch.equal(
            one.contiguous().view(-1).view(torch.uint8),
            other.contiguous().view(-1).view(torch.uint8),
        )


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(tq: Any, pid: str, name: str) -> None:
    dtype = getattr(torch, name)
    column = torch.arange(12).reshape(4, 3).to(dtype)
    got = stored(tq, pid, column, 4)
    assert got.is_nested
    assert got.layout == torch.jagged
    assert got.offsets().tolist() == [0, 3, 6, 9, 12]
    same(got, list(column))


def test_rows_without_dims_are_dense(tq: Any, pid: str) -> None:
    got = stored(tq, pid, torch.tensor([1.5, 2.5, -3.0]), 3)
    assert not got.is_nested
    assert got.tolist() == [1.5, 2.5, -3.0]


@pytest.mark.parametrize(
    "shapes",
    [
        [(3,), (5,), (1,)],
        [(0,), (4,), (0,)],
        [(0,), (0,)],
        [(2, 3, 4), (5, 3, 4)],
        [(0, 2), (3, 2)],
        [(2, 3), (2, 4)],
        [(1,)],
        [(2, 0), (3, 0)],
    ],
)
def test_ragged_rows_are_jagged(tq: Any, pid: str, shapes: list[tuple[int, ...]]) -> None:
    rows = [torch.randn(shape) for shape in shapes]
    for column in (NonTensorStack(*rows), torch.nested.as_nested_tensor(rows, layout=torch.jagged)):
        got = stored(tq, pid, column, len(rows))
        assert got.is_nested
        assert got.layout == torch.jagged
        same(got, rows)


def test_rows_that_cannot_be_jagged(tq: Any, pid: str) -> None:
    rows = [torch.randn(2, 3), torch.randn(4, 5)]
    got = stored(tq, pid, torch.nested.as_nested_tensor(rows, layout=torch.strided), 2)
    assert got.is_nested
    assert got.layout == torch.strided
    same(got, rows)
    rows = [torch.randn(2, 3), torch.randn(4)]
    tq.get_client().clear_partition(pid)
    same(stored(tq, pid, NonTensorStack(*rows), 2), rows)


def test_views_are_stored_as_they_look(tq: Any, pid: str) -> None:
    base = torch.arange(48).reshape(4, 3, 4)
    for column in (
        base.transpose(1, 2),
        base[:, ::2],
        base[:, :, 1:],
        base.flip(0),
        base[:, 0].expand(4, 4),
    ):
        same(stored(tq, pid, column, 4), list(column))
        tq.get_client().clear_partition(pid)
    nested = torch.nested.nested_tensor_from_jagged(torch.arange(10.0), torch.tensor([2, 5, 9]))
    same(stored(tq, pid, nested, 2), [torch.arange(2.0, 5.0), torch.arange(5.0, 9.0)])


def test_grad_parameters_and_conjugates(tq: Any, pid: str) -> None:
    column = torch.nn.Parameter(torch.ones(2, 3))
    got = stored(tq, pid, column * 2, 2)
    assert not got.requires_grad
    same(got, [torch.full((3,), 2.0)] * 2)
    tq.get_client().clear_partition(pid)
    conjugate = torch.tensor([[1 + 2j], [3 - 1j]]).conj()
    assert [complex(row) for row in stored(tq, pid, conjugate, 2).unbind()] == [1 - 2j, 3 + 1j]


@pytest.mark.parametrize(
    "rows",
    [
        ["a", "", "é" * 1000],
        [[1, 2], [], ["x"]],
        [{"a": 1}, {}, {"t": [None]}],
        [None, b"bytes", 2.5],
        [[(1, 2)], [{1}], [3]],
    ],
)
def test_values_come_back_as_a_stack(tq: Any, pid: str, rows: list[Any]) -> None:
    expected = [[[1, 2]], [[1]], [3]] if rows[0] == [(1, 2)] else rows
    tq.kv_batch_put(keys(3), pid, {"x": rows})
    data = tq.kv_batch_get(keys(3), pid)
    assert data.batch_size == (3,)
    stack = data.get("x")
    assert type(stack).__name__ == "NonTensorStack"
    assert stack.tolist() == expected


def test_rows_that_mix_tensors_and_objects(tq: Any, pid: str) -> None:
    got = stored(tq, pid, NonTensorStack(torch.ones(2), "text", {"t": torch.zeros(1)}), 3)
    assert torch.equal(got[0], torch.ones(2))
    assert got[1] == "text"
    assert torch.equal(got[2]["t"], torch.zeros(1))


def test_object_arrays_and_arrays(tq: Any, pid: str) -> None:
    tq.kv_batch_put(
        keys(3), pid, {"o": np.array(["a", 1, None], dtype=object), "n": np.arange(6).reshape(3, 2)}
    )
    data = tq.kv_batch_get(keys(3), pid)
    assert list(data["o"]) == ["a", 1, None]
    same(data["n"], list(torch.arange(6).reshape(3, 2)))


def test_kv_put_of_a_dict(tq: Any, pid: str) -> None:
    fields = {
        "tensor": torch.arange(3),
        "scalar": torch.tensor(2.0),
        "text": "hello",
        "map": {"a": [1]},
        "list": [1, 2],
        "array": np.ones(2),
        "none": None,
    }
    tq.kv_put("k", pid, fields=fields)
    data = tq.kv_batch_get("k", pid)
    same(data["tensor"], [torch.arange(3)])
    assert data["scalar"].tolist() == [2.0]
    values = {name: data.get(name).tolist()[0] for name in ("text", "map", "list", "none")}
    assert values == {"text": "hello", "map": {"a": [1]}, "list": [1, 2], "none": None}
    assert data.get("array").tolist()[0].tolist() == [1, 1]
    with pytest.raises(ValueError, match="'n': a nested tensor"):
        tq.kv_put(
            "k",
            pid,
            fields={"n": torch.nested.as_nested_tensor([torch.ones(1)], layout=torch.jagged)},
        )


def test_rows_are_writable_and_independent(tq: Any, pid: str) -> None:
    column = torch.ones(2, 3)
    tq.kv_batch_put(keys(2), pid, TensorDict({"x": column}, batch_size=[2]))
    column.fill_(7)
    first, second = (tq.kv_batch_get(keys(2), pid)["x"] for _ in range(2))
    first.values().fill_(5)
    same(second, [torch.ones(3)] * 2)
    same(tq.kv_batch_get(keys(2), pid)["x"], [torch.ones(3)] * 2)
    twice = tq.kv_batch_get(["k0", "k0"], pid)["x"].unbind()
    twice[0].fill_(9)
    assert torch.equal(twice[1], torch.ones(3))


def test_memory_is_given_back_with_the_last_view(tq: Any, pid: str) -> None:
    gc.collect()
    before = _core.live()
    row = stored(tq, pid, torch.arange(2000.0).reshape(2, 1000), 2).unbind()[1]
    gc.collect()
    assert _core.live()["data"] > before["data"]
    assert row[0] == 1000
    del row
    gc.collect()
    assert _core.live() == before


def test_large_batches(tq: Any, pid: str) -> None:
    n = 2000
    rows = [torch.full((i % 7,), i, dtype=torch.int32) for i in range(n)]
    fields = TensorDict(
        {"r": torch.nested.as_nested_tensor(rows, layout=torch.jagged), "d": torch.randn(n, 64)},
        [n],
    )
    tq.kv_batch_put(keys(n), pid, fields)
    order = keys(n)[::-1]
    data = tq.kv_batch_get(order, pid)
    same(data["r"], rows[::-1])
    same(data["d"], list(fields["d"].flip(0)))


def test_empty_reads(tq: Any, client: Any, pid: str) -> None:
    assert client.get_data(tq.BatchMeta()).batch_size == (0,)
    assert client.get_data(None).batch_size == (0,)
    tq.kv_put("k", pid, fields={"x": torch.ones(1)})
    assert tq.kv_batch_get("k", pid, select_fields=["nothing"]).batch_size == (0,)
