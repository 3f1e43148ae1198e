"""A process's own records, in the queue: when it worked, and how much time the queue took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .queues import Fields, Queue
from .settings import RECORDS


class Record:
    """A process's own record, written to partition `records` under the process's name."""

    INTERVAL = 1.0
    """Seconds between two writes, short enough that little is lost if the process is killed."""

    def __init__(self, queue: Queue, name: str) -> None:
        self.queue = queue
        self.name = name
        self.started = time.time()
        self.spans: list[float] = []
        self._written = 0.0

    @contextmanager
    def work(self) -> Iterator[None]:
        """Marks the time inside as work (as opposed to waiting for samples)."""
        start = time.time()
        yield
        self.spans += [start, time.time()]

    def put_now_and_then(self, **tags: Any) -> None:
        """Writes the record if the last write was a while ago."""
        if time.time() - self._written > self.INTERVAL:
            self.put(**tags)

    def put(self, fields: Fields | None = None, **tags: Any) -> None:
        """Writes the record."""
        self._written = time.time()
        account = {
            "seconds": self._written - self.started,
            "busy": self.queue.busy,
            "waiting": self.queue.waiting,
            "moved": self.queue.moved,
        }
        spans = torch.tensor([self.started, *self.spans], dtype=torch.float64)
        self.queue.put(
            RECORDS,
            keys=[self.name],
            fields={"spans": [spans], **(fields or {})},
            tags=[{**account, **tags}],
        )
