"""Cases of the differential test, and the systems they run in."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .answers import Answer, of, of_error

# The kinds of system for cases, each with its configuration; started in this order.
SETUPS: dict[str, dict[str, Any]] = {
    "none": {},
    "polling": {"controller": {"polling_mode": True}},
    "grpo": {"controller": {"polling_mode": True, "sampler": ("GRPOGroupNSampler", [2])}},
    "rank": {"controller": {"polling_mode": True, "sampler": ("RankAwareSampler", [])}},
    "seqlen": {"controller": {"polling_mode": True, "sampler": ("SeqlenBalancedSampler", [2, 2])}},
    "waiting": {},
}
"""`none`: without a system.  A sampler is given as its class and constructor arguments."""


@dataclass
class Script:
    """The calls of a case, and their answers."""

    tq: ModuleType
    name: str
    scratch: Path
    config: Any = None
    base: int = 0
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def client(self) -> Any:
        """The client of the system."""
        return self.tq.get_client()

    def pid(self, name: str = "p") -> str:
        """A partition of this case."""
        return f"{self.name}/{name}"

    def note(self, value: Any, *, listed: str | None = None) -> None:
        """Record an answer; `listed` is the id of a known disagreement."""
        try:
            told: Answer = of(value, self.base)
        except Exception as error:  # noqa: BLE001 - an answer that cannot be read is an answer too
            told = {"unreadable": of_error(error)}
        self.answers.append({"answer": told, "listed": listed})

    def call(
        self, function: Callable[..., Any], *args: Any, listed: str | None = None, **named: Any
    ) -> Any:
        """Call, record the result or the exception, and return it."""
        try:
            value = function(*args, **named)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
        except Exception as error:  # noqa: BLE001 - the exception itself is compared
            value = error
        self.note(value, listed=listed)
        return value

    def status(self, function: Callable[..., Any], *args: Any, listed: str | None = None) -> None:
        """Record a status call, with indexes relative to the case's first."""
        try:
            indexes, status = function(*args)
        except Exception as error:  # noqa: BLE001
            self.note(error, listed=listed)
            return
        if indexes is not None:
            indexes = indexes - self.base
        self.note((indexes, status), listed=listed)

    def forced(self, fields: list[str], pid: str) -> Any:
        """All samples of a partition in order, because upstream returns them in the order of a Python set."""
        meta = self.client.get_meta(fields, 1, pid, "force_fetch")
        order = sorted(range(meta.size), key=meta.global_indexes.__getitem__)
        return meta.select_samples(order)

    # --- data written by cases --------------------------------------------------------------------

    def rows(self, count: int, start: int = 0) -> Any:
        """A dense column of two numbers per row."""
        return torch.arange(start * 2, (start + count) * 2, dtype=torch.float32).reshape(count, 2)

    def data(self, **columns: Any) -> Any:
        """Columns as a TensorDict."""
        from tensordict import TensorDict

        return TensorDict(columns, batch_size=len(next(iter(columns.values()))))

    def fill(self, keys: list[str], pid: str, *fields: str) -> Any:
        """Put one number per key into each of the fields."""
        columns = {name: self.rows(len(keys), place) for place, name in enumerate(fields or ("x",))}
        return self.tq.kv_batch_put(keys, pid, self.data(**columns))


Run = Callable[[Script], None]


@dataclass(frozen=True)
class Case:
    """A case: the point of the contract that it is about, and the kind of system it needs."""

    point: int
    name: str
    setup: str
    run: Run


CASES: list[Case] = []


def case(point: int, setup: str = "polling") -> Callable[[Run], Run]:
    """Register the decorated function as a case for a point."""

    def register(run: Run) -> Run:
        name = run.__name__.strip("_").replace("_", "-")
        assert all(other.name != name for other in CASES), f"two cases are named {name}"
        CASES.append(Case(point, name, setup, run))
        return run

    return register


def listed_ids(document: Path) -> dict[str, str]:
    """Ids of the disagreements listed on the page, with their descriptions."""
    rows = re.findall(
        r"^\| (D\d\d) \| (.+) \|$", document.read_text(encoding="utf-8"), re.MULTILINE
    )
    return dict(rows)
