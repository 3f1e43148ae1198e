"""The data loader of streaming datasets."""

from transferq.streaming import StreamingDataLoader

__all__ = ["StreamingDataLoader"]
