"""Measuring: in each round, one side after the other."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import demo, hosts, limits, listing, noisy
from bench import scale as crowds
from bench.others import RayObjects, Redis
from bench.subjects import ROOT, Subject
from bench.workloads import WORKLOADS, size

Tick = Callable[[str], None]
"""Called after each step, for the progress bar."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 5
    long_rounds: int = 5
    """Rounds of slow parts: starts, noisy neighbours, many callers of operations without a target, fresh processes."""
    scale: float = 1.0
    calls: int = 500
    claims: int = 200
    listed: int = 100_000
    many: int = 1_000_000
    few: int = 10_000
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    others: bool = True
    crowd: crowds.Scale = crowds.FULL
    noisy: bool = True
    hosts: bool = True
    updates: int = 60
    """Optimizer steps of the demo; 0 leaves it out."""

    def steps(self) -> int:
        """Number of ticks in a run."""
        each = len(self.workloads) + len(OPERATIONS) + len(CALLERS) + 6
        each += self.hosts + bool(self.updates)
        rarely = 1 + len(STALLS) + self.noisy + (len(ASYNC) - 1) * len(CALLERS)
        return self.rounds * each + self.long_rounds * rarely + len(crowds.STEPS)


QUICK = Plan(
    rounds=2,
    long_rounds=1,
    scale=0.125,
    calls=100,
    claims=50,
    listed=5_000,
    many=100_000,
    crowd=crowds.QUICK,
    noisy=False,
    updates=0,
)

OPERATIONS = ("kv_put", "tag_put", "claim", "kv_get", "kv_get_dense")
ASYNC = ("kv_put", "tag_put", "claim", "kv_get")
"""Operations made concurrently by many callers."""
CALLERS = (1, 16, 256)
STALLS = ("maps", "strings")
"""Batches whose async calls must not block the event loop."""


KEEPS = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_TOP_PAD_": "100000000"}
"""Environment variables that make a process release freed memory late: else page faults dominate the creation of texts."""


def sides_of(upstream: bool) -> dict[str, tuple[str, str]]:
    """Environment and package of each side."""
    sides = {"transferq": (".venv", "transferq")}
    if upstream:
        sides["upstream"] = (".venv-peer", "transfer_queue")
    return sides


def measure(plan: Plan, tick: Tick, upstream: bool = True) -> dict[str, Any]:
    """All results that the figures are computed from, with the machine and the versions."""
    sides = sides_of(upstream)
    results: dict[str, Any] = {"about": about(upstream), "init": []}
    for _ in range(plan.long_rounds - 1):
        results["init"].append({name: _start_up(name, *side) for name, side in sides.items()})
        tick("init")
    with ExitStack() as stack:
        # Imports take seconds, so all processes import at once, before anything is measured.
        workers = {name: stack.enter_context(Subject(name, *side)) for name, side in sides.items()}
        other = stack.enter_context(Subject("other", *sides["transferq"]))
        reader = stack.enter_context(Subject("reader", *sides["transferq"], **KEEPS))
        for each in (*workers.values(), other, reader):
            each.ready()
        with ExitStack() as systems:
            results["init"].append(
                {name: systems.enter_context(system(each)) for name, each in workers.items()}
            )
            tick("init")
            _measure(plan, workers, other, reader, results, tick)
        results["scale"] = crowds.measure(plan.crowd, plan.rounds, plan.long_rounds, other, tick)
    results["demo"] = []
    for _ in range(plan.rounds if plan.updates else 0):
        results["demo"].append(
            {name: demo.run(*side, plan.updates) for name, side in sides.items()}
        )
        tick("demo")
    results["hosts"] = hosts.measure(plan.rounds if plan.hosts else 0, plan.scale, tick)
    results["limits"] = []
    for _ in range(plan.rounds):
        results["limits"].append(
            {
                "unix stream": limits.stream(limits.STREAM, socket.AF_UNIX),
                "tcp stream": limits.stream(limits.STREAM, socket.AF_INET),
                "round trip": limits.round_trip(),
            }
        )
        tick("limits")
    return results


