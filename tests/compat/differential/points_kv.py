"""Points 1 to 9 and data_parser: samples by key."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from .cases import Script, case

PARSER_POINT = 23
"""The section on data_parser, which has no number."""


@case(1)
def a_put_merges_by_key(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.call(tq.kv_batch_put, ["a", "b"], pid, c.data(x=c.rows(2)))
    c.call(tq.kv_batch_put, ["a", "b"], pid, c.data(w=c.rows(2, 5)))
    c.call(tq.kv_batch_get, ["a", "b"], pid)
    c.call(tq.kv_batch_put, ["b"], pid, c.data(x=c.rows(1, 9)))
    c.call(tq.kv_batch_get, ["a", "b"], pid)


@case(1)
def a_put_of_some_keys_tells_the_fields_of_these(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["a", "b"], pid, "x")
    c.call(tq.kv_put, "a", pid, {"y": torch.tensor([1, 2])})
    c.call(tq.kv_batch_put, ["a", "b"], pid, c.data(z=c.rows(2)))
    c.call(tq.kv_batch_put, ["c", "a"], pid, c.data(y=torch.tensor([[3, 4], [5, 6]])))
    c.call(tq.kv_batch_get, "a", pid)


@case(1)
def async_puts_and_reads_are_the_same(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.call(tq.async_kv_put, "a", pid, {"x": torch.tensor([1.5])}, {"t": 1})
    c.call(tq.async_kv_batch_put, ["a", "b"], pid, c.data(y=c.rows(2)), [{}, {"t": 2}])
    c.call(tq.async_kv_batch_get, ["b", "a"], pid)
    c.call(tq.async_kv_list, pid)
    meta = c.call(tq.kv_batch_put, ["a", "b"], pid, c.data(z=c.rows(2)))
    c.call(tq.async_kv_batch_get_by_meta, meta)
    c.call(tq.async_kv_clear, "a", pid)
    c.call(tq.async_kv_list, pid)


@case(2)
def tags_merge_per_key(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.call(tq.kv_put, "a", pid, {"x": torch.tensor([1])}, {"v": 1, "s": "run"})
    c.call(tq.kv_put, "a", pid, None, {"v": 2, "w": None})
    c.call(tq.kv_list, pid)
    c.call(tq.kv_put, "a", pid, {"y": torch.tensor([1])})
    c.call(tq.kv_batch_put, ["a", "b"], pid, c.data(z=c.rows(2)), [{"n": [1, 2]}, {}])
    c.call(tq.kv_list, pid)


@case(2)
def tags_of_any_plain_type(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    tags = [
        {"int": -(2**40), "float": 0.1, "none": None, "bool": True},
        {"list": [1, "x", None], "map": {"a": {"b": 1.5}}, "text": "ü", "bytes": b"\x00\xff"},
    ]
    c.call(tq.kv_batch_put, ["a", "b"], pid, None, tags)
    c.call(tq.kv_list, pid)


@case(3)
def a_put_of_tags_only_makes_the_key(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.call(tq.kv_put, "a", pid, tag={"v": 1})
    c.call(tq.kv_list, pid)
    c.call(tq.kv_batch_get, "a", pid)
    c.fill(["b"], pid)
    c.call(tq.kv_batch_get, ["a", "b"], pid)
    c.call(tq.kv_batch_get, ["b"], pid)
    c.call(tq.kv_put, "c", pid)
    c.call(tq.kv_batch_put, ["c"], pid)


@case(4)
def readable_fields_are_those_of_all_keys(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["a", "b"], pid, "x")
    c.fill(["b", "c"], pid, "y")
    c.call(tq.kv_batch_get, ["a", "b"], pid)
    c.call(tq.kv_batch_get, ["b"], pid)
    c.call(tq.kv_batch_get, ["a", "c"], pid)


@case(4)
def unknown_select_fields_are_dropped(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["a", "b"], pid, "x", "y")
    c.call(tq.kv_batch_get, ["a", "b"], pid, ["y"])
    c.call(tq.kv_batch_get, ["a", "b"], pid, "x")
    c.call(tq.kv_batch_get, ["a", "b"], pid, ["x", "nothing"])
    c.call(tq.kv_batch_get, ["a", "b"], pid, ["nothing"])
    c.call(tq.kv_batch_get, ["a", "b"], pid, select_fields=[])
    c.fill(["a"], pid, "z")
    c.call(tq.kv_batch_get, ["a", "b"], pid, ["z"])


@case(4)
def by_meta_raises_instead(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    meta = c.call(tq.kv_batch_put, ["a", "b"], pid, c.data(x=c.rows(2), y=c.rows(2, 4)))
    c.call(tq.kv_batch_get_by_meta, meta)
    c.call(tq.kv_batch_get_by_meta, meta, "y")
    c.call(tq.kv_batch_get_by_meta, meta, ["x", "nothing"])
    c.call(tq.kv_batch_get_by_meta, meta, ["nothing"])
    c.call(tq.kv_batch_get_by_meta, meta.select_keys(["b"]))


@case(5)
def missing_keys_are_dropped(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["a", "b", "c"], pid)
    c.call(tq.kv_batch_get, ["c", "nobody", "a"], pid)
    c.call(tq.kv_batch_get, ["a", "b", "a"], pid)
    c.call(tq.kv_batch_get, ["nobody"], pid)
    c.call(tq.kv_batch_get, "nobody", pid)
    c.call(tq.kv_batch_get, ["a"], c.pid("nowhere"))


@case(6)
def bad_keys(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["a", "b"], pid)
    c.call(tq.kv_batch_get, [], pid)
    c.call(tq.kv_batch_get, ("a", "b"), pid)
    c.call(tq.kv_batch_get, [1, 2], pid)
    c.call(tq.kv_batch_get, None, pid)
    c.call(tq.kv_clear, [], pid)
    c.call(tq.kv_clear, ("a",), pid)
    c.call(tq.kv_clear, [3], pid)
    c.call(c.client.kv_retrieve_meta, [], pid)
    c.call(c.client.kv_retrieve_meta, ("a",), pid)
    c.call(tq.kv_list, pid)


@case(6)
def bad_batch_puts(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["a"], pid)
    c.call(tq.kv_batch_put, ["a", "b"], pid, None, [{}])
    c.call(tq.kv_list, pid, listed="D04")
    c.call(tq.kv_batch_put, ["n"], pid, c.data(x=c.rows(2)))
    c.call(tq.kv_list, pid, listed="D04")
    c.call(tq.kv_batch_put, ["m"], pid, {"x": torch.ones(1, 2)}, listed="D05")


@case(7)
def a_dict_of_one_sample(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    fields = {
        "scalar": torch.tensor(3),
        "vector": torch.arange(3),
        "matrix": torch.ones(2, 2),
        "text": "hello",
        "number": 5,
        "list": [1, 2],
        "map": {"a": 1},
        "none": None,
        "bytes": b"\x01",
        "empty": torch.zeros(0),
    }
    c.call(tq.kv_put, "a", pid, fields, {"n": 1})
    c.call(tq.kv_batch_get, "a", pid)
    c.call(tq.kv_put, "b", pid, fields)
    c.call(tq.kv_batch_get, ["a", "b"], pid)


@case(7)
def a_tensordict_of_one_sample(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.call(tq.kv_put, "a", pid, TensorDict({"x": torch.ones(1, 3)}, batch_size=1))
    c.call(tq.kv_put, "b", pid, {"x": torch.zeros(3)})
    c.call(tq.kv_batch_get, ["a", "b"], pid)


@case(8)
def what_is_listed(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.call(tq.kv_list, c.pid("nowhere"))
    c.fill(["b", "a", "c"], pid)
    c.fill(["a"], c.pid("other"))
    c.call(tq.kv_list, pid)
    c.call(tq.kv_list, c.pid("other"))
    c.note({name: keys for name, keys in tq.kv_list().items() if name.startswith(c.name)})
    c.call(tq.kv_clear, ["a", "b", "c"], pid)
    c.call(tq.kv_list, pid)
    c.call(tq.kv_batch_get, "a", c.pid("other"))
    c.call(c.client.kv_list, c.pid("other"))
    c.call(c.client.async_kv_list, partition_id=pid)


@case(8)
def insertion_order_of_keys(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["k3", "k1"], pid)
    c.fill(["k2", "k1", "k0"], pid)
    c.call(tq.kv_clear, "k1", pid)
    c.fill(["k1"], pid)
    c.note([list(keys) for keys in tq.kv_list(pid).values()])


@case(9)
def clear_is_idempotent(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["a", "b"], pid)
    c.call(tq.kv_clear, "a", pid)
    c.call(tq.kv_clear, "a", pid)
    c.call(tq.kv_clear, ["a", "b", "nobody"], pid)
    c.call(tq.kv_clear, "a", c.pid("nowhere"))
    c.call(tq.kv_list, pid)
    c.call(tq.kv_batch_get, "a", pid)


@case(9)
def a_reused_index_is_not_in_its_old_partition(c: Script) -> None:
    tq, old, new = c.tq, c.pid("old"), c.pid("new")
    c.fill(["a", "b"], old)
    c.call(tq.kv_clear, "a", old)
    c.fill(["n"], new)
    c.call(c.client.kv_retrieve_meta, ["n"], new)
    c.call(c.forced, ["x"], old)
    c.status(c.client.get_production_status, ["x"], old)
    c.call(tq.kv_list, old)
    c.call(tq.kv_batch_get, ["a", "b"], old)


@case(9)
def a_key_cleared_and_put_again_is_new(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    tq.kv_put("a", pid, {"x": torch.tensor([1]), "y": torch.tensor([2])}, {"v": 1})
    c.call(tq.kv_clear, "a", pid)
    c.call(tq.kv_put, "a", pid, {"x": torch.tensor([3])})
    c.call(tq.kv_batch_get, "a", pid)
    c.call(tq.kv_list, pid)


@case(PARSER_POINT)
def a_parser_makes_new_values(c: Script) -> None:
    tq, pid = c.tq, c.pid()

    def double(data: dict[str, object]) -> dict[str, object]:
        return {"x": [2 * row for row in data["x"]]}  # type: ignore[attr-defined]

    c.call(tq.kv_batch_put, ["a", "b"], pid, c.data(x=c.rows(2)), None, double)
    c.call(tq.kv_batch_get, ["a", "b"], pid)
    c.call(c.client.put, c.data(x=c.rows(2)), None, c.pid("put"), double)
    c.call(c.client.get_data, c.forced(["x"], c.pid("put")))


@case(PARSER_POINT)
def a_parser_of_one_sample(c: Script) -> None:
    tq, pid = c.tq, c.pid()

    def parse(data: dict[str, object]) -> dict[str, object]:
        return {"x": data["x"], "y": [f"<{row}>" for row in data["y"]]}  # type: ignore[attr-defined]

    c.call(tq.kv_put, "a", pid, {"x": torch.ones(2), "y": "v"}, None, parse)
    c.call(tq.kv_batch_get, "a", pid)
