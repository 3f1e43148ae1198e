"""The base of all samplers."""

from transferq import BaseSampler

__all__ = ["BaseSampler"]
