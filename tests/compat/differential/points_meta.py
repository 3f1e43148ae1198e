"""Points 13 to 17: metadata, statuses, and operations on batches of metadata."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import torch

from .cases import Script, case


@case(13)
def insert_reserves_and_allocates_ahead(c: Script) -> None:
    client, pid = c.client, c.pid()
    c.call(client.get_meta, ["x"], 2, pid, "insert")
    c.status(client.get_consumption_status, "t", pid)
    c.status(client.get_production_status, ["x"], pid)
    c.call(client.get_meta, ["x"], 3, pid, mode="insert")
    c.status(client.get_consumption_status, "t", pid)
    c.call(c.forced, ["x"], pid)
    c.call(client.check_production_status, ["x"], pid)


@case(13)
def one_task_makes_the_metadata_and_another_writes(c: Script) -> None:
    client, pid = c.client, c.pid()
    meta = client.get_meta(["x", "y"], 2, pid, "insert")
    moved = pickle.loads(pickle.dumps(meta))
    c.note(moved)
    c.call(client.put, c.data(x=c.rows(2)), moved)
    c.status(client.get_production_status, ["x"], pid)
    c.call(client.get_meta, ["x"], 2, pid, task_name="t")
    c.call(client.get_data, c.forced(["x"], pid))


@case(13)
def empty_metadata_reads_as_an_empty_tensordict(c: Script) -> None:
    client = c.client
    c.call(client.get_data, c.tq.BatchMeta.empty())
    c.call(client.get_data, None)
    c.call(client.clear_samples, c.tq.BatchMeta.empty())
    c.call(client.get_data, c.tq.BatchMeta([], []))


@case(13)
def freed_indexes_are_reused_first_freed_first(c: Script) -> None:
    tq, client, pid = c.tq, c.client, c.pid()
    c.fill(["a", "b", "c", "d"], pid)
    tq.kv_clear("c", pid)
    tq.kv_clear("a", pid)
    c.fill(["e", "f", "g"], pid)
    c.call(client.kv_retrieve_meta, ["e", "f", "g"], pid)
    c.call(client.get_meta, ["x"], 5, pid, task_name="t")


@case(13)
def what_is_said_of_fields_without_samples(c: Script) -> None:
    client, pid = c.client, c.pid()
    c.fill(["a"], pid)
    c.note(client.kv_retrieve_meta(["nobody"], pid).field_names, listed="D06")
    meta = client.get_meta(["x"], 2, pid, "insert")
    c.note([meta.field_names, meta.production_status])
    c.note(meta.field_schema["x"]["dtype"], listed="D07")


@case(14)
def fetch_marks_consumed_at_get_meta(c: Script) -> None:
    client, pid = c.client, c.pid()
    client.put(c.data(x=c.rows(5), y=c.rows(5, 5)), partition_id=pid)
    c.call(client.get_meta, ["x"], 2, pid, task_name="t")
    c.status(client.get_consumption_status, "t", pid)
    c.call(client.get_meta, ["x", "y"], 2, pid, "fetch", "t")
    c.call(client.get_meta, ["y"], 2, pid, "fetch", "u")
    c.call(client.check_consumption_status, "t", pid)
    c.status(client.get_consumption_status, "u", pid)


@case(14)
def ready_rows_come_ascending(c: Script) -> None:
    client, pid = c.client, c.pid()
    meta = client.get_meta(["x"], 4, pid, "insert")
    client.put(c.data(x=c.rows(2)), meta.select_samples([3, 1]))
    c.call(client.get_meta, ["x"], 2, pid, "fetch", "t")
    client.put(c.data(x=c.rows(2)), meta.select_samples([2, 0]))
    c.call(client.get_meta, ["x"], 2, pid, "fetch", "t")
    c.call(client.get_meta, ["x"], 4, pid, "fetch", "u")


@case(14)
def force_fetch_ignores_size_sampler_and_consumption(c: Script) -> None:
    client, pid = c.client, c.pid()
    client.put(c.data(x=c.rows(3)), partition_id=pid)
    client.get_meta(["x"], 2, pid, "fetch", "t")
    c.call(c.forced, ["x"], pid)
    c.call(c.forced, ["x"], pid)
    c.call(client.get_data, c.forced(["x"], pid))
    c.status(client.get_consumption_status, "t", pid)


@case(14)
def force_fetch_of_a_field_that_nobody_wrote(c: Script) -> None:
    pid = c.pid()
    c.client.put(c.data(x=c.rows(2)), partition_id=pid)
    c.call(c.forced, ["x", "nothing"], pid)
    c.call(c.forced, ["nothing"], pid)
    c.fill(["a"], pid, "y")
    c.tq.kv_clear("a", pid)
    c.note(c.forced(["x", "y"], pid).production_status, listed="D09")


@case(14)
def polling_with_too_few_rows_is_empty(c: Script) -> None:
    client, pid = c.client, c.pid()
    client.put(c.data(x=c.rows(2)), partition_id=pid)
    c.call(client.get_meta, ["x"], 3, pid, "fetch", "t")
    c.status(client.get_consumption_status, "t", pid)
    c.call(client.async_get_meta, ["x"], 2, pid, "fetch", "t")
    c.call(client.get_meta, ["x"], 1, pid, "fetch", "t")
    c.call(client.get_data, client.get_meta(["x"], 1, pid, "fetch", "t"))


@case(14, "waiting")
def a_claim_that_waits_in_vain_times_out(c: Script) -> None:
    client, pid = c.client, c.pid()
    client.put(c.data(x=c.rows(2)), partition_id=pid)
    c.call(client.get_meta, ["x"], 2, pid, "fetch", "t")


@case(15)
def an_unknown_partition(c: Script) -> None:
    client, pid = c.client, c.pid("nowhere")
    c.status(client.get_consumption_status, "t", pid)
    c.status(client.get_production_status, ["x"], pid)
    c.call(client.check_consumption_status, "t", pid)
    c.call(client.check_production_status, ["x"], pid)
    c.call(client.reset_consumption, pid)
    c.call(client.reset_consumption, pid, "t")
    c.call(client.clear_partition, pid)
    c.call(client.get_meta, ["x"], 1, pid, "force_fetch")
    c.call(client.kv_retrieve_meta, ["a"], pid)
    c.call(client.kv_retrieve_keys, [0], pid)
    c.note(pid in client.get_partition_list())


@case(15)
def statuses_of_a_partition(c: Script) -> None:
    client, pid = c.client, c.pid()
    client.put(c.data(x=c.rows(3)), partition_id=pid)
    c.status(client.get_production_status, ["x"], pid)
    c.status(client.get_production_status, ["x", "nothing"], pid)
    c.status(client.get_production_status, [], pid)
    c.call(client.check_production_status, ["x"], pid)
    c.call(client.check_production_status, ["nothing"], pid)
    c.status(client.get_consumption_status, "t", pid)
    c.call(client.check_consumption_status, "t", pid)
    client.get_meta(["x"], 3, pid, "fetch", "t")
    c.call(client.check_consumption_status, "t", pid)
    c.call(client.async_check_consumption_status, "t", pid)
    c.call(client.reset_consumption, pid, "t")
    c.status(client.get_consumption_status, "t", pid)
    c.call(client.get_meta, ["x"], 3, pid, "fetch", "t")


@case(15)
def a_reset_of_all_tasks(c: Script) -> None:
    client, pid = c.client, c.pid()
    client.put(c.data(x=c.rows(2)), partition_id=pid)
    for task in ("t", "u"):
        client.get_meta(["x"], 2, pid, "fetch", task)
    c.call(client.reset_consumption, pid)
    for task in ("t", "u"):
        c.status(client.get_consumption_status, task, pid)


@case(15)
def clearing_samples_and_partitions(c: Script) -> None:
    client, pid = c.client, c.pid()
    client.put(c.data(x=c.rows(4)), partition_id=pid)
    meta = client.get_meta(["x"], 2, pid, "fetch", "t")
    c.call(client.clear_samples, meta)
    c.call(c.forced, ["x"], pid)
    c.status(client.get_production_status, ["x"], pid)
    c.call(client.clear_partition, pid)
    c.note(pid in client.get_partition_list())
    c.status(client.get_consumption_status, "t", pid)
    c.call(client.clear_partition, pid)


@case(15)
def clearing_samples_without_data(c: Script) -> None:
    client, pid = c.client, c.pid()
    c.fill(["a"], pid)
    c.tq.kv_clear("a", pid)
    client.get_meta(["x"], 3, pid, "insert")
    c.call(client.clear_partition, pid, listed="D10")
    c.note(pid in client.get_partition_list(), listed="D10")


@case(15)
def keys_and_indexes(c: Script) -> None:
    client, pid = c.client, c.pid()
    c.fill(["a", "b"], pid)
    meta = client.kv_retrieve_meta(["b", "a"], pid)
    c.note(meta)
    c.call(client.kv_retrieve_keys, meta.global_indexes, pid)
    c.call(client.kv_retrieve_keys, meta.global_indexes[0], pid)
    c.note(client.kv_retrieve_meta(["nobody"], pid).size)
    c.call(client.kv_retrieve_meta, ["a", "nobody"], pid)
    c.call(client.kv_retrieve_meta, ["n", "a"], pid, create=True)
    c.call(client.kv_retrieve_keys, [meta.global_indexes[0] + 900], pid)
    c.call(client.kv_retrieve_keys, [], pid)
    c.call(client.kv_retrieve_keys, "a", pid)
    c.call(client.put, c.data(x=c.rows(1)), client.kv_retrieve_meta(["n"], pid))
    c.call(c.tq.kv_batch_get, ["n", "a"], pid)


@case(16)
def a_put_updates_its_metadata_and_marks_it_ready(c: Script) -> None:
    client, pid = c.client, c.pid()
    meta = client.get_meta(["x"], 2, pid, "insert")
    c.note(meta.production_status)
    c.call(client.put, c.data(x=c.rows(2)), metadata=meta)
    c.note(meta)
    c.call(client.put, c.data(y=c.rows(2, 3)), meta)
    c.note(meta)
    c.call(client.get_data, meta)


@case(16)
def a_put_without_metadata_makes_samples(c: Script) -> None:
    client, pid = c.client, c.pid()
    c.call(client.put, c.data(x=c.rows(2)), partition_id=pid)
    c.call(client.async_put, c.data(x=c.rows(1, 7)), partition_id=pid)
    c.call(client.put, c.data(x=c.rows(1)))
    c.call(client.get_data, c.forced(["x"], pid))


@case(16)
def custom_meta_goes_with_set_custom_meta(c: Script) -> None:
    client, pid = c.client, c.pid()
    meta = client.put(c.data(x=c.rows(2)), partition_id=pid)
    meta.update_custom_meta([{"len": 3}, {"len": 5, "s": "x"}])
    c.call(client.set_custom_meta, meta)
    c.call(client.get_meta, ["x"], 2, pid, "fetch", "t")
    meta.update_custom_meta([{"more": 1}, {}])
    c.call(client.async_set_custom_meta, meta)
    c.call(c.forced, ["x"], pid)
    meta.clear_custom_meta()
    c.note(meta.get_all_custom_meta())


def schema(count: int, name: str = "x", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The schema of a dense field."""
    del count
    return {
        name: {
            "dtype": dtype,
            "shape": torch.Size([2]),
            "is_nested": False,
            "is_non_tensor": False,
        }
    }


