"""Measuring: round after round, in each of them one side after the other."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench import demo, hosts, limits, listing, noisy
from bench import scale as crowds
from bench.others import RayObjects, Redis
from bench.subjects import ROOT, Subject
from bench.workloads import WORKLOADS, size

Tick = Callable[[str], None]
"""Told of each step that was done, for the progress bar."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 5
    scale: float = 1.0
    calls: int = 500
    claims: int = 200
    listed: int = 100_000
    many: int = 1_000_000
    few: int = 10_000
    workloads: tuple[str, ...] = ("simple", "complex", "grpo-longtail", "multimodal")
    others: bool = True
    crowd: crowds.Scale = crowds.FULL
    noisy: bool = True
    hosts: bool = True
    updates: int = 60
    """Optimizer steps of the demo; 0 leaves it out."""

    def steps(self) -> int:
        """Number of ticks of a run."""
        each = len(self.workloads) + len(OPERATIONS) + len(CALLERS) + 6
        each += self.noisy + self.hosts + bool(self.updates)
        return self.rounds * each + len(crowds.STEPS)


QUICK = Plan(
    rounds=3,
    scale=0.125,
    calls=100,
    claims=50,
    listed=10_000,
    many=100_000,
    crowd=crowds.QUICK,
    updates=0,
)

OPERATIONS = ("kv_put", "tag_put", "claim", "kv_get", "kv_get_dense")
CALLERS = (1, 16, 256)


def measure(plan: Plan, tick: Tick, peer: bool = True) -> dict[str, Any]:
    """Everything that the figures are made of, and of what and where."""
    sides = {"ctq": (".venv", "ctq")}
    if peer:
        sides["peer"] = (".venv-peer", "transfer_queue")
    results: dict[str, Any] = {"about": about(), "init": []}
    for _ in range(plan.rounds):
        results["init"].append({name: _start_up(name, *side) for name, side in sides.items()})
        tick("init")
    with ExitStack() as stack:
        subjects = {
            name: stack.enter_context(_running(name, *side)) for name, side in sides.items()
        }
        results["small"] = _small(plan, subjects, tick)
        results["concurrent"] = _concurrent(plan, subjects, tick)
        results["noisy"] = noisy.measure(
            plan.rounds if plan.noisy else 0, plan.scale, plan.claims, subjects, tick
        )
        results["listing"] = []
        for _ in range(plan.rounds):
            results["listing"].append(
                _each(subjects, "seconds", "listing", keys=plan.listed, tags=7)
            )
            tick("kv_list")
        results["claims while listing"] = []
        for _ in range(plan.rounds):
            found = listing.measure(subjects["ctq"], sides["ctq"][0], plan.listed)
            results["claims while listing"].append(found)
            tick("claims, kv_list")
        results["growth"] = []
        for _ in range(plan.rounds):
            count = min(plan.claims, plan.few // 64)
            few = subjects["ctq"].ask("growth", samples=plan.few, count=count)
            many = subjects["ctq"].ask("growth", samples=plan.many, count=count)
            results["growth"].append({"few": few["seconds"], "many": many["seconds"]})
            tick("growth")
        results["batches"] = {name: [] for name in plan.workloads}
        for name in plan.workloads:
            _batches(plan, name, subjects, results["batches"][name], tick)
        results["zero-copy"] = []
        for _ in range(plan.rounds):
            shown = subjects["ctq"].ask("zero_copy", scale=plan.scale, count=20)
            results["zero-copy"].append(shown["seconds"])
            tick("zero-copy")
    results["demo"] = []
    for _ in range(plan.rounds if plan.updates else 0):
        results["demo"].append(
            {name: demo.run(*side, plan.updates) for name, side in sides.items()}
        )
        tick("demo")
    results["hosts"] = hosts.measure(plan.rounds if plan.hosts else 0, plan.scale, tick)
    results["scale"] = crowds.measure(plan.crowd, plan.rounds, tick)
    results["limits"] = []
    for _ in range(plan.rounds):
        results["limits"].append(
            {
                "unix stream": limits.stream(256 << 20, socket.AF_UNIX),
                "tcp stream": limits.stream(256 << 20, socket.AF_INET),
                "round trip": limits.round_trip(),
            }
        )
        tick("limits")
    return results


def about() -> dict[str, Any]:
    """The machine and the versions."""
    packages = ("ctq", "torch", "tensordict", "ray", "numpy")
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "transferqueue": "0.1.11",
    }


@contextmanager
def _running(name: str, environment: str, package: str) -> Iterator[Subject]:
    """A worker with a system."""
    with Subject(name, environment, package) as subject:
        subject.ask("init")
        yield subject
        subject.ask("close")


def _start_up(name: str, environment: str, package: str) -> float:
    with Subject(name, environment, package) as subject:
        seconds = float(subject.ask("init")["seconds"])
        subject.ask("close")
        return seconds


def _each(subjects: dict[str, Subject], key: str, do: str, **args: Any) -> dict[str, Any]:
    """What each side measures for one question."""
    return {name: subject.ask(do, **args)[key] for name, subject in subjects.items()}


def _small(plan: Plan, subjects: dict[str, Subject], tick: Tick) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for operation in OPERATIONS:
        count = plan.claims if operation == "claim" else plan.calls
        _each(subjects, "seconds", "small", operation=operation, count=20)  # warm
        found[operation] = []
        for _ in range(plan.rounds):
            found[operation].append(
                _each(subjects, "seconds", "small", operation=operation, count=count)
            )
            tick(operation)
    return found


def _concurrent(plan: Plan, subjects: dict[str, Subject], tick: Tick) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for callers in CALLERS:
        found[str(callers)] = []
        for _ in range(plan.rounds):
            found[str(callers)].append(
                _each(subjects, "per_second", "concurrent", callers=callers, count=plan.calls)
            )
            tick(f"{callers} callers")
    return found


def _batches(
    plan: Plan, name: str, subjects: dict[str, Subject], rounds: list[Any], tick: Tick
) -> None:
    """One workload; for the simple one also what else moves its bytes."""
    others: list[RayObjects | Redis] = (
        [RayObjects(), Redis()] if plan.others and name == "simple" else []
    )
    columns = WORKLOADS[name].columns(plan.scale) if others else None
    try:
        for subject in subjects.values():
            subject.ask("batch", workload=name, scale=plan.scale, check=True)  # warm, and right
        for _ in range(plan.rounds):
            found = {
                side: subject.ask("batch", workload=name, scale=plan.scale, check=False)
                for side, subject in subjects.items()
            }
            if columns is not None:
                found |= {other.name: other.batch(columns) for other in others}
                copied = limits.warm_copy(size(columns))
                found["warm copy"] = {"put": copied, "get": copied}
            rounds.append(found)
            tick(name)
    finally:
        for other in others:
            other.close()


OUT = ROOT / "out" / "bench"
