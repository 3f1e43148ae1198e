"""Metadata of samples."""

from ctq import BatchMeta, KVBatchMeta

__all__ = ["BatchMeta", "KVBatchMeta"]
