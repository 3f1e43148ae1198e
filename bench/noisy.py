"""A quiet client beside noisy ones (noise.py): how long its small operations take while large batches stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.subjects import Subject

PUT = 64 << 20
READ = 1 << 30
OPERATIONS = ("kv_put", "claim")


def measure(
    rounds: int,
    scale: float,
    count: int,
    subjects: dict[str, Subject],
    tick: Callable[[str], None],
) -> list[dict[str, Any]]:
    """By round and side: seconds of each operation, and what the noisy clients have moved meanwhile."""
    found: list[dict[str, Any]] = []
    if rounds == 0:
        return found
    for subject in subjects.values():
        subject.ask("noise_open", put=round(PUT * scale), read=round(READ * scale))
    for _ in range(rounds):
        found.append({name: _round(subject, count) for name, subject in subjects.items()})
        tick("noisy")
    for subject in subjects.values():
        subject.ask("noise_close")
    return found


def _round(subject: Subject, count: int) -> dict[str, Any]:
    subject.ask("noise_go")
    seconds = {
        operation: subject.ask("small", operation=operation, count=count)["seconds"]
        for operation in OPERATIONS
    }
    return {**seconds, "moved": subject.ask("noise_stop")}
