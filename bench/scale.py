"""Scale: thousands of clients, the memory of daemons, and what happens when a storage unit is killed.

Each part runs on its own system, whose daemons are observed from outside: descriptors, memory and processor
time as counted by the kernel.  The memory of a store is that of its memfds; the memory of a controller is
private and anonymous.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.subjects import ROOT, Subject
from tests.support.daemons import Daemon, System

Tick = Callable[[str], None]
MANY_CLIENTS = ROOT / "build" / "test" / "bench" / "many_clients"
PER_PROCESS = 1024
"""Clients in one process: each has its own loop with its own descriptors."""
SETTLED = 16.0
"""Seconds after which a store has released unused memory: 10, and time to do it."""


@dataclass(frozen=True)
class Scale:
    """How much to measure."""

    clients: int = 8192
    steps: int = 1000
    """0: leaves out what a store does by the clock."""
    samples: int = 1_000_000
    quiet: float = 10.0


STEPS = ("many clients", "memory", "memory by rows", "cells", "idle", "recovery", "first read")
FULL = Scale()
QUICK = Scale(clients=256, steps=0, samples=100_000, quiet=2.0)


def measure(plan: Scale, rounds: int, long_rounds: int, one: Subject, tick: Tick) -> dict[str, Any]:
    """All parts, by name; each is a list of rounds.  `one` is the client of one system after the other."""
    found: dict[str, Any] = {}
    steps: tuple[Callable[[], list[Any]], ...] = (
        lambda: [_many(plan.clients)],
        lambda: [_memory(one, plan.steps, rows=False)],
        lambda: [_memory(one, plan.steps, rows=True)] if plan.steps else [],
        lambda: [_cells(one, plan.samples)],
        lambda: [_idle(one, plan.quiet)],
        lambda: [_recovery(one) for _ in range(rounds)],
        lambda: [_first_read(one) for _ in range(long_rounds)],
    )
    for name, step in zip(STEPS, steps, strict=True):
        found[name] = step()
        tick(name)
    return found


# --- observing a daemon ---------------------------------------------------------------------------


def private(pid: int) -> int:
    """Bytes of a process that are neither shared memory nor shared with other processes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    return sizes["Pss"] - sizes["Pss_Shmem"]


