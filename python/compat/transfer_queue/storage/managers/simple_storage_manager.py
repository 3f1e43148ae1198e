"""The manager over storage units."""

from ctq import AsyncSimpleStorageManager

__all__ = ["AsyncSimpleStorageManager"]
