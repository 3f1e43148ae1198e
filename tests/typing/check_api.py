"""Types of the public API, as inferred by mypy; checked by `mypy --strict`, never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_type

import ctq
from ctq import BatchMeta, Config, KVBatchMeta, TransferQueueClient


def functions() -> None:
    assert_type(ctq.init(), Config)
    assert_type(ctq.init({"client": {"timeout": 5}}, attach=True, name="me"), Config)
    assert_type(ctq.get_client(), TransferQueueClient)
    assert_type(ctq.kv_put("k", "p", {"x": [1]}, {"t": 1}), KVBatchMeta)
    assert_type(ctq.kv_batch_put(["k"], "p", fields=None, tags=[{}]), KVBatchMeta)
    assert_type(ctq.kv_list("p"), dict[str, dict[str, Any]])
    ctq.kv_clear("k", partition_id="p")
    ctq.kv_put(5, "p")  # type: ignore[arg-type]
    ctq.kv_put("k")  # type: ignore[call-arg]
    assert_type(ctq.__version__, str)


async def async_functions() -> None:
    assert_type(await ctq.async_kv_put("k", "p", tag={}), KVBatchMeta)
    assert_type(await ctq.async_kv_list(), dict[str, dict[str, Any]])
    await ctq.async_kv_clear(["k"], "p")
    await ctq.async_kv_list(partition_id=5)  # type: ignore[arg-type]


def client(client: TransferQueueClient, meta: BatchMeta) -> None:
    assert_type(client.get_meta(["x"], 4, "p", mode="fetch", task_name="t"), BatchMeta)
    assert_type(client.put({"x": [1]}, metadata=meta), BatchMeta)
    assert_type(client.check_consumption_status("t", "p"), bool)
    assert_type(client.get_partition_list(), list[str])
    assert_type(client.kv_retrieve_keys([1], "p"), list[str | None])
    assert_type(client.get_events(since=0), list[dict[str, Any]])
    assert_type(client.status(), dict[str, Any])
    client.get_meta("x", batch_size="4", partition_id="p")  # type: ignore[arg-type]


async def async_client(client: ctq.AsyncTransferQueueClient, meta: BatchMeta) -> None:
    assert_type(await client.async_get_meta(["x"], 4, "p", task_name="t", timeout=1.0), BatchMeta)
    assert_type(await client.async_put({"x": [1]}, partition_id="p"), BatchMeta)
    assert_type(await client.async_reset_consumption("p"), bool)
    await client.async_clear_samples(meta)
    await client.async_clear_samples("p")  # type: ignore[arg-type]


def module() -> None:
    """A name that the module does not have is an error, even in an `except`."""
    ctq.kv_batch_putt(["k"], "p")  # type: ignore[attr-defined]
    try:
        ctq.close()
    except ctq.TimedOutErorr:  # type: ignore[attr-defined]
        pass
    except (ctq.TimedOutError, ctq.StorageFullError) as error:
        assert_type(error.code, int)
    except ctq.TransferQueueError as error:
        assert_type(error.code, int)
    assert_type(ctq.UnreachableError("x"), ctq.errors.UnreachableError)


def streaming(loader: ctq.StreamingDataLoader) -> None:
    for data, meta in loader:
        assert_type(meta, BatchMeta)
        ctq.get_client().put(data, metadata=meta)
    ctq.StreamingDataset(ctq.init(), 4, 2, ["x"], "p", "t", dp_rank=0, prefetch=False)
    ctq.StreamingDataset(ctq.init(), 4, 2, ["x"], "p", "t")  # type: ignore[call-arg]
    assert_type(loader.reset(), None)
    assert_type(loader.get_buffer()[0][1], BatchMeta)
    loader.step(5)  # type: ignore[arg-type]


def metadata(meta: BatchMeta, kv: KVBatchMeta) -> None:
    assert_type(meta.global_indexes, list[int])
    assert_type(meta.partition_ids, list[str])
    assert_type(meta.field_names, list[str])
    assert_type(meta.custom_meta, list[dict[str, Any]])
    assert_type(meta.extra_info, dict[str, Any])
    assert_type(meta[0], BatchMeta)
    assert_type(meta[1:], BatchMeta)
    assert_type(meta.chunk(2), list[BatchMeta])
    assert_type(meta.samples[0].custom_meta, Mapping[str, Any])
    assert_type(BatchMeta.concat([meta]), BatchMeta)
    assert_type(kv.select_keys(["a"]), KVBatchMeta)
    assert_type(kv.extra_info, dict[str, Any] | None)


class Manager(ctq.StorageManager):
    """A manager with all required methods; leaving one out makes it abstract."""

    async def put_data(self, data: Any, metadata: BatchMeta, data_parser: Any = None) -> None:
        await self.notify_data_update("p", metadata.global_indexes, metadata.field_schema)

    async def get_data(self, metadata: BatchMeta) -> Any:
        return {}

    async def clear_data(self, metadata: BatchMeta) -> None: ...


assert_type(ctq.StorageManagerFactory.register("m")(Manager), type[Manager])
