"""Storage managers."""

from ctq import (
    AsyncSimpleStorageManager,
    StorageKeyNotFoundError,
    StorageManager,
    StorageManagerFactory,
)
from ctq.storage import KVStorageManager, StorageClientFactory, StorageKVClient

__all__ = [
    "AsyncSimpleStorageManager",
    "KVStorageManager",
    "StorageClientFactory",
    "StorageKVClient",
    "StorageKeyNotFoundError",
    "StorageManager",
    "StorageManagerFactory",
]
