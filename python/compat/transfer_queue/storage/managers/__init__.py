"""Storage managers."""

from transferq import AsyncSimpleStorageManager, StorageManager, StorageManagerFactory
from transferq.storage import KVStorageManager

__all__ = [
    "AsyncSimpleStorageManager",
    "KVStorageManager",
    "StorageManager",
    "StorageManagerFactory",
]
