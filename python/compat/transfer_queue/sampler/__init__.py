"""Samplers."""

from ctq import BaseSampler, GRPOGroupNSampler, SequentialSampler

__all__ = ["BaseSampler", "GRPOGroupNSampler", "SequentialSampler"]
