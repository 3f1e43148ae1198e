"""Storage managers."""

from ctq import (
    AsyncSimpleStorageManager,
    StorageKeyNotFoundError,
    StorageManager,
    StorageManagerFactory,
)
from ctq.ray_actor import SimpleStorageUnit
from ctq.storage import KVStorageManager, StorageClientFactory, StorageKVClient

__all__ = [
    "AsyncSimpleStorageManager",
    "KVStorageManager",
    "SimpleStorageUnit",
    "StorageClientFactory",
    "StorageKVClient",
    "StorageKeyNotFoundError",
    "StorageManager",
    "StorageManagerFactory",
]
