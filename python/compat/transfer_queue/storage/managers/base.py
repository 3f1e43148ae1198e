"""The base of storage managers, and their factory."""

from ctq import (
    StorageManager,
    StorageManagerFactory,
    TransferQueueStorageManager,
    TransferQueueStorageManagerFactory,
)

__all__ = [
    "StorageManager",
    "StorageManagerFactory",
    "TransferQueueStorageManager",
    "TransferQueueStorageManagerFactory",
]
