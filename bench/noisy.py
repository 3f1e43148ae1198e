"""A quiet client beside noisy ones (noise.py): how long its small operations take while large batches stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.subjects import Subject

PUT = 64 << 20
READ = 1 << 30
OPERATIONS = ("kv_put", "claim")
WARM = 3.0
"""Seconds of streaming before the calls: by then the storage units have regained the memory released in the pause before."""
LEAST = 2.0
"""Seconds of calls in a round: a hundredth of the calls must be more than one or two."""


def measure(
    rounds: int,
    scale: float,
    count: int,
    subjects: dict[str, Subject],
    tick: Callable[[str], None],
) -> list[dict[str, Any]]:
    """By round and side: seconds of each operation, and the data that the noisy clients moved meanwhile.

    At least `count` calls of each operation, and as many more as fit into LEAST.  `scale` applies to bytes and seconds.
    """
    found: list[dict[str, Any]] = []
    if rounds == 0:
        return found
    for subject in subjects.values():
        subject.ask("noise_open", put=round(PUT * scale), read=round(READ * scale))
    for _ in range(rounds):
        found.append({name: _round(subject, count, scale) for name, subject in subjects.items()})
        tick("noisy")
    for subject in subjects.values():
        subject.ask("noise_close")
    return found


def _round(subject: Subject, count: int, scale: float) -> dict[str, Any]:
    subject.ask("noise_go", seconds=WARM * scale)
    seconds = {
        operation: _calls(subject, operation, count, LEAST * scale) for operation in OPERATIONS
    }
    return {**seconds, "moved": subject.ask("noise_stop")}


def _calls(subject: Subject, operation: str, count: int, least: float) -> list[float]:
    seconds: list[float] = []
    started = time.perf_counter()
    while not seconds or time.perf_counter() - started < least:
        seconds += subject.ask("small", operation=operation, count=count)["seconds"]
    return seconds
