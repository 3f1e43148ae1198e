"""What users put and what they read: the tables in support/typed_values.py, and cases that do not fit into them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import NonTensorStack, TensorDict

from support.typed_values import (
    COLUMNS,
    DTYPES,
    JAGGED,
    TENSORS,
    VALUES,
    filled,
    row,
    same,
    same_column,
)


def column_of(tq: Any, pid: str, column: Any, n: int) -> Any:
    """A column after a round trip."""
    keys = [f"k{i}" for i in range(n)]
    tq.kv_batch_put(keys, pid, TensorDict({"x": column}, batch_size=[n]))
    data = tq.kv_batch_get(keys, pid)
    assert data.batch_size == (n,)
    return data.get("x")


# --- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(tq: Any, pid: str, name: str) -> None:
    dtype = getattr(torch, name, None)
    if dtype is None:
        assert name == "float4_e2m1fn_x2"  # exists only in newer versions of torch
        return
    uniform = filled(dtype, (4, 3))
    got = column_of(tq, pid, uniform, 4)
    assert got.layout == JAGGED
    assert got.offsets().tolist() == [0, 3, 6, 9, 12]
    same(list(got.unbind()), list(uniform.unbind()))
    tq.get_client().clear_partition(pid)
    scalars = filled(dtype, (4,))
    got = column_of(tq, pid, scalars, 4)
    assert not got.is_nested
    same(got, scalars)
    tq.get_client().clear_partition(pid)
    values, offsets = filled(dtype, (6,)), torch.tensor([0, 2, 2, 6])
    got = column_of(tq, pid, torch.nested.nested_tensor_from_jagged(values, offsets), 3)
    assert got.layout == JAGGED
    same(list(got.unbind()), [values[:2], values[2:2], values[2:]])
    tq.kv_put("one", pid, fields={"y": {"inside": uniform}})
    same(tq.kv_batch_get("one", pid).get("y").tolist(), [{"inside": uniform}])


@pytest.mark.parametrize("name", TENSORS)
def test_tensors(tq: Any, pid: str, name: str) -> None:
    make, layout, expected = TENSORS[name]
    if name == "lists" and version("tensordict").startswith("0.10."):
        pytest.skip("this tensordict takes no list with an empty list in it")
    same_column(column_of(tq, pid, make(), len(expected)), layout, expected)


def test_tensors_of_other_layouts_are_objects(tq: Any, pid: str) -> None:
    sparse = torch.eye(2).to_sparse()
    tq.kv_put("k", pid, fields={"s": sparse, "m": {"s": sparse}})
    data = tq.kv_batch_get("k", pid)
    for got in (data.get("s").tolist()[0], data.get("m").tolist()[0]["s"]):
        assert got.layout == torch.sparse_coo
        assert torch.equal(got.to_dense(), torch.eye(2))


@pytest.mark.parametrize("value", ["column", "inside"])
def test_tensors_without_data_are_refused(tq: Any, pid: str, value: str) -> None:
    nothing = torch.ones(2, 3, device="meta")
    with pytest.raises(ValueError, match="field 'x': a tensor on the meta device"):
        tq.kv_put("k", pid, fields={"x": nothing if value == "column" else [nothing]})
    assert pid not in tq.get_client().get_partition_list()


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALUES)
def test_values(tq: Any, pid: str, name: str) -> None:
    value, expected = VALUES[name]
    tq.kv_put("k", pid, fields={"x": value})
    got = tq.kv_batch_get("k", pid)
    stack = got.get("x")
    assert type(stack) is NonTensorStack
    assert stack.batch_size == (1,)
    same(stack.tolist()[0], expected)


def test_pictures(tq: Any, pid: str) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    got = column_of(tq, pid, NonTensorStack(picture, picture), 2).tolist()
    assert [type(one) for one in got] == [type(picture)] * 2
    assert got[1].tobytes() == picture.tobytes()


def test_masks_are_kept(tq: Any, pid: str, client: Any) -> None:
    masked = np.ma.array([1, 2, 3], mask=[0, 1, 0])
    fields = {"column": masked, "rows": [masked] * 3, "inside": [{"m": masked}] * 3}
    data = client.get_data(client.put(fields, partition_id=pid))
    assert [np.ma.is_masked(value) for value in data.get("column").tolist()] == [False, True, False]
    for got in (data.get("rows").tolist()[0], data.get("inside").tolist()[0]["m"]):
        assert got.mask.tolist() == [False, True, False]
        assert got.tolist() == [1, None, 3]


@pytest.mark.parametrize(("column", "expected"), COLUMNS)
def test_columns_of_values(tq: Any, pid: str, column: Any, expected: list[Any]) -> None:
    got = column_of(tq, pid, column, 2)
    assert type(got) is NonTensorStack
    same(got.tolist(), expected)


def test_columns_of_tensordicts(tq: Any, pid: str) -> None:
    """Better: TransferQueue stores them, but cannot read them back."""
    column = TensorDict(
        {"a": row(2, 3), "t": NonTensorStack("x", "y"), "deep": TensorDict({"b": row(2)}, [2])}, [2]
    )
    got = column_of(tq, pid, column, 2)
    assert got.batch_size == (2,)
    same(got["a"], row(2, 3))
    assert list(got["t"]) == ["x", "y"]
    same(got["deep", "b"], row(2))
    tq.kv_put("one", pid, fields={"y": TensorDict({"a": row(2, 3)}, [2])})
    got = tq.kv_batch_get("one", pid).get("y")
    assert got.batch_size == (1, 2)
    tq.kv_batch_put(["a", "b"], pid, {"z": [TensorDict({"a": row(1)}, []), "text"]})
    rows = tq.kv_batch_get(["a", "b"], pid).get("z").tolist()
    same(rows[0]["a"], row(1))
    assert rows[1] == "text"


# --- bounds ---------------------------------------------------------------------------------------


def deep(levels: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if kind is dict else [value]
    return value


@pytest.mark.parametrize("kind", [dict, list])
def test_too_deep_is_refused_before_anything_is_stored(tq: Any, pid: str, kind: type) -> None:
    client = tq.get_client()
    with pytest.raises(TypeError, match="tag 't': nested more than 64 levels deep"):
        tq.kv_put("k", pid, tag={"ok": 1, "t": deep(600, kind)}, fields={"x": row(2)})
    with pytest.raises(TypeError, match="field 'x': a value is nested too deep"):
        tq.kv_put("k", pid, tag={"ok": 1}, fields={"x": deep(5000, kind)})
    around: list[Any] = []
    around.append(around)
    with pytest.raises(TypeError, match="tag 't'"):
        tq.kv_put("k", pid, tag={"t": around})
    assert pid not in client.get_partition_list()
    tq.kv_put("k", pid, tag={"t": deep(64, kind)}, fields={"x": deep(200, kind)})
    assert tq.kv_list(pid)[pid]["k"] == {"t": deep(64, kind)}
    assert tq.kv_batch_get("k", pid).get("x").tolist() == [deep(200, kind)]


def test_tags_of_many_names(tq: Any, pid: str) -> None:
    keys = [f"k{i}" for i in range(1000)]
    tags = [{f"tag{i}": i, "common": str(i)} for i in range(1000)]
    tq.kv_batch_put(keys, pid, tags=tags)
    assert tq.kv_list(pid)[pid] == dict(zip(keys, tags, strict=True))
