"""The sampler GRPOGroupNSampler."""

from transferq import GRPOGroupNSampler

__all__ = ["GRPOGroupNSampler"]
