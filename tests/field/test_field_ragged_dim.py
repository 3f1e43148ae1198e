"""The dim in which rows differ is a property of their field: it does not depend on which rows are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensordict")

from tensordict import TensorDict  # noqa: E402


def positions(length: int) -> Any:
    """Position ids of one sample, as in multimodal models: four channels, ragged in the last dim."""
    return torch.arange(4 * length).reshape(4, length)


ROWS = {"a": positions(7), "b": positions(5), "c": positions(7)}


def subsets() -> Iterator[list[str]]:
    yield from (["a"], ["b"], ["c"], ["a", "c"], ["a", "b"], ["c", "b", "a"], ["a", "a"])


def check(column: Any, rows: list[Any], ragged_dim: int = 2) -> None:
    assert column.layout == torch.jagged
    assert column._ragged_idx == ragged_dim
    assert column.size(0) == len(rows)
    assert column.offsets().tolist() == [
        sum(row.shape[ragged_dim - 1] for row in rows[:end]) for end in range(len(rows) + 1)
    ]
    for got, put in zip(column.unbind(), rows, strict=True):
        assert got.dtype == put.dtype
        assert torch.equal(got, put)


def test_position_ids_keep_their_ragged_dim_whichever_rows_are_read(tq: Any, pid: str) -> None:
    for key, row in ROWS.items():
        tq.kv_put(key, partition_id=pid, fields={"position_ids": row})
    for keys in subsets():
        got = tq.kv_batch_get(keys, partition_id=pid)["position_ids"]
        check(got, [ROWS[key] for key in keys])


def test_metadata_cut_in_pieces_reads_with_the_ragged_dim_of_the_field(
    client: Any, pid: str
) -> None:
    rows = list(ROWS.values())
    meta = client.put({"position_ids": rows}, partition_id=pid)
    for place in range(3):
        check(client.get_data(meta[place : place + 1])["position_ids"], rows[place : place + 1])
    # What a put learns about a field that existed before it.
    late = client.put({"position_ids": [positions(7)]}, partition_id=pid)
    check(client.get_data(late)["position_ids"], [positions(7)])
    claimed = client.get_meta(["position_ids"], 1, pid, task_name="t")
    check(client.get_data(claimed)["position_ids"], rows[:1])
    two = client.get_meta(["position_ids"], 1, pid, task_name="t")
    joined = type(two).concat([claimed, two])
    check(client.get_data(joined)["position_ids"], rows[:2])


def test_a_nested_tensor_names_its_ragged_dim(tq: Any, pid: str) -> None:
    values = torch.arange(24).reshape(4, 6)
    nested = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 3, 6]), jagged_dim=2)
    tq.kv_batch_put(
        ["a", "b"], partition_id=pid, fields=TensorDict({"ids": nested}, batch_size=[2])
    )
    for keys in (["a"], ["b"], ["b", "a"]):
        rows = [nested.unbind()[ord(key) - ord("a")] for key in keys]
        check(tq.kv_batch_get(keys, partition_id=pid)["ids"], rows)


def test_the_first_dim_is_not_named_where_torch_could_not_know_better(tq: Any, pid: str) -> None:
    # as_nested_tensor takes the first dim if all rows agree.
    for key in ("a", "b"):
        nested = torch.nested.as_nested_tensor([ROWS[key]], layout=torch.jagged)
        assert nested._ragged_idx == 1
        tq.kv_batch_put([key], partition_id=pid, fields=TensorDict({"ids": nested}, batch_size=[1]))
    check(tq.kv_batch_get(["a"], partition_id=pid)["ids"], [ROWS["a"]])
    check(tq.kv_batch_get(["a", "b"], partition_id=pid)["ids"], [ROWS["a"], ROWS["b"]])


def test_rows_that_agree_are_ragged_in_their_first_dim(tq: Any, pid: str) -> None:
    for key in ("a", "c"):
        tq.kv_put(key, partition_id=pid, fields={"ids": ROWS[key]})
    check(tq.kv_batch_get(["a", "c"], partition_id=pid)["ids"], [ROWS["a"], ROWS["c"]], 1)


def test_rows_that_differ_in_two_dims_are_strided_also_one_by_one(tq: Any, pid: str) -> None:
    rows = {"a": torch.ones(2, 3), "b": torch.ones(3, 4), "c": torch.ones(2, 3)}
    for key, row in rows.items():
        tq.kv_put(key, partition_id=pid, fields={"x": row})
    for keys in (["a"], ["a", "b"], ["a", "c"]):
        got = tq.kv_batch_get(keys, partition_id=pid)["x"]
        assert got.is_nested and got.layout == torch.strided
        assert [tuple(row.shape) for row in got.unbind()] == [
            tuple(rows[key].shape) for key in keys
        ]


def test_the_ragged_dim_is_forgotten_with_the_last_row(tq: Any, pid: str) -> None:
    for key in ("a", "b"):
        tq.kv_put(key, partition_id=pid, fields={"ids": ROWS[key]})
    tq.kv_clear(["a", "b"], partition_id=pid)
    tq.kv_put("c", partition_id=pid, fields={"ids": ROWS["c"]})
    check(tq.kv_batch_get(["c"], partition_id=pid)["ids"], [ROWS["c"]], 1)


def test_a_checkpoint_keeps_the_ragged_dim(tq: Any, pid: str, tmp_path: Path) -> None:
    for key, row in ROWS.items():
        tq.kv_put(key, partition_id=pid, fields={"ids": row})
    tq.kv_clear(["b"], partition_id=pid)  # from here on only the schema knows
    tq.save_checkpoint(str(tmp_path / "saved"))
    tq.kv_clear(["a", "c"], partition_id=pid)
    tq.load_checkpoint(str(tmp_path / "saved"))
    check(tq.kv_batch_get(["a"], partition_id=pid)["ids"], [ROWS["a"]])
    check(tq.kv_batch_get(["a", "c"], partition_id=pid)["ids"], [ROWS["a"], ROWS["c"]])


@pytest.mark.parametrize("layout", ["dense", "padded"])
def test_other_layouts_of_rows_with_an_inner_ragged_dim(client: Any, pid: str, layout: str) -> None:
    meta = client.put({"ids": list(ROWS.values())}, partition_id=pid)
    got = client.get_data(meta, layout=layout)["ids"]
    if layout == "dense":
        check(got, list(ROWS.values()))
        assert client.get_data(meta[:1], layout=layout)["ids"].shape == (1, 4, 7)
        return
    assert got.shape == (3, 4, 7)
    for row, put in zip(got, ROWS.values(), strict=True):
        assert torch.equal(row[:, : put.shape[1]], put)
        assert not row[:, put.shape[1] :].any()


def test_micro_batches_keep_the_ragged_dim(tq: Any, pid: str) -> None:
    from transferq.streaming import chunk_batch_fn

    client = tq.get_client()
    meta = client.put({"ids": [positions(3), positions(3), positions(4)]}, partition_id=pid)
    parts = list(chunk_batch_fn(client.get_data(meta), meta, 1))
    assert [part["ids"]._ragged_idx for part, _ in parts] == [2, 2, 2]
    check(parts[1][0]["ids"], [positions(3)])
