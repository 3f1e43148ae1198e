"""The sampler GRPOGroupNSampler."""

from ctq import GRPOGroupNSampler

__all__ = ["GRPOGroupNSampler"]
