"""The sampler SeqlenBalancedSampler, and how it balances."""

from transferq import SeqlenBalancedSampler
from transferq.samplers import get_seqlen_balanced_partitions

__all__ = ["SeqlenBalancedSampler", "get_seqlen_balanced_partitions"]
