"""The streaming dataset."""

from transferq.streaming import StreamingDataset, chunk_batch_fn, default_fetch_batch_fn

__all__ = ["StreamingDataset", "chunk_batch_fn", "default_fetch_batch_fn"]
