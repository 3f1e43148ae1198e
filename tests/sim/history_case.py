"""What the rules of check_history.py look at, and what they find."""

from __future__ import annotations

from typing import NamedTuple

from history_file import History, Op
from history_samples import Samples

SECOND = 1_000_000_000


class Finding(NamedTuple):
    """A rule that is broken."""

    rule: str
    text: str
    lines: list[int]


class Case(NamedTuple):
    """What the rules look at."""

    history: History
    samples: Samples
    late: float  # seconds that a deadline may be exceeded by


def finding(rule: str, text: str, *ops: Op) -> Finding:
    lines = sorted({line for op in ops for line in op.lines})
    return Finding(rule, text, lines)
