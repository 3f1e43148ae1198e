"""The sampler RankAwareSampler."""

from transferq import RankAwareSampler

__all__ = ["RankAwareSampler"]
