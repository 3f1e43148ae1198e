"""Storage units as programs on Ray know them, and the error of a read whose data is gone."""

from transferq import StorageKeyNotFoundError
from transferq.ray import SimpleStorageUnit

__all__ = ["SimpleStorageUnit", "StorageKeyNotFoundError"]
