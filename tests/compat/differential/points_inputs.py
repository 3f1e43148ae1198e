"""Unusual inputs that are accepted: empty ones, odd names, other kinds of sequences."""

from __future__ import annotations

import numpy as np
import torch
from tensordict import TensorDict

from .cases import Script, case

LONG = "n" * 600


@case(3)
def puts_without_fields(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.call(tq.kv_put, "a", pid, {}, {"v": 1})
    c.call(tq.kv_put, "b", pid, {})
    c.call(tq.kv_put, "c", pid, tag={})
    c.call(tq.kv_batch_put, ["d", "e"], pid, None, [{}, {}])
    c.call(tq.kv_list, pid)
    c.call(tq.kv_batch_get, "a", pid)
    c.fill(["a"], pid)
    c.call(tq.kv_put, "a", pid, {}, {"w": 2})
    c.call(tq.kv_batch_get, "a", pid)


@case(2)
def tag_keys_that_are_no_text(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    for place, key in enumerate((1, -1.5, None, True, b"x", (1, "a"), "", "a\0b", "\x1f", LONG)):
        c.call(tq.kv_put, f"k{place}", pid, tag={key: place, "v": 1})
        c.call(tq.kv_put, f"k{place}", pid, tag={key: "later"})
    c.call(tq.kv_put, "both", pid, tag={1: "number", "1": "text"})
    c.call(tq.kv_batch_put, ["x", "y"], pid, None, [{1: 2}, {2: 1}])
    c.call(tq.kv_list, pid)


@case(2)
def tags_in_other_sequences(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    tags = [{"v": 1}, {"v": 2}]
    c.call(tq.kv_batch_put, ["a", "b"], pid, None, tuple(tags))
    c.call(tq.kv_batch_put, ["a", "b"], pid, c.data(x=c.rows(2)), np.array(tags, dtype=object))
    c.call(tq.kv_list, pid)


@case(6)
def tags_that_are_none(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["a"], pid)
    c.call(tq.kv_batch_put, ["a"], pid, None, {"v": 1})
    c.call(tq.kv_batch_put, ["a"], pid, None, ["text"])
    c.call(tq.kv_batch_put, ["a"], pid, None, [None])
    c.call(tq.kv_put, "a", pid, None, "text")
    c.call(tq.kv_put, "a", pid, None, [1])
    c.call(tq.kv_list, pid)


@case(5)
def long_and_odd_names(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    for key in ("k" * 10000, "é☃", " ", "a/b"):
        c.call(tq.kv_put, key, pid, {"x": torch.ones(2)}, {"v": 1})
        c.call(tq.kv_batch_get, key, pid)
        c.call(tq.kv_clear, key, pid)
    for field in (LONG, "é☃", " "):
        c.call(tq.kv_put, "a", pid, {field: torch.ones(2)})
    c.call(tq.kv_batch_get, "a", pid)
    for name in (LONG, "é☃", " "):
        c.call(tq.kv_put, "a", c.pid(name), {"x": torch.ones(2)})
        c.call(tq.kv_batch_get, "a", c.pid(name))
        c.call(tq.kv_list, c.pid(name))
        c.call(c.client.get_meta, ["x"], 1, c.pid(name), "fetch", name)
        c.status(c.client.get_consumption_status, name, c.pid(name))


@case(5)
def names_that_cannot_be(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    fields = {"x": torch.ones(2)}
    for key in ("", "a\0b", "a\nb", "\udc80", "k" * 20000):
        c.call(tq.kv_put, key, pid, fields, listed="D22")
    for partition in ("", "a\0b", None, 3):
        c.call(tq.kv_put, "a", partition, fields, listed="D22")
        c.call(tq.kv_clear, "a", partition, listed="D22")
    for field in ("", "a\nb"):
        c.call(tq.kv_put, "a", pid, {field: torch.ones(2)}, listed="D22")
    c.fill(["b"], pid)
    c.call(c.client.get_meta, ["x"], 1, pid, "fetch", 3, listed="D22")


@case(4)
def selections_of_other_kinds(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    meta = c.fill(["a", "b"], pid, "x", "y")
    for fields in (("x",), {"x"}, ["x", "x"], {"y": 1}, "", [None], [3]):
        c.call(tq.kv_batch_get, ["a", "b"], pid, fields)
    c.call(tq.kv_batch_get_by_meta, meta, ("x",))
    c.call(tq.kv_batch_get_by_meta, c.tq.KVBatchMeta(keys=["a"], tags=[{}], partition_id=pid))
    c.call(tq.kv_batch_get_by_meta, c.tq.KVBatchMeta())


@case(14)
def claims_of_other_kinds(c: Script) -> None:
    pid, client = c.pid(), c.client
    c.fill(["a", "b", "c", "d"], pid, "x")
    c.call(client.get_meta, ("x",), 1, pid, "fetch", "t")
    c.call(client.get_meta, ["x", "x"], 1, pid, "fetch", "t")
    c.call(client.get_meta, ["x"], np.int64(1), pid, "fetch", "t")
    c.call(client.get_meta, ["x"], 0, pid, "fetch", "t")
    c.call(client.get_meta, ["x"], 0, pid, "insert", "t")
    c.call(client.get_meta, ["x"], "1", pid, "fetch", "t")
    c.call(client.get_meta, ["x"], 1, pid, "nothing", "t")
    c.call(client.get_meta, ["x"], 1, pid, "fetch", "t", [1])
    c.call(client.get_meta, [], 1, pid, "fetch", "t", listed="D21")


@case(13)
def keys_of_indexes_that_cannot_be(c: Script) -> None:
    pid, client = c.pid(), c.client
    c.fill(["a"], pid)
    c.call(client.kv_retrieve_keys, [c.base, -1, 2**40], pid)
    c.call(client.kv_retrieve_keys, (c.base,), pid)
    c.call(client.kv_retrieve_keys, [], pid)


@case(17)
def metadata_from_other_kinds(c: Script) -> None:
    tq = c.tq

    def keys() -> object:
        return tq.KVBatchMeta(keys=["a", "b"], tags=[{}, {}], partition_id="p", fields=["x"])

    c.call(tq.KVBatchMeta.concat, None)
    c.call(tq.BatchMeta.concat, None)
    c.call(keys().select_keys, [])  # type: ignore[attr-defined]
    c.call(keys().chunk, "2")  # type: ignore[attr-defined]
    moved = keys()
    moved.reorder(np.array([1, 0]))  # type: ignore[attr-defined]
    c.note(moved)
    c.call(tq.KVBatchMeta, keys="ab", tags=[{}, {}])
    c.call(tq.KVBatchMeta, keys=["a"])
    empty = TensorDict({}, batch_size=2)
    c.call(tq.kv_batch_put, ["a", "b"], c.pid(), empty, [{"v": 1}, {}])
    c.call(tq.kv_list, c.pid())
