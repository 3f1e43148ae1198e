"""Storage managers."""

from ctq import AsyncSimpleStorageManager, StorageManager, StorageManagerFactory
from ctq.storage import KVStorageManager

__all__ = [
    "AsyncSimpleStorageManager",
    "KVStorageManager",
    "StorageManager",
    "StorageManagerFactory",
]