def batch(c: Script, indexes: list[int], **more: Any) -> Any:
    """Metadata built by hand."""
    made = {
        "global_indexes": indexes,
        "partition_ids": ["p"] * len(indexes),
        "field_schema": schema(len(indexes)),
        "production_status": np.ones(len(indexes), np.int8),
        **more,
    }
    return c.tq.BatchMeta(**made)


@case(17, "none")
def metadata_by_hand(c: Script) -> None:
    make = c.tq.BatchMeta
    c.call(make, global_indexes=[3, 1], partition_ids=["p", "q"])
    c.call(make, global_indexes=[1], partition_ids=[])
    c.call(batch, c, [1, 2, 3], extra_info={"a": 1})
    c.call(batch, c, [1, 2], custom_meta=[{"a": 1}, {}])
    c.call(batch, c, [1, 2], custom_meta=[{"a": 1}])
    c.call(batch, c, [1, 2], production_status=np.array([1], np.int8))
    c.call(make.empty)
    c.call(make.empty, {"a": 1})


@case(17, "none")
def no_arguments_make_empty_metadata(c: Script) -> None:
    """The contract requires `BatchMeta()`; upstream has no defaults for it."""
    c.call(c.tq.BatchMeta, listed="D01")
    c.call(c.tq.KVBatchMeta)


