"""A field keeps what was put: rows of any dtype and kind, each unchanged, never cast."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensordict")

from tensordict import NonTensorStack, TensorDict  # noqa: E402

from support.daemons import System  # noqa: E402
from transferq import errors  # noqa: E402

PAIRS = {
    "float beside a number": (torch.tensor(1.5), 0.0),
    "float beside None": (torch.tensor(1.5), None),
    "a list beside a tensor": (torch.tensor([1, 2]), [3, 4]),
    "a NumPy array beside a tensor": (torch.tensor([1, 2]), np.array([3.5, 4.5])),
    "float32 and bfloat16": (
        torch.tensor([1.25, 2.5]),
        torch.tensor([1.25, 2.5], dtype=torch.bfloat16),
    ),
    "int64 and float64": (torch.tensor([2**53 + 1]), torch.tensor([0.1], dtype=torch.float64)),
    "bool and uint8": (torch.tensor([True, False]), torch.tensor([7], dtype=torch.uint8)),
    "text beside a matrix": (torch.ones(2, 3), "é"),
}


def check(got: Any, put: Any) -> None:
    assert type(got) is type(put)
    if isinstance(put, torch.Tensor):
        assert got.dtype == put.dtype
        assert torch.equal(got, put)
    elif isinstance(put, np.ndarray):
        assert got.dtype == put.dtype
        assert np.array_equal(got, put)
    else:
        assert got == put


def check_stack(column: Any, rows: list[Any]) -> None:
    # For a NonTensorStack, `data["x"]` is a list.
    assert isinstance(column, (NonTensorStack, list))
    got = column if isinstance(column, list) else column.tolist()
    assert len(got) == len(rows)
    for one, put in zip(got, rows, strict=True):
        check(one, put)


def check_alone(column: Any, row: Any) -> None:
    """Rows that agree become a tensor; other values a stack."""
    if isinstance(row, torch.Tensor):
        assert isinstance(column, torch.Tensor)
        check(column.unbind()[0], row)
    else:
        check_stack(column, [row])


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_rows_of_two_kinds_put_one_by_one(tq: Any, pid: str, pair: tuple[Any, Any]) -> None:
    for first, second in (pair, pair[::-1]):
        tq.kv_put("a", partition_id=pid, fields={"reward": first})
        tq.kv_put("b", partition_id=pid, fields={"reward": second})
        check_stack(tq.kv_batch_get(["a", "b"], partition_id=pid)["reward"], [first, second])
        check_stack(tq.kv_batch_get(["b", "a"], partition_id=pid)["reward"], [second, first])
        check_alone(tq.kv_batch_get(["a"], partition_id=pid)["reward"], first)
        check_alone(tq.kv_batch_get(["b"], partition_id=pid)["reward"], second)
        tq.kv_clear(["a", "b"], partition_id=pid)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_rows_of_two_kinds_in_one_batch(client: Any, pid: str, pair: tuple[Any, Any]) -> None:
    meta = client.put({"x": list(pair)}, partition_id=pid)
    check_stack(client.get_data(meta)["x"], list(pair))
    for place in range(2):
        check_alone(client.get_data(meta[place : place + 1])["x"], pair[place])
    check_stack(client.get_data(pickle.loads(pickle.dumps(meta)))["x"], list(pair))
    for layout in ("dense", "padded"):
        check_stack(client.get_data(meta, layout=layout)["x"], list(pair))
    check_stack(client.get_data(meta, zero_copy=True)["x"], list(pair))


def test_rows_of_two_kinds_by_the_async_form(tq: Any, pid: str) -> None:
    async def both() -> Any:
        await tq.async_kv_put("a", partition_id=pid, fields={"x": torch.tensor(1.5)})
        await tq.async_kv_put("b", partition_id=pid, fields={"x": None})
        return await tq.async_kv_batch_get(["a", "b"], partition_id=pid)

    check_stack(asyncio.run(both())["x"], [torch.tensor(1.5), None])


def test_an_empty_response_reads_as_the_dtype_of_its_field(tq: Any, pid: str) -> None:
    tq.kv_put("first", partition_id=pid, fields={"response": torch.tensor([])})
    tq.kv_put("a", partition_id=pid, fields={"response": torch.tensor([1, 2])})
    tq.kv_put("b", partition_id=pid, fields={"response": torch.tensor([])})
    column = tq.kv_batch_get(["first", "a", "b"], partition_id=pid)["response"]
    assert column.layout == torch.jagged
    assert column.dtype == torch.int64
    assert [row.tolist() for row in column.unbind()] == [[], [1, 2], []]
    for key in ("first", "b"):
        alone = tq.kv_batch_get([key], partition_id=pid)["response"]
        assert (alone.layout, alone.dtype) == (torch.jagged, torch.int64)


def test_an_empty_response_in_the_batch_of_the_others(client: Any, pid: str) -> None:
    rows = [torch.tensor([]), torch.tensor([1, 2, 3])]
    meta = client.put({"response": rows}, partition_id=pid)
    for read in (meta, client.get_meta(["response"], 2, pid, task_name="t")):
        column = client.get_data(read)["response"]
        assert (column.layout, column.dtype) == (torch.jagged, torch.int64)
        assert read.field_schema["response"]["dtype"] == torch.int64


def test_a_key_put_again_with_another_dtype(tq: Any, pid: str) -> None:
    for row in (torch.tensor([1, 2]), torch.tensor([1.5]), "text", torch.tensor([True])):
        tq.kv_put("a", partition_id=pid, fields={"x": row})
        check_alone(tq.kv_batch_get(["a"], partition_id=pid)["x"], row)


def test_a_field_whose_rows_are_all_replaced_changes_its_dtype(client: Any, pid: str) -> None:
    meta = client.put({"x": torch.ones(3, 2)}, partition_id=pid)
    client.put({"x": torch.ones(3, 2, dtype=torch.int32)}, metadata=meta)
    read = client.get_meta(["x"], 3, pid, task_name="t")
    assert read.field_schema["x"]["dtype"] == torch.int32
    assert read.field_schema["x"]["is_nested"] is False
    assert client.get_data(read, layout="dense")["x"].dtype == torch.int32


def test_metadata_of_rows_that_differ(client: Any, pid: str) -> None:
    rows = [torch.ones(2), None, torch.ones(3, dtype=torch.int8)]
    meta = client.put({"x": rows}, partition_id=pid)
    dtypes = [torch.float32, None, torch.int8]
    assert meta.get_dtypes("x") == dtypes
    assert [None if shape is None else tuple(shape) for shape in meta.get_shapes("x")] == [
        (2,),
        None,
        (3,),
    ]
    schema = meta.field_schema["x"]
    assert (schema["is_non_tensor"], schema["is_nested"], schema["dtype"]) == (True, False, None)
    assert meta[2:].field_schema["x"]["dtype"] == torch.int8
    assert meta[2:].get_dtypes("x") == [torch.int8]
    assert meta.production_status.tolist() == [1, 1, 1]
    parts = meta.chunk(3)
    assert [part.get_dtypes("x")[0] for part in parts] == dtypes
    again = type(meta).concat(parts)
    assert again.get_dtypes("x") == dtypes
    check_stack(client.get_data(again)["x"], rows)
    check_stack(client.get_data(meta.union(meta))["x"], rows)
    check_stack(client.get_data(meta.select_samples([2, 0]))["x"], [rows[2], rows[0]])


def test_claims_of_rows_that_differ_are_joined(client: Any, pid: str) -> None:
    rows = [torch.ones(2), torch.ones(2, dtype=torch.int64)]
    for row in rows:
        client.put({"x": [row]}, partition_id=pid)
    claims = [client.get_meta(["x"], 1, pid, task_name="t") for _ in rows]
    for claim, row in zip(claims, rows, strict=True):
        check_alone(client.get_data(claim)["x"], row)
    check_stack(client.get_data(type(claims[0]).concat(claims))["x"], rows)


def test_a_data_parser_may_give_rows_that_differ(client: Any, pid: str) -> None:
    def parse(data: Any) -> Any:
        return {"raw": [torch.tensor([1]), "two"]}

    meta = client.put({"raw": ["a", "b"]}, partition_id=pid, data_parser=parse)
    check_stack(client.get_data(meta)["raw"], [torch.tensor([1]), "two"])


def test_a_checkpoint_keeps_what_each_row_is(tq: Any, pid: str, tmp_path: Path) -> None:
    rows = {
        "a": torch.tensor([1.5, 2.5]),
        "b": {"map": [1, None]},
        "c": torch.ones(2, 2, dtype=torch.bfloat16),
        "d": torch.tensor([], dtype=torch.int16),
        "e": torch.tensor([3.5]),
    }
    for key, row in rows.items():
        tq.kv_put(key, partition_id=pid, fields={"x": row})
    read = tq.kv_batch_get(list(rows), partition_id=pid)["x"]
    tq.save_checkpoint(str(tmp_path / "saved"))
    tq.kv_clear(list(rows), partition_id=pid)
    tq.load_checkpoint(str(tmp_path / "saved"))
    check_stack(tq.kv_batch_get(list(rows), partition_id=pid)["x"], read)
    both = tq.kv_batch_get(["a", "e"], partition_id=pid)["x"]
    assert (both.layout, both.dtype) == (torch.jagged, torch.float32)
    tq.kv_put("f", partition_id=pid, fields={"x": torch.tensor([1])})
    check_stack(tq.kv_batch_get(["f", "a"], partition_id=pid)["x"], [torch.tensor([1]), rows["a"]])


def test_a_tensordict_with_rows_that_differ(tq: Any, pid: str) -> None:
    rows = [torch.tensor([1.0]), None]
    fields = TensorDict({"x": NonTensorStack(*rows)}, batch_size=[2])
    tq.kv_batch_put(["a", "b"], partition_id=pid, fields=fields)
    check_stack(tq.kv_batch_get(["a", "b"], partition_id=pid)["x"], rows)
    check_alone(tq.kv_batch_get(["a"], partition_id=pid)["x"], rows[0])


def test_strict_schemas_refuse_another_dtype_and_another_kind(tmp_path: Path) -> None:
    with contextlib.closing(System(tmp_path)) as system:
        system.start(settings=["controller.strict_schema=true"])
        client = system.client()
        meta = client.put({"x": torch.ones(2)}, partition_id="p")
        for row in (torch.ones(1, dtype=torch.int64), ["text"]):
            with pytest.raises(errors.DtypeError, match=r"'x'.*float32"):
                client.put({"x": row}, partition_id="p")
        with pytest.raises(errors.DtypeError, match="'x'"):
            client.put({"x": torch.ones(2).int()}, metadata=meta)
        with pytest.raises(errors.DtypeError, match="'y'"):
            client.put({"y": [torch.ones(1), None]}, partition_id="p")
        assert client.get_data(meta)["x"].tolist() == [1.0, 1.0]


def test_the_command_line_shows_what_each_row_is(tmp_path: Path) -> None:
    with contextlib.closing(System(tmp_path)) as system:
        system.start()
        system.client().put({"x": [torch.tensor([1.5]), "text"]}, partition_id="p")
        (field,) = system.status()["partitions"][0]["fields"]
        assert (field["dtype"], field["produced"]) == ("mixed", 2)
        assert "mixed" in system.tq("status")
        shown = system.tq("get", "p")
        assert "float32" in shown and "[1.5]" in shown
        assert "value" in shown and "text" in shown
