"""The factory of storage managers."""

from ctq import StorageManagerFactory, TransferQueueStorageManagerFactory

__all__ = ["StorageManagerFactory", "TransferQueueStorageManagerFactory"]
