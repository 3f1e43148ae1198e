"""Samples by key: the guarantees of the calls."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from transferq import errors

torch = pytest.importorskip("torch")
tensordict = pytest.importorskip("tensordict")


def one(value: float) -> dict[str, Any]:
    return {"x": torch.tensor([float(value)])}


def test_puts_merge_fields_by_key(tq: Any, pid: str) -> None:
    first = tq.kv_put("k", pid, fields={"b": torch.ones(1)})
    assert (first.keys, first.fields, first.partition_id) == (["k"], ["b"], pid)
    second = tq.kv_put("k", pid, fields={"a": torch.ones(1)})
    assert second.fields == ["a", "b"]
    assert sorted(tq.kv_batch_get("k", pid).keys()) == ["a", "b"]
    other = tq.kv_batch_put(["k", "new"], pid, {"a": np.zeros((2, 1), dtype=np.float32)})
    assert other.fields == ["a"]


def test_a_tensordict_of_one_sample(tq: Any, pid: str) -> None:
    """Fields of one sample with their batch dimension, and an empty one: existing fields stay."""
    fields = tensordict.TensorDict({"a": torch.arange(3)[None], "b": torch.ones(1)}, batch_size=[1])
    assert tq.kv_put("k", pid, fields=fields, tag={"t": 1}).fields == ["a", "b"]
    read = tq.kv_batch_get("k", pid)
    assert read["a"][0].tolist() == [0, 1, 2]
    assert read["b"].tolist() == [1]
    assert tq.kv_put("k", pid, fields={}).fields == ["a", "b"]


def test_a_put_replaces_a_value(tq: Any, pid: str) -> None:
    for value in (1.0, 2.0):
        tq.kv_put("k", pid, fields=one(value))
    assert tq.kv_batch_get("k", pid)["x"].unbind()[0].tolist() == [2.0]
    assert list(tq.kv_list(pid)[pid]) == ["k"]


def test_tags_merge_by_key(tq: Any, pid: str) -> None:
    tq.kv_put("k", pid, tag={"a": 1, "b": "x"})
    meta = tq.kv_put("k", pid, tag={"b": [2], "c": None})
    assert meta.tags == [{"a": 1, "b": [2], "c": None}]
    assert tq.kv_put("k", pid, fields=one(1)).tags == meta.tags
    assert tq.kv_list(pid) == {pid: {"k": {"a": 1, "b": [2], "c": None}}}


def test_a_put_of_tags_makes_the_key_but_no_data(tq: Any, pid: str) -> None:
    tq.kv_put("tagged", pid, tag={"a": 1})
    tq.kv_put("full", pid, fields=one(1))
    for keys in ("tagged", ["tagged", "full"]):
        with pytest.raises(ValueError, match="no field is ready") as raised:
            tq.kv_batch_get(keys, pid)
        assert isinstance(raised.value, errors.NotReadyError)


def test_readable_fields_are_those_of_all_keys(tq: Any, pid: str) -> None:
    tq.kv_put("p", pid, fields={"x": torch.ones(1), "y": torch.ones(1)})
    tq.kv_put("q", pid, fields={"x": torch.ones(1), "z": torch.ones(1)})
    assert list(tq.kv_batch_get(["p", "q"], pid).keys()) == ["x"]
    assert list(tq.kv_batch_get(["p", "q"], pid, select_fields=["x", "y", "no"]).keys()) == ["x"]
    assert list(tq.kv_batch_get("p", pid, select_fields="y").keys()) == ["y"]
    nothing = tq.kv_batch_get(["p", "q"], pid, select_fields=["y", "z"])
    assert nothing.batch_size == (0,)


def test_missing_keys_are_left_out_and_order_is_kept(tq: Any, pid: str) -> None:
    tq.kv_batch_put(["a", "b", "c"], pid, {"x": torch.arange(3)})
    assert tq.kv_batch_get(["c", "no", "a", "c"], pid)["x"].tolist() == [2, 0, 2]
    for keys, partition in ((["no"], pid), (["a"], pid + "-none")):
        with pytest.raises(errors.UnknownKeyError, match="not found"):
            tq.kv_batch_get(keys, partition)


@pytest.mark.parametrize("call", ["kv_batch_get", "kv_clear", "kv_batch_put"])
def test_bad_keys(tq: Any, pid: str, call: str) -> None:
    more = {"tags": []} if call == "kv_batch_put" else {}
    with pytest.raises(ValueError, match="at least one"):
        getattr(tq, call)([], pid, **more)
    for bad in (("a",), [1], None):
        with pytest.raises(TypeError, match="expected"):
            getattr(tq, call)(bad, pid, **more)


def test_bad_puts_leave_nothing(tq: Any, pid: str) -> None:
    with pytest.raises(ValueError, match="fields, a tag or both"):
        tq.kv_put("k", pid)
    with pytest.raises(ValueError, match="fields, tags or both"):
        tq.kv_batch_put(["k"], pid)
    with pytest.raises(errors.RowCountError, match="expected 2 rows, one per key, got 3"):
        tq.kv_batch_put(["a", "b"], pid, {"x": torch.ones(3)})
    with pytest.raises(errors.RowCountError, match="expected 2 tags"):
        tq.kv_batch_put(["a", "b"], pid, tags=[{}])
    with pytest.raises(errors.RowCountError, match="'y': expected 2 rows, got 1"):
        tq.kv_batch_put(["a", "b"], pid, {"x": torch.ones(2), "y": torch.ones(1)})
    with pytest.raises(errors.InvalidArgumentError, match=r"duplicated keys: \['a'\]"):
        tq.kv_batch_put(["a", "b", "a"], pid, {"x": torch.ones(3)})
    assert tq.kv_list(pid) == {}


def test_get_by_meta(tq: Any, pid: str) -> None:
    meta = tq.kv_batch_put(["a", "b"], pid, {"x": torch.arange(2), "y": ["s", "t"]})
    assert sorted(tq.kv_batch_get_by_meta(meta).keys()) == ["x", "y"]
    assert tq.kv_batch_get_by_meta(meta.select_keys(["b"]), "x")["x"].tolist() == [1]
    with pytest.raises(errors.UnknownFieldError, match=r"\['z'\]"):
        tq.kv_batch_get_by_meta(meta, ["x", "z"])
    with pytest.raises(ValueError, match="no partition_id"):
        tq.kv_batch_get_by_meta(tq.KVBatchMeta(["a"], [{}]))


def test_list(tq: Any, pid: str) -> None:
    assert tq.kv_list(pid) == {}
    tq.kv_batch_put(["z", "a"], pid, tags=[{"n": 1}, {}])
    tq.kv_put("m", pid, fields=one(1))
    assert list(tq.kv_list(pid)[pid]) == ["z", "a", "m"]
    assert tq.kv_list()[pid] == tq.kv_list(partition_id=pid)[pid]
    tq.kv_clear(["z", "a", "m"], pid)
    assert tq.kv_list(pid) == {pid: {}}


def test_same_key_in_two_partitions(tq: Any, pid: str) -> None:
    other = pid + "-2"
    tq.kv_put("k", pid, fields=one(1))
    tq.kv_put("k", other, fields=one(2))
    tq.kv_clear("k", pid)
    assert tq.kv_batch_get("k", other)["x"].unbind()[0].tolist() == [2.0]
    tq.get_client().clear_partition(other)


def test_clear_is_idempotent_and_indexes_move_on(tq: Any, pid: str) -> None:
    other = pid + "-2"
    tq.kv_put("k", pid, fields=one(1))
    index = tq.get_client().kv_retrieve_meta("k", pid).global_indexes
    for _ in range(2):
        tq.kv_clear("k", pid)
    tq.kv_clear("k", pid + "-none")
    tq.kv_put("n", other, fields=one(2))
    assert tq.kv_list(pid) == {pid: {}}
    indexes, _ = tq.get_client().get_production_status(["x"], pid)
    assert index[0] not in indexes.tolist()
    tq.get_client().clear_partition(other)


def test_concurrent_tags_on_one_key_all_stay(tq: Any, pid: str) -> None:
    async def main() -> None:
        await asyncio.gather(*(tq.async_kv_put("k", pid, tag={f"t{i}": i}) for i in range(50)))

    asyncio.run(main())
    assert tq.kv_list(pid)[pid]["k"] == {f"t{i}": i for i in range(50)}


def test_data_parser(tq: Any, pid: str) -> None:
    seen: dict[str, Any] = {}

    def parse(fields: dict[str, Any]) -> None:
        seen.update({name: type(column) for name, column in fields.items()})
        fields["url"][:] = [url.upper() for url in fields["url"]]

    tq.kv_batch_put(["a", "b"], pid, {"url": ["u", "v"], "x": torch.arange(2)}, data_parser=parse)
    assert list(tq.kv_batch_get(["a", "b"], pid)["url"]) == ["U", "V"]
    assert seen == {"url": list, "x": torch.Tensor}
    with pytest.raises(ValueError, match="must keep the fields"):
        tq.kv_put("c", pid, fields={"url": "u"}, data_parser=lambda fields: {})


def test_async_forms(tq: Any, pid: str) -> None:
    async def main() -> None:
        await tq.async_kv_put("a", pid, fields=one(1), tag={"t": 1})
        meta = await tq.async_kv_batch_put(["b"], pid, {"x": torch.ones(1, 1)})
        assert (await tq.async_kv_batch_get_by_meta(meta)).batch_size == (1,)
        assert (await tq.async_kv_batch_get(["a", "b"], pid)).batch_size == (2,)
        assert list((await tq.async_kv_list(pid))[pid]) == ["a", "b"]
        await tq.async_kv_clear(["a"], pid)
        assert list((await tq.async_kv_list(pid))[pid]) == ["b"]

    asyncio.run(main())
