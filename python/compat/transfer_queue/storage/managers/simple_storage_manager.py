"""The manager over storage units."""

from transferq import AsyncSimpleStorageManager

__all__ = ["AsyncSimpleStorageManager"]
