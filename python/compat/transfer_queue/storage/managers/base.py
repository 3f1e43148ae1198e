"""The base of storage managers, their factory, and the manager of key-value stores."""

from transferq import (
    StorageManager,
    StorageManagerFactory,
    TransferQueueStorageManager,
    TransferQueueStorageManagerFactory,
)
from transferq.storage import KVStorageManager

__all__ = [
    "KVStorageManager",
    "StorageManager",
    "StorageManagerFactory",
    "TransferQueueStorageManager",
    "TransferQueueStorageManagerFactory",
]
