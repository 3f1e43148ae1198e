"""The sampler SequentialSampler."""

from ctq import SequentialSampler

__all__ = ["SequentialSampler"]
