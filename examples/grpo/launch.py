"""Runs the loop: starts its processes, kills one, lets another join, and counts at the end."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from typing import Any

import torch

from . import timeline, trainer, workers
from .progress import Progress
from .queues import Queue, connection, rows
from .settings import EVAL, PROMPTS, RECORDS, TRAIN, WEIGHTS, Settings
from .tasks import reward

REFRESH = 0.25
"""Seconds between two updates of the progress line."""
PATIENCE = 10.0
"""Seconds that a worker has to end by itself."""


@dataclass
class Outcome:
    """What a run did, as it is reported and saved."""

    settings: Settings
    seconds: float = 0.0
    """From the first prompt to the last update."""
    produced: int = 0
    consumed: int = 0
    left: int = 0
    dropped: int = 0
    reward_start: float = 0.0
    reward_end: float = 0.0
    moved: int = 0
    """Bytes of field data written and read, by all processes."""
    busy_share: float = 0.0
    """Share of the processes' time spent in puts, reads and clears."""
    waiting_share: float = 0.0
    """Share of the processes' time spent in claims."""
    curve: list[tuple[float, float, float]] = field(default_factory=list)
    """(seconds, version, held-out reward)."""
    ages: list[int] = field(default_factory=list)
    """How many trained samples were made by weights so many versions old."""
    spans: timeline.Spans = field(default_factory=dict)
    moments: dict[str, float] = field(default_factory=dict)
    """Times of what was done to the processes."""
    problems: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Notes what makes the run a failure."""
        if self.produced != self.consumed + self.left + self.dropped:
            self.problems.append(
                f"{self.produced} samples were produced, but {self.consumed} consumed, {self.left}"
                f" left and {self.dropped} dropped"
            )
        if self.reward_end < 3 * self.reward_start:
            self.problems.append(
                f"the reward ended at {self.reward_end:.3f}, less than 3 times {self.reward_start:.3f}"
            )


class Crew:
    """The processes of a run, by name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.context = multiprocessing.get_context("forkserver")
        self.processes: dict[str, ForkServerProcess] = {}
        self.killed: set[str] = set()

    def start(self, work: Callable[..., None], name: str, *more: object) -> None:
        """Starts a process."""
        process = self.context.Process(
            target=work, args=(self.settings, name, *more), name=name, daemon=True
        )
        process.start()
        self.processes[name] = process

    def start_rollout(self) -> str:
        """Starts one more rollout worker."""
        number = sum(name.startswith("rollout") for name in self.processes)
        name = f"rollout-{number}"
        self.start(workers.rollout, name, 1000 * self.settings.seed + number)
        return name

    def kill(self, name: str) -> None:
        """SIGKILL, in the middle of whatever it is doing."""
        self.killed.add(name)
        self.processes[name].kill()

    def watch(self, seconds: float) -> None:
        """Waits for some process to end, but not long."""
        living = [p for name, p in self.processes.items() if name not in self.killed]
        wait([process.sentinel for process in living], seconds)
        self.check()

    def check(self) -> None:
        """Raises an error if a process has failed."""
        for name, process in self.processes.items():
            if process.exitcode and name not in self.killed:
                raise RuntimeError(f"process {name} failed with exit code {process.exitcode}")

    def running(self, name: str) -> bool:
        """Whether a process has not ended yet."""
        return self.processes[name].exitcode is None

    def stop(self) -> list[str]:
        """Ends all processes; returns the names of those that had to be killed for it."""
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        stuck = []
        for name, process in self.processes.items():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
                stuck.append(name)
        return stuck


def prepare() -> None:
    """Lets a server process import the large libraries, once, so that the others start fast."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "tensordict", "sklearn.datasets", "matplotlib.figure"])


def run(settings: Settings, queue: Queue, progress: Progress) -> Outcome:
    """Runs the loop once on a queue that is up."""
    outcome = Outcome(settings)
    queue.settings = settings
    for partition in (PROMPTS, TRAIN, WEIGHTS, EVAL, RECORDS):
        queue.clear_partition(partition)
    events = timeline.Events(queue)
    crew = Crew(settings)
    try:
        crew.start(trainer.train, "trainer")
        crew.start(workers.judge, "reward")
        crew.start(workers.reference, "reference")
        for _ in range(settings.rollout_workers):
            crew.start_rollout()
        while crew.running("trainer"):
            crew.watch(REFRESH)
            events.collect()
            state = queue.tags(WEIGHTS).get("policy")
            if state:
                _disturb(crew, state, outcome)
                progress.show(state, len(crew.processes) - 3 - len(crew.killed))
        crew.check()
    finally:
        stuck = crew.stop()
    if stuck:
        outcome.problems.append(f"processes that did not end when asked to: {', '.join(stuck)}")
    events.collect()
    _account(queue, outcome)
    outcome.spans = events.spans() or timeline.recorded_spans(queue)
    outcome.reward_start, outcome.reward_end = examined(queue, "before"), examined(queue, "after")
    queue.tidy()
    outcome.check()
    return outcome


def _disturb(crew: Crew, state: dict[str, Any], outcome: Outcome) -> None:
    """Kills a rollout worker and lets another one join when their time has come."""
    settings = crew.settings
    if settings.kill_at is None:
        return
    done = max(state["version"] / settings.updates, state["seconds"] / settings.seconds)
    if "killed" not in outcome.moments and done >= settings.kill_at:
        crew.kill("rollout-1")
        outcome.moments["killed"] = time.time()
    if "joined" not in outcome.moments and done >= settings.join_at:
        crew.start_rollout()
        outcome.moments["joined"] = time.time()


def _account(queue: Queue, outcome: Outcome) -> None:
    """Adds up what the processes say of themselves, and what is left in the queue."""
    records = queue.tags(RECORDS)
    trained = records["trainer"]
    produced = {
        name.removeprefix("produced by "): count
        for name, count in trained.items()
        if name.startswith("produced by ")
    }
    for tag in queue.tags(TRAIN).values():
        worker = tag["worker"]
        produced[worker] = max(produced.get(worker, 0), tag["serial"] + 1)
    for worker, account in records.items():
        if worker.startswith("rollout"):
            produced[worker] = max(produced.get(worker, 0), account["produced"])
    outcome.produced = sum(produced.values())
    outcome.consumed, outcome.dropped = trained["consumed"], trained["dropped"]
    outcome.left = queue.unconsumed(TRAIN, task="train")
    total = sum(account["seconds"] for account in records.values())
    outcome.busy_share = sum(account["busy"] for account in records.values()) / total
    outcome.waiting_share = sum(account["waiting"] for account in records.values()) / total
    outcome.moved = sum(account["moved"] for account in records.values())
    data = queue.read(RECORDS, ["trainer"], ["curve", "ages"])
    curve = rows(data["curve"])[0].view(-1, 3).tolist()
    outcome.curve = [(seconds, version, held_out) for seconds, version, held_out in curve]
    outcome.ages = rows(data["ages"])[0].tolist()
    outcome.seconds = trained["train_seconds"]


def examined(queue: Queue, when: str) -> float:
    """Mean reward of the held-out answers in partition `eval`, judged again from the queue."""
    keys = [key for key in queue.tags(EVAL) if key.startswith(when)]
    data = queue.read(EVAL, keys, ["answer", "label"])
    pairs = zip(rows(data["answer"]), data["label"].tolist(), strict=True)
    return float(torch.tensor([reward(answer, label) for answer, label in pairs]).mean())


def start_queue(settings: Settings) -> tuple[Settings, Queue]:
    """Gets the queue up; returns settings with which the other processes find it."""
    queue = connection(settings)
    return queue.start(), queue
