"""Storage managers."""

from ctq import AsyncSimpleStorageManager, StorageManager, StorageManagerFactory

__all__ = ["AsyncSimpleStorageManager", "StorageManager", "StorageManagerFactory"]
