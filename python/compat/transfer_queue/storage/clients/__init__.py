"""Clients of key-value stores."""

from transferq.storage import StorageClientFactory, StorageKVClient

__all__ = ["StorageClientFactory", "StorageKVClient"]
