"""When each process worked, for the timeline."""

from __future__ import annotations

from typing import Any

import numpy as np

from .queues import Queue, rows
from .settings import RECORDS

Spans = dict[str, list[tuple[float, float]]]
"""Per process, the times (start, end) at which it worked."""


class Events:
    """The queue's own record of what its clients did, collected while they do it."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.seen: list[dict[str, Any]] = []
        self._last = max((event["seq"] for event in queue.events(since=0)), default=0)

    def collect(self) -> None:
        """Fetches the events since the last call."""
        fresh = self.queue.events(since=self._last)
        self.seen += [event for event in fresh if event["seq"] > self._last]
        self._last = max((event["seq"] for event in fresh), default=self._last)

    def spans(self) -> Spans:
        """A process works from when it receives samples until it has put its results."""
        spans: Spans = {}
        given: dict[str, float] = {}
        for event in self.seen:
            client = event["session"]
            if event["kind"] == "claim":
                given[client] = event["time"]
            elif event["kind"] == "put" and client in given and not _is_record(event):
                spans.setdefault(client, []).append((given.pop(client), event["time"]))
        return spans


def _is_record(event: dict[str, Any]) -> bool:
    return str(event["partition"]).endswith(RECORDS)


def recorded_spans(queue: Queue) -> Spans:
    """The processes' own records, for a queue that does not record events."""
    spans: Spans = {}
    for name in queue.tags(RECORDS):
        times = rows(queue.read(RECORDS, [name], ["spans"])["spans"])[0].tolist()[1:]
        spans[name] = list(zip(times[::2], times[1::2], strict=True))
    return spans


def overlap(spans: Spans) -> float:
    """Time with work on more than one stage, as a share of the time with any work."""
    edges: list[tuple[float, int, str]] = []
    for name, times in spans.items():
        stage = name.split("-")[0]
        for start, end in times:
            edges += [(start, 1, stage), (end, -1, stage)]
    active: dict[str, int] = {}
    worked = together = 0.0
    before = 0.0
    for time, change, stage in sorted(edges):
        stages = sum(count > 0 for count in active.values())
        worked += (time - before) * (stages > 0)
        together += (time - before) * (stages > 1)
        active[stage] = active.get(stage, 0) + change
        before = time
    return together / worked if worked else 0.0


def bounds(spans: Spans) -> tuple[float, float]:
    """First start and last end of any work."""
    times = np.array([edge for spells in spans.values() for spell in spells for edge in spell])
    return (float(times.min()), float(times.max())) if len(times) else (0.0, 1.0)
