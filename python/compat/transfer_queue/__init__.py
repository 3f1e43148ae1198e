"""The package `transfer_queue` on top of ctq: its public modules with the objects of ctq.

For programs that import it by this name; new code says `import ctq as tq`.
"""

from typing import TYPE_CHECKING, Any

from ._guard import refuse_mixed_files

refuse_mixed_files()

from ctq import (  # noqa: E402 - nothing is imported from an installation of two halves
    AsyncSimpleStorageManager,
    AsyncTransferQueueClient,
    BaseSampler,
    BatchMeta,
    Config,
    ControllerInfo,
    GRPOGroupNSampler,
    KVBatchMeta,
    RankAwareSampler,
    SeqlenBalancedSampler,
    SequentialSampler,
    StorageKeyNotFoundError,
    StorageManager,
    StorageManagerFactory,
    TransferQueueClient,
    TransferQueueError,
    TransferQueueStorageManager,
    TransferQueueStorageManagerFactory,
    __version__,
    async_kv_batch_get,
    async_kv_batch_get_by_meta,
    async_kv_batch_put,
    async_kv_clear,
    async_kv_list,
    async_kv_put,
    async_load_checkpoint,
    async_save_checkpoint,
    close,
    get_client,
    get_metrics_endpoint,
    init,
    kv_batch_get,
    kv_batch_get_by_meta,
    kv_batch_put,
    kv_clear,
    kv_list,
    kv_put,
    load_checkpoint,
    save_checkpoint,
)

if TYPE_CHECKING:
    from ctq import StreamingDataLoader, StreamingDataset

__all__ = [
    "StreamingDataLoader",
    "StreamingDataset",
    "__version__",
    "AsyncSimpleStorageManager",
    "AsyncTransferQueueClient",
    "BaseSampler",
    "BatchMeta",
    "Config",
    "ControllerInfo",
    "GRPOGroupNSampler",
    "KVBatchMeta",
    "RankAwareSampler",
    "SeqlenBalancedSampler",
    "SequentialSampler",
    "StorageKeyNotFoundError",
    "StorageManager",
    "StorageManagerFactory",
    "TransferQueueClient",
    "TransferQueueError",
    "TransferQueueStorageManager",
    "TransferQueueStorageManagerFactory",
    "async_kv_batch_get",
    "async_kv_batch_get_by_meta",
    "async_kv_batch_put",
    "async_kv_clear",
    "async_kv_list",
    "async_kv_put",
    "async_load_checkpoint",
    "async_save_checkpoint",
    "close",
    "get_client",
    "get_metrics_endpoint",
    "init",
    "kv_batch_get",
    "kv_batch_get_by_meta",
    "kv_batch_put",
    "kv_clear",
    "kv_list",
    "kv_put",
    "load_checkpoint",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    """The classes that need torch, which is imported at their first use."""
    if name not in ("StreamingDataLoader", "StreamingDataset"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import ctq

    return getattr(ctq, name)
