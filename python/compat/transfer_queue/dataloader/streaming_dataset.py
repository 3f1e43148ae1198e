"""The streaming dataset."""

from ctq.streaming import StreamingDataset, chunk_batch_fn, default_fetch_batch_fn

__all__ = ["StreamingDataset", "chunk_batch_fn", "default_fetch_batch_fn"]
