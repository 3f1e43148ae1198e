"""The base of all samplers."""

from ctq import BaseSampler

__all__ = ["BaseSampler"]
