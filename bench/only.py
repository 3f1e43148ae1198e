"""Single parts of the benchmark, on one system of each side: `python -m bench --only texts,images`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench import scale as crowds
from bench.run import (
    ASYNC,
    CALLERS,
    KEEPS,
    OPERATIONS,
    STALLS,
    Plan,
    Tick,
    about,
    batches,
    sides_of,
    small,
    stalls,
    system,
    texts,
    zero_copy,
)
from bench.subjects import Subject
from bench.workloads import WORKLOADS

PARTS = (*WORKLOADS, "texts", *(f"gaps-{name}" for name in STALLS), "zero-copy", *OPERATIONS)
"""Batches by workload; "texts": reads of long texts beside decoding them; "gaps": how long the event loop is blocked."""


def steps(plan: Plan, parts: list[str]) -> int:
    """Number of ticks in a run."""
    return sum(plan.long_rounds if part.startswith("gaps-") else plan.rounds for part in parts)


def measure(plan: Plan, parts: list[str], tick: Tick, upstream: bool = True) -> dict[str, Any]:
    """The results of a whole run for these parts; the entries of other parts are empty."""
    results = _nothing() | {"about": about(upstream)}
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(Subject(name, *side))
            for name, side in sides_of(upstream).items()
        }
        reader = stack.enter_context(Subject("reader", *sides_of(upstream)["transferq"], **KEEPS))
        for each in (*sides.values(), reader):
            each.ready()
        with ExitStack() as systems:
            for each in sides.values():
                systems.enter_context(system(each))
            for part in parts:
                if part in WORKLOADS:
                    batches(plan, part, sides, results["batches"].setdefault(part, []), tick)
                elif part in OPERATIONS:
                    results["small"] |= small(plan, [part], sides, tick)
                elif part == "texts":
                    results["texts"] = texts(plan, sides["transferq"], reader, tick)
                elif part == "zero-copy":
                    results["zero-copy"] = zero_copy(plan, sides["transferq"], tick)
                else:
                    name = part.removeprefix("gaps-")
                    results["stalls"][name] = stalls(plan, name, sides, tick)
    return results


def _nothing() -> dict[str, Any]:
    """The results of a run in which nothing was measured."""
    each: tuple[str, ...] = ("init", "noisy", "listing", "claims while listing", "growth")
    each += ("texts", "zero-copy", "demo", "limits")
    return {
        **{name: [] for name in each},
        "small": {},
        "batches": {},
        "stalls": {},
        "concurrent": {name: {str(callers): [] for callers in CALLERS} for name in ASYNC},
        "scale": {step: [] for step in crowds.STEPS},
        "hosts": {"rounds": [], "skipped": "not asked for"},
    }
