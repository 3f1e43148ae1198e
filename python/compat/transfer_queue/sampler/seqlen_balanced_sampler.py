"""The sampler SeqlenBalancedSampler, and how it balances."""

from ctq import SeqlenBalancedSampler
from ctq.samplers import get_seqlen_balanced_partitions

__all__ = ["SeqlenBalancedSampler", "get_seqlen_balanced_partitions"]
