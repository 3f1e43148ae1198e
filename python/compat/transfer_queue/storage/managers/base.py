"""The base of storage managers, their factory, and the manager of key-value stores."""

from ctq import (
    StorageManager,
    StorageManagerFactory,
    TransferQueueStorageManager,
    TransferQueueStorageManagerFactory,
)
from ctq.storage import KVStorageManager

__all__ = [
    "KVStorageManager",
    "StorageManager",
    "StorageManagerFactory",
    "TransferQueueStorageManager",
    "TransferQueueStorageManagerFactory",
]
