"""Clients of key-value stores."""

from ctq.storage import StorageClientFactory, StorageKVClient

__all__ = ["StorageClientFactory", "StorageKVClient"]
