"""The base of clients of key-value stores, and their factory."""

from transferq.storage import StorageClientFactory, StorageKVClient

__all__ = ["StorageClientFactory", "StorageKVClient"]
