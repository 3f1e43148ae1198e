"""Rows that show which sample they belong to, and whether they are whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

STEP = 1_000_003
"""Rows of consecutive numbers differ by this in every element."""


def row(number: int, size: int) -> np.ndarray:
    """The row with this number: `size` values; any two rows differ in every element."""
    return np.arange(size, dtype=np.int64) * 7919 + number * STEP


def rows(numbers: Iterable[int], size: int) -> np.ndarray:
    """Rows of equal size."""
    return np.stack([row(number, size) for number in numbers])


def number_of(value: Any) -> int:
    """The number of a row that was read; fails on a row pieced together from several."""
    values = np.asarray(value)
    number, rest = divmod(int(values[0]), STEP)
    assert rest == 0, f"a row begins with {int(values[0])}"
    torn = np.flatnonzero(values != row(number, len(values)))
    assert torn.size == 0, f"row {number} is torn from value {torn[0]} of {len(values)} on"
    return number


def numbers_of(column: Any) -> list[int]:
    """The numbers of the rows of a column."""
    return [number_of(value) for value in unbound(column)]


def unbound(column: Any) -> list[Any]:
    """The rows of a column of any kind."""
    return list(column.unbind()) if hasattr(column, "unbind") else list(column)
