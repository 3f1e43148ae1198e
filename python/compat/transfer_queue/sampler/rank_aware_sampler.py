"""The sampler RankAwareSampler."""

from ctq import RankAwareSampler

__all__ = ["RankAwareSampler"]