@case(17, "none")
def chunks_of_metadata(c: Script) -> None:
    meta = batch(c, [5, 6, 7, 8, 9], extra_info={"a": 1})
    for count in (1, 2, 3, 5, 7):
        c.note([(piece.size, piece) for piece in meta.chunk(count)])
    mixed = c.tq.BatchMeta([1, 2, 3], ["p", "q", "p"], schema(3))
    c.note(mixed.chunk_by_partition())


@case(17, "none")
def metadata_is_concatenated(c: Script) -> None:
    concat = c.tq.BatchMeta.concat
    one, two = batch(c, [1, 2]), batch(c, [7])
    c.call(concat, [one, two])
    c.call(concat, [])
    c.call(concat, [c.tq.BatchMeta.empty(), one, c.tq.BatchMeta.empty()])
    c.call(concat, [one, batch(c, [3], field_schema=schema(1, "y"))])
    c.call(concat, [one, batch(c, [3], field_schema=schema(1, dtype=torch.int64))])
    c.call(concat, [one, batch(c, [3], field_schema=schema(1, "y"))], validate=False)
    c.call(concat, [batch(c, [1], extra_info={"a": 1}), batch(c, [2], extra_info={"b": [2]})])
    c.call(concat, [batch(c, [1], extra_info={"a": 1}), batch(c, [2], extra_info={"a": 2})])
    c.call(concat, [batch(c, [1], custom_meta=[{"a": 1}]), batch(c, [2])])


