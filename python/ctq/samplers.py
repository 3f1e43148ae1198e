"""Samplers: which of the ready samples a claim gets.

The sampling itself is done by the controller, in C.  These classes name a sampler and hold what it was
made with; both go into the configuration, and each claim can override it by its `sampling_config`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .errors import ConfigError, UnsupportedError


class BaseSampler:
    """Base of all samplers."""

    name: ClassVar[str] = ""
    """Name by which the controller knows it; empty: it is not one of the controller's."""

    def sampling_config(self) -> dict[str, Any]:
        """What it was made with, as entries of a claim's `sampling_config`."""
        return {}

    def __repr__(self) -> str:
        made_with = ", ".join(f"{key}={value!r}" for key, value in self.sampling_config().items())
        return f"{type(self).__name__}({made_with})"


class SequentialSampler(BaseSampler):
    """Ready samples in the order of their indexes; fewer than asked when there are not more."""

    name = "SequentialSampler"


class GRPOGroupNSampler(BaseSampler):
    """Whole groups of samples, those of one prompt: by group id, else n consecutive ones."""

    name = "GRPOGroupNSampler"

    def __init__(self, n_samples_per_prompt: int = 1) -> None:
        if isinstance(n_samples_per_prompt, bool) or not isinstance(n_samples_per_prompt, int):
            raise TypeError(f"n_samples_per_prompt must be an int, got {n_samples_per_prompt!r}")
        if n_samples_per_prompt < 1:
            raise ValueError(f"n_samples_per_prompt must be positive, got {n_samples_per_prompt}")
        self.n_samples_per_prompt = n_samples_per_prompt

    def sampling_config(self) -> dict[str, Any]:
        """The size of a group."""
        return {"n_samples_per_prompt": self.n_samples_per_prompt}


def describe(sampler: Any) -> tuple[str, dict[str, Any]]:
    """Name and settings of a sampler given as an instance or class."""
    if isinstance(sampler, type) and issubclass(sampler, BaseSampler):
        sampler = sampler()
    if not isinstance(sampler, BaseSampler):
        raise ConfigError(
            f"controller.sampler: expected the name of a sampler, or a sampler, got {sampler!r}"
        )
    if not sampler.name or "sample" in vars(type(sampler)):
        raise UnsupportedError(
            f"controller.sampler: {type(sampler).__name__} samples in Python, which this version cannot; "
            "use one of the controller's samplers, or write one in C (tq/sampler.h)"
        )
    return sampler.name, sampler.sampling_config()