def _measure(
    plan: Plan,
    subjects: dict[str, Subject],
    lister: Subject,
    reader: Subject,
    results: dict[str, Any],
    tick: Tick,
) -> None:
    """Everything measured on one system of each side."""
    results["small"] = small(plan, OPERATIONS, subjects, tick)
    results["concurrent"] = _concurrent(plan, subjects, tick)
    results["noisy"] = noisy.measure(
        plan.long_rounds if plan.noisy else 0, plan.scale, plan.claims, subjects, tick
    )
    results |= listing.measure(plan.rounds, subjects, lister, plan.listed, tick)
    results["growth"] = []
    for _ in range(plan.rounds):
        count = min(plan.claims, plan.few // 64)
        few = subjects["transferq"].ask("growth", samples=plan.few, count=count)
        many = subjects["transferq"].ask("growth", samples=plan.many, count=count)
        results["growth"].append({"few": few["seconds"], "many": many["seconds"]})
        tick("growth")
    results["batches"] = {name: [] for name in plan.workloads}
    for name in plan.workloads:
        batches(plan, name, subjects, results["batches"][name], tick)
    results["stalls"] = {}
    for name in STALLS:
        results["stalls"][name] = stalls(plan, name, subjects, tick)
    results["texts"] = texts(plan, subjects["transferq"], reader, tick)
    results["zero-copy"] = zero_copy(plan, subjects["transferq"], tick)


def stalls(
    plan: Plan, workload: str, subjects: dict[str, Subject], tick: Tick
) -> list[dict[str, Any]]:
    """How long async calls on a batch block the event loop."""
    rounds = []
    for _ in range(plan.long_rounds):
        rounds.append(
            {
                side: subject.ask("stalls", workload=workload, scale=plan.scale, count=4)
                for side, subject in subjects.items()
            }
        )
        tick(f"stalls of the loop, {workload}")
    return rounds


def texts(plan: Plan, ours: Subject, reader: Subject, tick: Tick) -> list[dict[str, Any]]:
    """Reads of long texts beside decoding them, in a process that keeps its memory (see KEEPS)."""
    reader.ask("attach", XDG_RUNTIME_DIR=ours.home)
    rounds = []
    for _ in range(plan.rounds):
        rounds.append(reader.ask("texts", scale=plan.scale, count=30))
        tick("texts")
    reader.ask("close")
    return rounds


def zero_copy(plan: Plan, ours: Subject, tick: Tick) -> list[dict[str, Any]]:
    """Reads that do not copy."""
    rounds = []
    for _ in range(plan.rounds):
        rounds.append(
            {
                name: ours.ask("zero_copy", scale=scale, count=20)["seconds"]
                for name, scale in (("eighth", plan.scale / 8), ("whole", plan.scale))
            }
        )
        tick("zero-copy")
    return rounds


def about(upstream: bool) -> dict[str, Any]:
    """The machine and the versions."""
    packages = ("transferq", "torch", "tensordict", "ray", "redis", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    server = subprocess.run(
        ["redis-server", "--version"], capture_output=True, text=True, check=True
    )
    versions["redis-server"] = server.stdout.split("v=")[1].split()[0]
    if upstream:
        (found,) = importlib.metadata.distributions(
            name="transferqueue",
            path=[str(path) for path in (ROOT / ".venv-peer").glob("lib/python3*/site-packages")],
        )
        versions["transferqueue"] = found.version
    return {
        "machine": _processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    """The processor's name, as reported by the kernel."""
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@contextmanager
def system(subject: Subject) -> Iterator[float]:
    """Start a worker's system; yields the seconds that it took to start."""
    yield float(subject.ask("init")["seconds"])
    subject.ask("close")


def _start_up(name: str, environment: str, package: str) -> float:
    with Subject(name, environment, package) as subject, system(subject) as seconds:
        return seconds


def _each(subjects: dict[str, Subject], key: str, do: str, **args: Any) -> dict[str, Any]:
    """Ask each side the same question; returns the results."""
    return {name: subject.ask(do, **args)[key] for name, subject in subjects.items()}


def small(
    plan: Plan, operations: Iterable[str], subjects: dict[str, Subject], tick: Tick
) -> dict[str, Any]:
    """Small calls, one at a time."""
    found: dict[str, Any] = {}
    for operation in operations:
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
    """Results by operation and number of callers; each caller makes at least one call."""
    found: dict[str, Any] = {operation: {} for operation in ASYNC}
    for operation in ASYNC:
        count = plan.calls if operation == "kv_put" else plan.claims
        for callers in CALLERS:
            args = {"operation": operation, "callers": callers, "count": max(count, callers)}
            rounds = found[operation][str(callers)] = []
            for _ in range(plan.rounds if operation == "kv_put" else plan.long_rounds):
                rounds.append(
                    {name: one.ask("concurrent", **args) for name, one in subjects.items()}
                )
                tick(f"{operation}, {callers} callers")
    return found


def batches(
    plan: Plan, name: str, subjects: dict[str, Subject], rounds: list[Any], tick: Tick
) -> None:
    """One workload; for the simple one also the alternatives that move its bytes."""
    others: list[RayObjects | Redis] = (
        [RayObjects(), Redis()] if plan.others and name == "simple" else []
    )
    columns = WORKLOADS[name].columns(plan.scale) if others else None
    try:
        for subject in subjects.values():
            subject.ask("batch", workload=name, scale=plan.scale, check=True)  # warm up, check data
        for _ in range(plan.rounds):
            found = {
                side: subject.ask("batch", workload=name, scale=plan.scale, check=False, warm=True)
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
OUT_QUICK = ROOT / "out" / "bench-quick"
OUT_ONLY = ROOT / "out" / "bench-only"
