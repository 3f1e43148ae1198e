"""Storage managers."""

from transferq import (
    AsyncSimpleStorageManager,
    StorageKeyNotFoundError,
    StorageManager,
    StorageManagerFactory,
)
from transferq.ray import SimpleStorageUnit
from transferq.storage import KVStorageManager, StorageClientFactory, StorageKVClient

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
