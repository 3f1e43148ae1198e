"""Arguments of wrong types: every public call raises an error that begins with the argument's name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import transferq
from transferq import errors
from transferq._impl import named as _named

FUNCTIONS = [
    "kv_batch_get",
    "kv_batch_get_by_meta",
    "kv_batch_put",
    "kv_clear",
    "kv_list",
    "kv_put",
    "load_checkpoint",
    "save_checkpoint",
]
METHODS = [
    "check_consumption_status",
    "check_production_status",
    "clear_partition",
    "clear_samples",
    "get_consumption_status",
    "get_data",
    "get_events",
    "get_meta",
    "get_production_status",
    "initialize_storage_manager",
    "kv_batch_put",
    "kv_clear",
    "kv_list",
    "kv_retrieve_keys",
    "kv_retrieve_meta",
    "load_checkpoint",
    "load_controller_checkpoint",
    "load_storage_checkpoint",
    "put",
    "reset_consumption",
    "save_checkpoint",
    "save_controller_checkpoint",
    "save_storage_checkpoint",
    "set_custom_meta",
]
BATCHES = {
    "BatchMeta": [
        "__init__",
        "add_fields",
        "chunk",
        "concat",
        "get_dtypes",
        "get_shapes",
        "reorder",
        "select_fields",
        "select_samples",
        "union",
        "update_custom_meta",
        "update_extra_info",
    ],
    "KVBatchMeta": ["__init__", "chunk", "concat", "reorder", "select_keys"],
}


# The nonexistent checkpoint is checked before the time is.
EARLIER = {("client.load_checkpoint", "timeout")}


class Thing:
    """A value that is invalid for every argument."""


VALID: dict[str, Any] = {
    "batch_size": 1,
    "checkpoint_dir": "/nonexistent/checkpoint",
    "chunks": 1,
    "custom_meta": [{}],
    "data_fields": ["x"],
    "field_name": "x",
    "field_names": ["x"],
    "global_indexes": [0],
    "indexes": [0],
    "indices": [0],
    "info_dict": {},
    "key": "k",
    "keys": ["k"],
    "keys_to_select": ["k"],
    "manager_type": "SimpleStorage",
    "partition_ids": ["p"],
    "path": "/nonexistent/checkpoint",
    "sample_indices": [0],
    "select_fields": ["x"],
    "tags": [{}],
    "task_name": "t",
}


def valid(function: Callable[..., Any], name: str, pid: str) -> Any:
    """A valid argument of a call, so that only the other one is wrong."""
    rows = {"x": np.zeros((1, 2))}
    batch = transferq.BatchMeta([0], [pid], {"x": {}})
    by_key = transferq.KVBatchMeta(["k"], [{}], pid, ["x"])
    own = {
        "data": [batch] if function.__name__ == "concat" else rows,
        "fields": ["x"] if function.__name__ == "__init__" else rows,
        "meta": by_key,
        "metadata": {} if function.__name__ == "save_checkpoint" else batch,
        "other": batch,
        "partition_id": pid,
        "tensor_dict": rows,
    }
    return own.get(name, VALID.get(name))


def calls() -> list[tuple[str, str]]:
    """Every parameter of every public call whose type matters: (call, parameter)."""
    named = [f"transferq.{name}" for name in FUNCTIONS] + [f"client.{name}" for name in METHODS]
    named += [f"{kind}.{name}" for kind, names in BATCHES.items() for name in names]
    found = []
    for path in named:
        owner, _, name = path.rpartition(".")
        holder: Any = {"transferq": transferq, "client": transferq.TransferQueueClient}.get(
            owner
        ) or getattr(transferq, owner)
        function = getattr(holder, name)
        for parameter in inspect.signature(function).parameters:
            if (path, parameter) in EARLIER:
                continue
            if _named.kind_of(function, parameter) is not None:
                found.append((path, parameter))
    return found


@pytest.mark.parametrize(("path", "parameter"), calls())
def test_a_wrong_type_names_the_argument(tq: Any, pid: str, path: str, parameter: str) -> None:
    owner, _, name = path.rpartition(".")
    made: dict[str, Any] = {
        "transferq": tq,
        "client": tq.get_client(),
        "BatchMeta": tq.BatchMeta([0], [pid], {"x": {}}),
        "KVBatchMeta": tq.KVBatchMeta(["k"], [{}], pid, ["x"]),
    }
    holder = made[owner]
    function = getattr(type(holder) if name == "__init__" else holder, name)
    given = {
        each: valid(function, each, pid)
        for each in inspect.signature(function).parameters
        if each != "self" and valid(function, each, pid) is not None
    }
    if name == "put" and parameter in ("partition_id", "groups"):
        given.pop("metadata")
    given[parameter] = Thing()
    make = type(holder) if name == "__init__" else function
    with pytest.raises(errors.TransferQueueError) as caught:
        make(**given)
    message = str(caught.value)
    assert parameter in message.partition(", got")[0], message
    assert isinstance(caught.value, (TypeError, ValueError))
    assert pid not in tq.kv_list()


def test_the_list_of_calls_is_complete() -> None:
    """Every new call must be added above."""
    functions = {
        name
        for name in transferq.__all__
        if inspect.isfunction(getattr(transferq, name)) and not name.startswith("async_")
    }
    assert functions - set(FUNCTIONS) == {"close", "get_client", "get_metrics_endpoint", "init"}
    without_arguments = {"close", "get_partition_list", "status"}
    for kind, listed, others in (
        (transferq.TransferQueueClient, METHODS, without_arguments),
        (
            transferq.BatchMeta,
            BATCHES["BatchMeta"],
            {"chunk_by_partition", "copy", "empty", "is_ready"}
            | {
                name
                for name in dir(transferq.BatchMeta)
                if "extra_info" in name or "custom_meta" in name
            },
        ),
        (transferq.KVBatchMeta, BATCHES["KVBatchMeta"], set()),
    ):
        public = {
            name
            for name in dir(kind)
            if not name.startswith(("_", "async_")) and callable(getattr(kind, name))
        }
        assert public - set(listed) <= others, kind


def test_an_async_call_names_the_argument_too(tq: Any) -> None:
    import asyncio

    with pytest.raises(errors.ArgumentTypeError, match=r"^partition_id: expected a str, got int"):
        asyncio.run(tq.async_kv_put("a", 3, {"x": 1}))


def test_an_error_of_the_callers_own_stays(tq: Any, pid: str) -> None:
    def parse(_: Any) -> Any:
        raise AttributeError("mine")

    with pytest.raises(AttributeError, match=r"^mine$"):
        tq.kv_batch_put(["a"], pid, {"x": [1]}, None, parse)
    with pytest.raises(TypeError, match="partition_id"):
        tq.kv_put("a")


def test_an_entry_of_a_wrong_type_is_named_with_its_place() -> None:
    with pytest.raises(errors.ArgumentTypeError, match=r"^tags: .* got int \(3\) at place 1"):
        transferq.KVBatchMeta(["a", "b"], [{}, 3])  # type: ignore[list-item]
    with pytest.raises(errors.ArgumentTypeError, match=r"^n_samples_per_prompt must be an int"):
        transferq.GRPOGroupNSampler("4")  # type: ignore[arg-type]
