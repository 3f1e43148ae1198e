"""The factory of storage managers."""

from transferq import StorageManagerFactory, TransferQueueStorageManagerFactory

__all__ = ["StorageManagerFactory", "TransferQueueStorageManagerFactory"]
