"""BatchMeta and KVBatchMeta built by hand, without a system."""

from __future__ import annotations

import copy
import pickle
import time

import numpy as np
import pytest

from transferq import BatchMeta, KVBatchMeta


def batch(indexes: list[int], partitions: list[str] | None = None, **kwargs: object) -> BatchMeta:
    partitions = partitions or ["p"] * len(indexes)
    schema = {
        name: {"dtype": "float32", "shape": (2,), "is_nested": False, "is_non_tensor": False}
        for name in ("a", "b")
    }
    return BatchMeta(indexes, partitions, **{"field_schema": schema, **kwargs})  # type: ignore[arg-type]


def test_empty() -> None:
    for made in (BatchMeta(), BatchMeta.empty(), BatchMeta.empty({"k": 1})):
        assert (made.size, len(made), made.global_indexes, made.field_names) == (0, 0, [], [])
        assert not made.is_ready
        assert made.chunk(2)[1].size == 0
        assert pickle.loads(pickle.dumps(made)).size == 0


def test_by_hand() -> None:
    made = batch([5, 3, 9], custom_meta=[{"x": 1}, {}, {"x": 3}])
    assert made.global_indexes == [5, 3, 9]
    assert made.partition_ids == ["p", "p", "p"]
    assert made.field_names == ["a", "b"]
    assert made.production_status.dtype == np.int8
    assert made.production_status.tolist() == [0, 0, 0]
    assert made.custom_meta == [{"x": 1}, {}, {"x": 3}]
    assert made.get_shapes("a") == [(2,)] * 3
    assert made.get_dtypes("a") == ["float32"] * 3
    with pytest.raises(KeyError, match="no field 'z'"):
        made.get_shapes("z")
    assert "size=3" in repr(made)
    assert "[5, 3, 9]" in str(made)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"production_status": [1]},
        {"custom_meta": [{}]},
        {"field_schema": {"a": {"per_sample_shapes": [(1,)]}}},
    ],
)
def test_wrong_lengths(kwargs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected 3 entries, got 1"):
        batch([1, 2, 3], **kwargs)
    with pytest.raises(ValueError, match="2 indexes and 1 partition"):
        BatchMeta([1, 2], ["p"])


def test_select_slice_and_index() -> None:
    made = batch(
        [5, 3, 9, 7], custom_meta=[{"i": i} for i in range(4)], production_status=[1, 0, 1, 1]
    )
    some = made.select_samples([3, 0])
    assert some.global_indexes == [7, 5]
    assert [tags["i"] for tags in some.custom_meta] == [3, 0]
    assert some.is_ready
    assert made[1:3].global_indexes == [3, 9]
    assert made[-1].global_indexes == [7]
    with pytest.raises(IndexError):
        made[4]
    with pytest.raises(ValueError, match="range"):
        made.select_samples([4])
    assert made.select_fields(["b", "zz"]).field_names == ["b"]
    some.custom_meta[0]["i"] = 99
    assert made.custom_meta[3]["i"] == 3


def test_samples() -> None:
    schema = {"a": {"dtype": "int64", "per_sample_shapes": [(1,), (2,)], "is_nested": True}}
    made = batch([4, 5], field_schema=schema, custom_meta=[{"k": 1}, {}])
    assert [sample.global_index for sample in made.samples] == [4, 5]
    assert made.samples[-1].fields["a"]["shape"] == (2,)
    assert made.samples[0].partition_id == "p"
    with pytest.raises(TypeError):
        made.samples[0].custom_meta["k"] = 2  # type: ignore[index]
    with pytest.raises(IndexError):
        made.samples[2]


def test_chunk_gives_the_remainder_to_the_first() -> None:
    made = batch(list(range(7)))
    assert [chunk.global_indexes for chunk in made.chunk(3)] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [chunk.size for chunk in made.chunk(9)] == [1] * 7 + [0, 0]
    with pytest.raises(ValueError, match="positive"):
        made.chunk(0)


def test_several_partitions() -> None:
    made = batch([1, 2, 3, 4], ["p", "q", "p", "q"])
    assert made.partition_ids == ["p", "q", "p", "q"]
    parts = made.chunk_by_partition()
    assert [(part.partition_ids[0], part.global_indexes) for part in parts] == [
        ("p", [1, 3]),
        ("q", [2, 4]),
    ]
    made.reorder([3, 2, 1, 0])
    assert made.global_indexes == [4, 3, 2, 1]
    assert made.partition_ids == ["q", "p", "q", "p"]
    assert made.select_samples([0, 2]).partition_ids == ["q", "q"]


def test_reorder_checks() -> None:
    made = batch([1, 2])
    for bad in ([0], [0, 0], [0, 2]):
        with pytest.raises(ValueError, match="reorder"):
            made.reorder(bad)


def test_concat() -> None:
    one, two = batch([1, 2], production_status=[1, 1]), batch([3], production_status=[0])
    joined = BatchMeta.concat([one, BatchMeta.empty(), two])
    assert joined.global_indexes == [1, 2, 3]
    assert joined.production_status.tolist() == [1, 1, 0]
    assert BatchMeta.concat([]).size == 0
    with pytest.raises(ValueError, match="fields differ"):
        BatchMeta.concat([one, two.select_fields(["a"])])
    other = batch([4])
    other.field_schema["a"]["dtype"] = "int64"
    with pytest.raises(ValueError, match="'a' is float32 in batch 0 and int64 in batch 1"):
        BatchMeta.concat([one, other])
    one.set_extra_info("k", np.ones(2))
    two.set_extra_info("k", np.ones(2))
    assert BatchMeta.concat([one, two]).extra_info["k"].tolist() == [1, 1]
    two.set_extra_info("k", np.zeros(2))
    with pytest.raises(ValueError, match="extra_info 'k'"):
        BatchMeta.concat([one, two])


def test_union() -> None:
    one = batch([1, 2], production_status=[1, 1], custom_meta=[{"x": 1}, {"x": 2}])
    schema = {"b": {"dtype": "int8", "shape": (), "is_nested": False, "is_non_tensor": False}}
    two = batch(
        [1, 2],
        field_schema={**schema, "c": schema["b"]},
        production_status=[1, 0],
        custom_meta=[{"x": 9}, {}],
    )
    both = one.union(two)
    assert both.field_names == ["a", "b", "c"]
    assert both.field_schema["b"]["dtype"] == "int8"
    assert both.production_status.tolist() == [1, 0]
    assert both.custom_meta == [{"x": 9}, {"x": 2}]
    with pytest.raises(ValueError, match="same samples"):
        one.union(batch([2, 1]))
    assert one.union(BatchMeta.empty()).global_indexes == [1, 2]


def test_add_fields() -> None:
    made = batch([1, 2])
    assert made.add_fields({"n": np.zeros((2, 3))}) is made
    assert made.field_names == ["a", "b", "n"]
    assert made.is_ready
    with pytest.raises(ValueError, match="expected 2 rows, got 1"):
        made.add_fields({"n": np.zeros((1, 3))})


def test_extra_info() -> None:
    made = batch([1])
    made.extra_info = {"a": 1}
    made.update_extra_info({"b": [2]})
    assert made.get_extra_info("b") == [2]
    assert made.get_extra_info("z", 5) == 5
    assert made.has_extra_info("a")
    copied = made.get_all_extra_info()
    copied["b"].append(3)
    assert made.extra_info["b"] == [2]
    assert made.remove_extra_info("a") == 1
    assert made.remove_extra_info("a") is None
    made.clear_extra_info()
    assert made.extra_info == {}


def test_custom_meta() -> None:
    made = batch([1, 2])
    made.update_custom_meta([{"a": 1}, {"b": 2}])
    made.update_custom_meta(None)
    assert made.get_all_custom_meta() == [{"a": 1}, {"b": 2}]
    with pytest.raises(ValueError, match="expected 2 entries, got 1"):
        made.update_custom_meta([{}])
    made.clear_custom_meta()
    assert made.custom_meta == [{}, {}]


def test_copies_and_pickles_are_independent() -> None:
    made = batch([1, 2], custom_meta=[{"x": [1]}, {}], production_status=[1, 0])
    made.extra_info["k"] = [1]
    for other in (made.copy(), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        other.custom_meta[0]["x"].append(2)
        other.extra_info["k"].append(2)
        other.production_status[:] = 1
        assert other.global_indexes == [1, 2]
        assert other.field_names == ["a", "b"]
    assert made.custom_meta == [{"x": [1]}, {}]
    assert made.extra_info == {"k": [1]}
    assert made.production_status.tolist() == [1, 0]


def test_large_batches_are_quick() -> None:
    large = BatchMeta._wrap(batch(list(range(100_000)))._pieces)
    start = time.process_time()
    chunks = large.chunk(8)
    joined = BatchMeta.concat(chunks)
    joined.reorder(list(range(99_999, -1, -1)))
    assert time.process_time() - start < 0.5
    assert joined.global_indexes[:2] == [99_999, 99_998]


# --- KVBatchMeta ----------------------------------------------------------------------------------


def kv(keys: list[str], **kwargs: object) -> KVBatchMeta:
    return KVBatchMeta(
        **{  # type: ignore[arg-type]
            "keys": keys,
            "tags": [{"k": key} for key in keys],
            "partition_id": "p",
            "fields": ["f"],
            **kwargs,
        }
    )


def test_kv_basics() -> None:
    made = kv(["a", "b", "c"])
    assert (len(made), made.size) == (3, 3)
    assert KVBatchMeta().keys == []
    assert KVBatchMeta().extra_info == {}
    assert made.select_keys(["c", "a"]).tags == [{"k": "c"}, {"k": "a"}]
    with pytest.raises(RuntimeError, match="'z'"):
        made.select_keys(["z"])
    with pytest.raises(ValueError, match="duplicate"):
        made.select_keys(["a", "a"])
    made.reorder([2, 0, 1])
    assert made.keys == ["c", "a", "b"]
    assert pickle.loads(pickle.dumps(made)) == made
    assert "size=3" in repr(made)


def test_kv_checks() -> None:
    with pytest.raises(ValueError, match="2 keys and 1 tags"):
        KVBatchMeta(["a", "b"], [{}])
    with pytest.raises(ValueError, match="duplicated keys"):
        KVBatchMeta(["a", "a"], [{}, {}])
    with pytest.raises(ValueError, match="duplicated fields"):
        KVBatchMeta(fields=["a", "a"])


def test_kv_chunk_and_concat() -> None:
    made = kv(["a", "b", "c"])
    chunks = made.chunk(2)
    assert [chunk.keys for chunk in chunks] == [["a", "b"], ["c"]]
    joined = KVBatchMeta.concat([*chunks, KVBatchMeta()])
    assert joined.keys == made.keys
    assert joined.tags == made.tags
    with pytest.raises(ValueError, match="duplicated keys"):
        KVBatchMeta.concat([made, made])
    with pytest.raises(ValueError, match="Partition do not match"):
        KVBatchMeta.concat([made, kv(["d"], partition_id="q")])
    with pytest.raises(ValueError, match="Field names do not match"):
        KVBatchMeta.concat([made, kv(["d"], fields=["g"])])
    with pytest.raises(ValueError, match="extra_info"):
        KVBatchMeta.concat([kv(["a"], extra_info={"x": 1}), kv(["b"], extra_info={"x": 2})])
    tags = [{"x": [1]}]
    separate = KVBatchMeta(["a"], tags)
    tags[0]["x"].append(2)
    assert separate.tags == [{"x": [1]}]


def test_columns_may_be_set() -> None:
    made = batch([1, 2], custom_meta=[{"v": 1}, {"v": 2}])
    made.global_indexes = [7, 8]
    made.partition_ids = ["q", "r"]
    made.field_schema = {"z": {"dtype": None, "shape": None}}
    made._custom_backend_meta = [{"z": 1}, {}]
    made.production_status = [1, 0]
    assert (made.global_indexes, made.partition_ids, made.field_names) == (
        [7, 8],
        ["q", "r"],
        ["z"],
    )
    assert [tags["v"] for tags in made.custom_meta] == [1, 2]
    assert [part.global_indexes for part in made.chunk_by_partition()] == [[7], [8]]
    assert made[1].production_status.tolist() == [0]
    with pytest.raises(ValueError, match="global_indexes: expected 2 entries, got 1"):
        made.global_indexes = [1]
