"""Metadata of samples."""

from transferq import BatchMeta, KVBatchMeta

__all__ = ["BatchMeta", "KVBatchMeta"]
