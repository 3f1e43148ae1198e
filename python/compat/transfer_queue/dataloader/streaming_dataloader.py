"""The data loader of streaming datasets."""

from ctq.streaming import StreamingDataLoader

__all__ = ["StreamingDataLoader"]
