"""Storage units as programs on Ray know them, and the error of a read whose data is gone."""

from ctq import StorageKeyNotFoundError
from ctq.ray_actor import SimpleStorageUnit

__all__ = ["SimpleStorageUnit", "StorageKeyNotFoundError"]