@case(17, "none")
def metadata_is_united(c: Script) -> None:
    one = batch(c, [1, 2], extra_info={"a": 1}, custom_meta=[{"t": 1}, {}])
    two = batch(
        c,
        [1, 2],
        field_schema=schema(2, "y"),
        production_status=np.array([1, 0], np.int8),
        extra_info={"a": 2, "b": 3},
        custom_meta=[{"t": 2}, {"u": 1}],
    )
    c.call(one.union, two)
    c.call(two.union, one)
    c.call(one.union, batch(c, [2, 1]))
    c.call(one.union, batch(c, [1]))


@case(17, "none")
def metadata_is_selected_and_reordered(c: Script) -> None:
    meta = batch(
        c,
        [4, 5, 6],
        field_schema={**schema(3), **schema(3, "y")},
        custom_meta=[{"i": 0}, {"i": 1}, {"i": 2}],
    )
    c.call(meta.select_fields, ["y"])
    c.call(meta.select_fields, ["nothing"])
    c.call(meta.select_fields, ["nothing", "x"])
    c.call(meta.select_samples, [2, 0])
    c.call(meta.select_samples, [])
    c.call(meta.select_samples, [3])
    c.call(meta.reorder, [2, 0, 1])
    c.note(meta)
    c.call(meta.reorder, [0, 1])
    c.call(meta.reorder, [0, 0, 1])
    c.note([len(meta), meta.size, meta.get_shapes("x"), meta.get_dtypes("y")])
    c.call(meta.get_shapes, "nothing")


@case(17, "none")
def metadata_slices_and_samples(c: Script) -> None:
    meta = batch(c, [4, 5, 6])
    c.call(lambda: meta[1])
    c.call(lambda: meta[0:2])
    c.call(lambda: meta[::2])
    c.call(lambda: meta[-1])
    c.call(lambda: meta[7])
    c.call(lambda: [sample.global_index for sample in meta.samples])
    c.call(lambda: [sample.partition_id for sample in meta.samples])
    c.call(lambda: list(meta.samples[0].fields))
    c.note(len(meta.samples))


