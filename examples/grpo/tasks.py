"""The task: look at a handwritten digit, think for as long as it takes, name the digit.

An answer is a sequence of tokens.  ``THINK`` continues it; one of the tokens 0 to 9 names the digit
and ends the answer.  Whether an answer is right can be seen from its tokens and the label alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

THINK = 10
START = 11
VOCABULARY = 12
MAX_TOKENS = 96
PIXELS = 64


def reward(answer: Tensor, label: int) -> float:
    """1 if the answer ends in the label's digit, else 0 (also if it was cut off while thinking)."""
    return float(int(answer[-1]) == label)


@dataclass(frozen=True)
class Prompts:
    """Images (rows of 64 grey values between 0 and 1) and the digits they show."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def shuffled(self, seed: int) -> Iterator[int]:
        """Rows in random order, over and over."""
        rng = np.random.default_rng(seed)
        while True:
            yield from rng.permutation(len(self)).tolist()


def load_digits(seed: int = 0) -> tuple[Prompts, Prompts]:
    """Scikit-learn's 1797 handwritten digits, split into prompts to learn from and held-out ones."""
    from sklearn.datasets import load_digits as load

    data = load()
    order = np.random.default_rng(seed).permutation(len(data.target))
    images = torch.from_numpy(data.data[order].astype(np.float32) / 16.0)
    labels = torch.from_numpy(data.target[order].astype(np.int64))
    held_out = len(labels) // 5
    return (
        Prompts(images[held_out:], labels[held_out:]),
        Prompts(images[:held_out], labels[:held_out]),
    )