def descriptors(pid: int) -> int:
    """Number of open descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def processor(pid: int) -> float:
    """Seconds of processor time of all threads of a process, to the nanosecond."""
    times = (entry / "schedstat" for entry in Path(f"/proc/{pid}/task").iterdir())
    return sum(int(path.read_text().split()[0]) for path in times) / 1e9


@contextmanager
def _system(units: int = 2) -> Iterator[tuple[System, Daemon]]:
    """A system whose parts all run in one daemon."""
    with tempfile.TemporaryDirectory(prefix="tq-bench-") as folder:
        system = System(Path(folder))
        try:
            settings = [f"backend.SimpleStorage.num_data_storage_units={units}"]
            yield system, system.start(settings=settings)
        finally:
            system.close()


@contextmanager
def _client(system: System, one: Subject) -> Iterator[Subject]:
    """A process as a client of the system."""
    one.ask("attach", TQ_ADDRESS=system.address, TQ_TOKEN_FILE=system.token_file)
    yield one
    one.ask("close")


# --- measurements ---------------------------------------------------------------------------------


def _many(count: int) -> dict[str, Any]:
    """Clients that put, claim, read and clear concurrently, five rounds; many_clients.c."""
    with _system() as (system, daemon), ExitStack() as stack:
        memory, before = private(daemon.pid), descriptors(daemon.pid)
        processes = []
        for start in range(0, count, PER_PROCESS):
            process = subprocess.Popen(
                [str(MANY_CLIENTS), str(min(PER_PROCESS, count - start)), "5"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**system.environment(), "TQ_LOG": "error"},  # else each logs when it waits
            )
            processes.append(stack.enter_context(process))
        pipes = [(each.stdin, each.stdout) for each in processes]
        for _, said in pipes:
            assert said is not None
            if said.readline() != "open\n":
                raise RuntimeError("many_clients: a client could not be opened")
        started = time.perf_counter()
        _next(pipes)
        seconds: list[float] = []
        for _, said in pipes:
            assert said is not None
            for line in said:
                if line == "done\n":
                    break
                seconds.append(float(line))
        wall = time.perf_counter() - started
        if len(seconds) != 5 * count:
            raise RuntimeError(f"many_clients: {5 * count - len(seconds)} rounds failed")
        found = {
            "clients": count,
            "seconds": seconds,
            "wall": wall,
            "bytes": (private(daemon.pid) - memory) / count,
            "descriptors": (descriptors(daemon.pid) - before) / count,
        }
        _next(pipes)
        return found


def _next(pipes: list[tuple[Any, Any]]) -> None:
    for told, _ in pipes:
        told.write("\n")
        told.flush()


def _memory(one: Subject, steps: int, rows: bool) -> dict[str, Any]:
    """Memory of the store: with one batch in it, after many steps, and after all is cleared."""
    with _system() as (system, daemon), _client(system, one) as client:
        size = client.ask("hold", workload="simple", scale=1.0)["bytes"]
        held = daemon.stored()
        if not steps:
            return {"simple": held / size}
        client.ask("release")
        live = client.ask("steps", count=steps, rows=rows)["bytes"]
        at_once = daemon.stored()
        time.sleep(SETTLED)  # the store releases memory by the clock
        after = daemon.stored()
        client.ask("release")
        cleared = time.perf_counter()
        while daemon.stored() > 64 << 20 and time.perf_counter() - cleared < 120:
            time.sleep(0.25)
        return {
            "simple": held / size,
            "live": live,
            "at once": at_once / live,
            "after": after / live,
            "cleared": time.perf_counter() - cleared,
        }


def _cells(one: Subject, samples: int) -> dict[str, Any]:
    """Memory of the controller per cell."""
    with _system() as (system, daemon), _client(system, one) as client:
        client.ask("cells", samples=1000)
        client.ask("release")
        before = private(daemon.pid)
        cells = client.ask("cells", samples=samples)["cells"]
        return {"bytes": (private(daemon.pid) - before) / cells, "cells": cells}


def _idle(one: Subject, seconds: float) -> dict[str, Any]:
    """Share of a core that a system uses while a client is attached but makes no calls."""
    with _system() as (system, daemon), _client(system, one) as client:
        client.ask("hold", workload="tiny", scale=1.0)
        time.sleep(1.0)  # lets timers that follow a put run: reports, warming
        before, started = processor(daemon.pid), time.perf_counter()
        time.sleep(seconds)
        return {"share": (processor(daemon.pid) - before) / (time.perf_counter() - started)}


def _recovery(one: Subject) -> dict[str, Any]:
    """Seconds of the first put after one of two units was killed, and until the unit serves again."""
    with tempfile.TemporaryDirectory(prefix="tq-bench-") as folder:
        system = System(Path(folder))
        try:
            system.start(role="controller")
            units = [_unit(system, place) for place in range(2)]
            with _client(system, one) as client:
                for _ in range(4):
                    client.ask("hold", workload="tiny", scale=1.0)
                    client.ask("release")
                units[0].kill()
                put = max(client.ask("put_once")["seconds"] for _ in range(4))
                started = time.perf_counter()
                _unit(system, 0)
                return {"put": put, "back": time.perf_counter() - started}
        finally:
            system.close()


def _unit(system: System, place: int) -> Daemon:
    folder = system.folder / f"unit-{place}"
    return system.join("--runtime-dir", str(folder), name=f"unit-{place}")


def _first_read(one: Subject) -> dict[str, Any]:
    """Seconds of a process's first read, and of its second."""
    with _system() as (system, _), _client(system, one) as writer:
        writer.ask("put_once")
        with Subject("reader", ".venv", "transferq") as fresh, _client(system, fresh) as reader:
            return {name: reader.ask("read_once")["seconds"] for name in ("first", "second")}


def main() -> None:
    """Run only this part, without figures."""
    plan = QUICK if "--quick" in sys.argv else FULL
    with Subject("one", ".venv", "transferq") as one:
        found = measure(plan, 3, 3, one, print)
    for rounds in found.values():
        for each in rounds:
            each.pop("seconds", None)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