@case(17, "none")
def extra_info_of_metadata(c: Script) -> None:
    meta = batch(c, [1], extra_info={"a": 1})
    c.call(meta.set_extra_info, "b", [1])
    c.call(meta.update_extra_info, {"c": {"d": None}})
    c.call(meta.get_extra_info, "b")
    c.call(meta.get_extra_info, "z", 5)
    c.call(meta.has_extra_info, "z")
    c.call(meta.get_all_extra_info)
    c.call(meta.remove_extra_info, "b")
    c.call(meta.remove_extra_info, "z")
    c.note(meta.copy())
    c.call(meta.clear_extra_info)
    c.note(meta)
    meta.extra_info = {"new": 1}
    c.note([meta.extra_info, meta.copy().extra_info])


@case(17, "none")
def fields_are_added_to_metadata(c: Script) -> None:
    meta = batch(c, [1, 2], production_status=np.zeros(2, np.int8))
    c.call(meta.add_fields, c.data(y=torch.ones(2, 3), z=torch.tensor([1, 2])))
    c.note(meta)
    other = batch(c, [1, 2], production_status=np.zeros(2, np.int8))
    c.call(other.add_fields, c.data(y=torch.ones(2, 3)), set_all_ready=False)
    c.call(other.add_fields, c.data(y=torch.ones(3, 3)))


@case(17, "none")
def metadata_is_pickled_and_copied(c: Script) -> None:
    meta = batch(c, [1, 2], extra_info={"a": [1]}, custom_meta=[{"t": 1}, {}])
    c.note(pickle.loads(pickle.dumps(meta)))
    c.note(copy.deepcopy(meta))
    other = meta.copy()
    other.extra_info["a"].append(2)
    c.note(meta.extra_info)


@case(17, "none")
def kv_metadata_by_hand(c: Script) -> None:
    make = c.tq.KVBatchMeta
    meta = c.call(
        make,
        keys=["a", "b", "c"],
        tags=[{"i": 0}, {"i": 1}, {"i": 2}],
        partition_id="p",
        fields=["x", "y"],
        extra_info={"e": 1},
    )
    c.call(make, keys=["a"], tags=[])
    c.call(make, keys=["a", "a"], tags=[{}, {}])
    c.call(make, keys=["a"], tags=[{}], fields=["x", "x"])
    c.note([len(meta), meta.size, meta.keys, meta.tags, meta.fields, meta.partition_id])
    c.call(meta.select_keys, ["c", "a"])
    c.call(meta.select_keys, ["nobody"])
    c.call(meta.select_keys, ["a", "a"])
    for count in (1, 2, 5):
        c.call(meta.chunk, count)
    c.call(meta.reorder, [2, 1, 0])
    c.note(meta)
    c.call(meta.reorder, [0, 1])
    c.call(meta.reorder, [0, 0, 1])
    c.note(pickle.loads(pickle.dumps(meta)))


@case(17, "none")
def kv_metadata_is_concatenated(c: Script) -> None:
    make, concat = c.tq.KVBatchMeta, c.tq.KVBatchMeta.concat

    def one(key: str, **more: Any) -> Any:
        return make(**{"keys": [key], "tags": [{}], "partition_id": "p", "fields": ["x"], **more})

    c.call(concat, [one("a"), one("b")])
    c.call(concat, [one("a"), one("a")])
    c.call(concat, [one("a"), make(), one("b")])
    c.call(concat, [])
    c.call(concat, [one("a"), one("b", fields=["y"])])
    c.call(concat, [one("a"), one("b", partition_id="q")])
    c.call(concat, [one("a", extra_info={"i": 1}), one("b", extra_info={"j": 2})])
    c.call(concat, [one("a", extra_info={"i": 1}), one("b", extra_info={"i": 2})])
    c.call(concat, [one("a", fields=None), one("b", fields=None)])
