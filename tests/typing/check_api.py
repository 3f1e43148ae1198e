"""Types of the public API, as inferred by mypy; checked by `mypy --strict`, never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_type

import transferq
from transferq import BatchMeta, Config, KVBatchMeta, TransferQueueClient


def functions() -> None:
    assert_type(transferq.init(), Config)
    assert_type(transferq.init({"client": {"timeout": 5}}, attach=True, name="me"), Config)
    assert_type(transferq.get_client(), TransferQueueClient)
    assert_type(transferq.kv_put("k", "p", {"x": [1]}, {"t": 1}), KVBatchMeta)
    assert_type(transferq.kv_batch_put(["k"], "p", fields=None, tags=[{}]), KVBatchMeta)
    assert_type(transferq.kv_list("p"), dict[str, dict[str, Any]])
    transferq.kv_clear("k", partition_id="p")
    transferq.kv_put(5, "p")  # type: ignore[arg-type]
    transferq.kv_put("k")  # type: ignore[call-arg]
    assert_type(transferq.__version__, str)


async def async_functions() -> None:
    assert_type(await transferq.async_kv_put("k", "p", tag={}), KVBatchMeta)
    assert_type(await transferq.async_kv_list(), dict[str, dict[str, Any]])
    await transferq.async_kv_clear(["k"], "p")
    await transferq.async_kv_list(partition_id=5)  # type: ignore[arg-type]


def client(client: TransferQueueClient, meta: BatchMeta) -> None:
    assert_type(client.get_meta(["x"], 4, "p", mode="fetch", task_name="t"), BatchMeta)
    assert_type(client.put({"x": [1]}, metadata=meta), BatchMeta)
    assert_type(client.check_consumption_status("t", "p"), bool)
    assert_type(client.get_partition_list(), list[str])
    assert_type(client.kv_retrieve_keys([1], "p"), list[str | None])
    assert_type(client.get_events(since=0), list[dict[str, Any]])
    assert_type(client.status(), dict[str, Any])
    client.get_meta("x", batch_size="4", partition_id="p")  # type: ignore[arg-type]


async def async_client(client: transferq.AsyncTransferQueueClient, meta: BatchMeta) -> None:
    assert_type(await client.async_get_meta(["x"], 4, "p", task_name="t", timeout=1.0), BatchMeta)
    assert_type(await client.async_put({"x": [1]}, partition_id="p"), BatchMeta)
    assert_type(await client.async_reset_consumption("p"), bool)
    await client.async_clear_samples(meta)
    await client.async_clear_samples("p")  # type: ignore[arg-type]


def module() -> None:
    """A name that the module does not have is an error, even in an `except`."""
    transferq.kv_batch_putt(["k"], "p")  # type: ignore[attr-defined]
    try:
        transferq.close()
    except transferq.TimedOutErorr:  # type: ignore[attr-defined]
        pass
    except (transferq.TimedOutError, transferq.StorageFullError) as error:
        assert_type(error.code, int)
    except transferq.TransferQueueError as error:
        assert_type(error.code, int)
    assert_type(transferq.UnreachableError("x"), transferq.errors.UnreachableError)


def streaming(loader: transferq.StreamingDataLoader) -> None:
    for data, meta in loader:
        assert_type(meta, BatchMeta)
        transferq.get_client().put(data, metadata=meta)
    transferq.StreamingDataset(transferq.init(), 4, 2, ["x"], "p", "t", dp_rank=0, prefetch=False)
    transferq.StreamingDataset(transferq.init(), 4, 2, ["x"], "p", "t")  # type: ignore[call-arg]
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


class Manager(transferq.StorageManager):
    """A manager with all required methods; leaving one out makes it abstract."""

    async def put_data(self, data: Any, metadata: BatchMeta, data_parser: Any = None) -> None:
        await self.notify_data_update("p", metadata.global_indexes, metadata.field_schema)

    async def get_data(self, metadata: BatchMeta) -> Any:
        return {}

    async def clear_data(self, metadata: BatchMeta) -> None: ...


assert_type(transferq.StorageManagerFactory.register("m")(Manager), type[Manager])


def read_options(client: TransferQueueClient, meta: BatchMeta) -> None:
    client.get_data(meta, layout="dense")
    client.get_data(meta, layout={"x": "padded", "*": "jagged"}, padding={"x": {"multiple": 8}})
    client.get_data(meta, layout="padded", padding=-100, pin_memory=True)
    client.get_data(meta, layout=5)  # type: ignore[arg-type]
    client.get_data(meta, layout=["dense"])  # type: ignore[arg-type]
    client.get_data(meta, layout={"x": 1})  # type: ignore[dict-item]
    client.get_data(meta, layout={1: "dense"})  # type: ignore[dict-item]
    client.get_data(meta, padding="0")  # type: ignore[arg-type]
    client.get_data(meta, padding=[0])  # type: ignore[arg-type]
    client.get_data(meta, padding={0: 0})  # type: ignore[dict-item]
    transferq.kv_batch_get(["k"], "p", layout=b"dense")  # type: ignore[arg-type]
    transferq.kv_batch_get(["k"], "p", padding="0")  # type: ignore[arg-type]


def sampling(client: TransferQueueClient) -> None:
    client.get_meta(["x"], 1, "p", task_name="t", sampling_config={"n_samples_per_prompt": 4})
    client.get_meta(["x"], 1, "p", sampling_config="grpo")  # type: ignore[arg-type]
    client.get_meta(["x"], 1, "p", sampling_config=[("n", 4)])  # type: ignore[arg-type]
    client.get_meta(["x"], 1, "p", sampling_config={4: "n"})  # type: ignore[dict-item]


async def async_read_options(client: TransferQueueClient, meta: BatchMeta) -> None:
    await client.async_get_data(meta, layout="dense", padding={"x": 0.5})
    await client.async_get_data(meta, layout=5)  # type: ignore[arg-type]
    await client.async_get_meta(["x"], 1, "p", sampling_config="grpo")  # type: ignore[arg-type]
