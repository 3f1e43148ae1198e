"""The sampler SequentialSampler."""

from transferq import SequentialSampler

__all__ = ["SequentialSampler"]
