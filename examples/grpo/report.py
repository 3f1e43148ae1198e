"""The report of a run: numbers for people, a picture, and a file to compare with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import timeline
from .launch import Outcome
from .trainer import level

STAGES = {
    "rollout": "tab:blue",
    "reward": "tab:green",
    "reference": "tab:orange",
    "trainer": "tab:red",
}
BEFORE, AFTER = 1.5, 4.0
"""Seconds that the timeline shows before a worker is killed and after another joins."""


def seconds_to(curve: list[tuple[float, float, float]], goal: float) -> float | None:
    """When a curve reached a reward, or None."""
    for end in range(1, len(curve) + 1):
        if level(curve[:end]) >= goal:
            return curve[end - 1][0]
    return None


def tell(outcome: Outcome) -> None:
    """Prints the numbers of a run."""
    rate = outcome.consumed / outcome.seconds if outcome.seconds else 0.0
    mean_age = sum(age * count for age, count in enumerate(outcome.ages)) / max(
        1, sum(outcome.ages)
    )
    oldest = max((age for age, count in enumerate(outcome.ages) if count), default=0)
    print(
        f"samples: {outcome.produced} produced = {outcome.consumed} consumed"
        f" + {outcome.left} left + {outcome.dropped} dropped"
    )
    print(
        f"speed: {rate:.0f} samples/s for {outcome.seconds:.1f} s,"
        f" {outcome.moved / 1e6:.1f} MB moved through the queue"
    )
    print(
        f"time in the queue: {outcome.busy_share:.1%} of the processes' time in put, get and clear"
        f" (and {outcome.waiting_share:.1%} waiting for samples)"
    )
    print(
        f"weights: trained samples were {mean_age:.1f} versions behind on average, {oldest} at most"
    )
    print(f"stages: two or more at work for {timeline.overlap(outcome.spans):.0%} of the time")
    print(f"held-out reward: {outcome.reward_start:.3f} before, {outcome.reward_end:.3f} after")


def compare(streamed: Outcome, lockstep: Outcome) -> str:
    """Time to equal reward: the highest reward that both have reached."""
    goal = 0.98 * min(level(streamed.curve), level(lockstep.curve))
    fast, slow = seconds_to(streamed.curve, goal), seconds_to(lockstep.curve, goal)
    if not fast or not slow:
        return f"time to a held-out reward of {goal:.2f}: not reached by both"
    return (
        f"time to a held-out reward of {goal:.2f}: {fast:.1f} s streamed, {slow:.1f} s in lock-step"
        f" ({slow / fast:.2f} times as long)"
    )


def save(outcome: Outcome, path: Path) -> None:
    """Writes a run's outcome as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(outcome)) + "\n")


def draw(outcome: Outcome, path: Path, lockstep: Outcome | None = None) -> None:
    """Writes one picture: learning curve, versions behind, timeline."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    parts = figure.subplot_mosaic([["curve", "ages"], ["time", "time"]])
    _draw_curve(parts["curve"], outcome, lockstep)
    _draw_ages(parts["ages"], outcome)
    _draw_timeline(parts["time"], outcome)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_curve(axes: Axes, outcome: Outcome, lockstep: Outcome | None) -> None:
    name = "lock-step" if outcome.settings.lockstep else "streamed"
    for label, run in ((name, outcome), ("lock-step", lockstep)):
        if run is not None:
            axes.plot(
                [point[0] for point in run.curve], [point[2] for point in run.curve], label=label
            )
    axes.axhline(3 * outcome.reward_start, color="grey", linestyle=":", label="3 x the start")
    axes.set(xlabel="seconds", ylabel="held-out reward", ylim=(0, 1), title="Learning")
    axes.legend(loc="upper left")


def _draw_ages(axes: Axes, outcome: Outcome) -> None:
    axes.bar(range(len(outcome.ages)), outcome.ages)
    axes.set(xlabel="weight versions behind", ylabel="trained samples", title="Age of the samples")
    axes.locator_params(axis="x", integer=True)


def _draw_timeline(axes: Axes, outcome: Outcome) -> None:
    """Which process worked when, around the moments when a worker is killed and another joins."""
    first, last = timeline.bounds(outcome.spans)
    moments = outcome.moments.values() or [(first + last) / 2]
    start = max(first, min(moments) - BEFORE)
    names = sorted(outcome.spans, key=lambda name: (list(STAGES).index(_stage(name)), name))
    for row, name in enumerate(reversed(names)):
        bars = [(begin - start, end - begin) for begin, end in outcome.spans[name]]
        axes.broken_barh(bars, (row - 0.4, 0.8), color=STAGES[_stage(name)])
    for what, moment in outcome.moments.items():
        axes.axvline(moment - start, color="black", linestyle="--")
        axes.annotate(f" {what}", (moment - start, len(names) - 0.5))
    axes.set(
        xlim=(0, min(last, max(moments) + AFTER) - start),
        ylim=(-0.6, len(names) - 0.1),
        xlabel=f"seconds, from {start - first:.1f} s after the first work",
        title="The stages at work",
    )
    axes.set_yticks(range(len(names)), names[::-1])


def _stage(name: str) -> str:
    """The stage that a process belongs to, by its name."""
    return name.split("-", maxsplit=1)[0]
