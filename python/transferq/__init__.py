"""A transfer queue: the data bus between the workers of reinforcement-learning post-training.

Producers write columns of samples in any order.  Consumers claim samples whose fields are ready and read
the data directly from where it is stored:

    import transferq as tq

    tq.init()
    tq.kv_put("a", "train", fields={"prompt": tensor}, tag={"version": 1})
    batch = tq.get_client().get_meta(["prompt"], 1, "train", task_name="rollout")
    data = tq.get_client().get_data(batch)

Every call has an async form with `async_` in front.
"""

from typing import TYPE_CHECKING, Any

from . import errors
from ._core import version as __version__
from ._impl.api import (
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
from ._impl.dtypes import have_torch
from ._impl.system import ControllerInfo
from .client import AsyncTransferQueueClient, TransferQueueClient
from .config import Config
from .errors import *  # noqa: F403 - the classes in errors.__all__: users catch them by these names
from .metadata import BatchMeta, KVBatchMeta
from .samplers import (
    BaseSampler,
    GRPOGroupNSampler,
    RankAwareSampler,
    SeqlenBalancedSampler,
    SequentialSampler,
)
from .storage import (
    AsyncSimpleStorageManager,
    KVStorageManager,
    StorageClientFactory,
    StorageKVClient,
    StorageManager,
    StorageManagerFactory,
    TransferQueueStorageManager,
    TransferQueueStorageManagerFactory,
)

if TYPE_CHECKING:
    from .streaming import StreamingDataLoader, StreamingDataset

__all__ = [
    "AsyncSimpleStorageManager",
    "AsyncTransferQueueClient",
    "BaseSampler",
    "BatchMeta",
    "Config",
    "ControllerInfo",
    "GRPOGroupNSampler",
    "KVBatchMeta",
    "KVStorageManager",
    "RankAwareSampler",
    "SeqlenBalancedSampler",
    "SequentialSampler",
    "StorageClientFactory",
    "StorageKVClient",
    "StorageManager",
    "StorageManagerFactory",
    "TransferQueueClient",
    "TransferQueueStorageManager",
    "TransferQueueStorageManagerFactory",
    "__version__",
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

__all__ += errors.__all__

_STREAMING = ("StreamingDataLoader", "StreamingDataset")

if have_torch():
    __all__ += ["StreamingDataLoader", "StreamingDataset"]


if not TYPE_CHECKING:  # with this function, type checkers would believe the module has every name

    def __getattr__(name: str) -> Any:
        """Import the classes that need torch at their first use."""
        if name not in _STREAMING:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import streaming

        return getattr(streaming, name)
