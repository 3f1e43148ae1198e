"""Storage managers."""

from ctq import (
    AsyncSimpleStorageManager,
    StorageKeyNotFoundError,
    StorageManager,
    StorageManagerFactory,
)

__all__ = [
    "AsyncSimpleStorageManager",
    "StorageKeyNotFoundError",
    "StorageManager",
    "StorageManagerFactory",
]
