"""Batches of a system as a PyTorch dataset and data loader."""

from transferq.streaming import StreamingDataLoader, StreamingDataset

__all__ = ["StreamingDataLoader", "StreamingDataset"]
