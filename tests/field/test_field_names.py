"""Calls that TransferQueue accepts, unusual names, and invalid arguments."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transferq import errors

KEY_MAX, NAME_MAX = 16384, 1023
VALUE = np.arange(3)


def test_a_put_without_fields_makes_the_key_and_stores_its_tag(tq: Any, pid: str) -> None:
    made = tq.kv_put("a", pid, fields={}, tag={"v": 1})
    assert (made.keys, made.tags, made.fields) == (["a"], [{"v": 1}], [])
    tq.kv_put("b", pid, fields={})
    assert tq.kv_list(pid) == {pid: {"a": {"v": 1}, "b": {}}}
    tq.kv_put("b", pid, fields={"x": VALUE})
    assert tq.kv_put("b", pid, fields={}, tag={"w": 2}).fields == ["x"]


@pytest.mark.parametrize(
    "key",
    [
        1,
        -(2**70),
        1.5,
        True,
        None,
        b"\x00x",
        (1, ("a", None)),
        "",
        "a\0b",
        "\x1f1",
        "é\n",
        "\udc80",
    ],
)
def test_a_tag_key_of_any_plain_type_comes_back(tq: Any, pid: str, key: object) -> None:
    tags: Any = {key: "value", "plain": 1}
    tq.kv_batch_put(["a", "b"], pid, tags=[tags, {}])
    listed = tq.kv_list(pid)[pid]
    assert listed == {"a": tags, "b": {}}
    assert {type(each) for each in listed["a"]} == {type(key), str}
    tq.kv_put("a", pid, tag={key: "later"})
    assert tq.kv_list(pid)[pid]["a"] == {key: "later", "plain": 1}
    meta = tq.get_client().kv_retrieve_meta(["a"], pid)
    meta.custom_meta[0][key] = "changed"
    tq.get_client().set_custom_meta(meta)
    assert tq.kv_list(pid)[pid]["a"][key] == "changed"


def test_a_tag_key_of_another_type_is_refused_by_name(tq: Any, pid: str) -> None:
    with pytest.raises(errors.ArgumentTypeError, match=r"tag: the key .* is of type frozenset"):
        tq.kv_put("a", pid, tag={frozenset([1]): 2})
    assert tq.kv_list(pid) == {}


@pytest.mark.parametrize("what", ["key", "field", "partition", "task", "tag", "group"])
def test_a_name_is_taken_up_to_its_bound_and_refused_beyond_with_what_to_do(
    tq: Any, pid: str, what: str
) -> None:
    longest = KEY_MAX if what == "key" else NAME_MAX
    client = tq.get_client()

    def use(size: int) -> None:
        name = "n" * size
        partition = name if what == "partition" else pid
        try:
            tq.kv_batch_put(
                [name if what == "key" else "k"],
                partition,
                {name if what == "field" else "x": VALUE[None]},
                [{name if what == "tag" else "t": 1}],
                groups=[name if what == "group" else "g"],
            )
            read = tq.kv_batch_get(list(tq.kv_list(partition)[partition]), partition)
            fields = ["x"] if what == "task" else list(read.keys())
            task = name if what == "task" else "task"
            claimed = client.get_meta(fields, 1, partition, "fetch", task)
            assert claimed.field_names == fields
            assert client.check_consumption_status(task, partition)
        finally:
            client.clear_partition(partition) if size <= longest else None

    use(longest)
    with pytest.raises(errors.NameLengthError, match=f"{longest}.*shorter one, such as a hash"):
        use(longest + 1)


@pytest.mark.parametrize("key", ["", "a\0b", "\udc80"])
def test_a_key_that_no_name_can_be_is_refused_and_nothing_is_stored(
    tq: Any, pid: str, key: str
) -> None:
    with pytest.raises(errors.TransferQueueError, match="key"):
        tq.kv_put(key, pid, {"x": VALUE})
    assert tq.kv_list(pid) == {}


def test_tags_that_are_no_list_of_maps_are_named(tq: Any, pid: str) -> None:
    """It used to be a raw AttributeError."""
    for tags, message in (
        ({"v": 1}, r"^tags: expected a list of maps, one per key, got one map; did you mean"),
        (["q"], r"^tags\[0\]: expected a map of tags, got str"),
        ([None], r"^tags\[0\]: expected a map of tags, got NoneType"),
        ([], "expected 1 tag, one per key, got 0"),
        (3, "^tags: expected a list of maps"),
    ):
        with pytest.raises(errors.TransferQueueError, match=message):
            tq.kv_batch_put(["a"], pid, tags=tags)
    with pytest.raises(errors.ArgumentTypeError, match=r"^tag: expected a map of tags, got str"):
        tq.kv_put("a", pid, tag="q")
    assert tq.kv_list(pid) == {}
    tq.kv_batch_put(["a"], pid, tags=np.array([{"v": 1}], dtype=object))
    assert tq.kv_list(pid) == {pid: {"a": {"v": 1}}}


def test_select_fields_without_a_match_warns(
    tq: Any, pid: str, caplog: pytest.LogCaptureFixture
) -> None:
    tq.kv_put("a", pid, {"x": VALUE})
    caplog.set_level(logging.WARNING, "transferq")
    assert list(tq.kv_batch_get(["a"], pid, ["x", "typo"]).keys()) == ["x"]
    assert list(tq.kv_batch_get(["a"], pid, select_fields=[]).keys()) == []
    assert caplog.messages == []
    assert list(tq.kv_batch_get(["a"], pid, ["typo"]).keys()) == []
    meta = tq.get_client().kv_retrieve_meta(["a"], pid)
    assert list(tq.get_client().get_data(meta.select_fields(["typo"])).keys()) == []
    by_key, by_metadata = caplog.messages
    assert "'typo'" in by_key
    assert "['x']" in by_key
    assert "no fields" in by_metadata


def test_what_is_nothing_is_taken_as_the_other_package_takes_it(tq: Any, pid: str) -> None:
    client = tq.get_client()
    tq.kv_put("a", pid, {"x": VALUE})
    assert client.get_meta(["x"], 0, pid, "fetch", "t").size == 0
    assert client.get_meta(["x", "x"], 1, pid, "fetch", "t").field_names == ["x"]
    [index] = client.kv_retrieve_meta(["a"], pid).global_indexes
    assert client.kv_retrieve_keys([index, -1, 2**40], pid) == ["a", None, None]
    assert tq.BatchMeta.concat(None).size == tq.KVBatchMeta.concat(None).size == 0


def test_the_bounds_are_written_down() -> None:
    page = Path(__file__).parents[2].joinpath("docs/compatibility.md").read_text("utf-8")
    assert f"{KEY_MAX:,} bytes" in page
    assert f"{NAME_MAX:,} bytes" in page
