"""The error of a read whose data is gone."""

from ctq import StorageKeyNotFoundError

__all__ = ["StorageKeyNotFoundError"]
