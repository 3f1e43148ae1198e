"""The command line that both demos share."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import launch, report
from .launch import Outcome
from .progress import Progress
from .queues import Queue
from .settings import BACKENDS, Settings


def parser(description: str) -> argparse.ArgumentParser:
    """Options of both demos."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument(
        "--queue",
        choices=["transferq", "transfer_queue"],
        default="transferq",
        help="package that provides the queue (default: %(default)s)",
    )
    options.add_argument(
        "--backend",
        choices=list(BACKENDS),
        default=Settings.backend,
        help="where transferq stores the samples (default: %(default)s)",
    )
    options.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    options.add_argument(
        "--updates",
        type=int,
        default=Settings.updates,
        help="optimizer steps (default: %(default)s)",
    )
    options.add_argument(
        "--seconds",
        type=float,
        default=Settings.seconds,
        help="train for at most so long (default: %(default)s)",
    )
    options.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        help="folder for the picture and the result (default: %(default)s)",
    )
    return options


def perform(settings: Settings, queue: Queue, name: str) -> Outcome:
    """Runs the loop once, with a progress line, and returns the outcome."""
    progress = Progress(name, settings.updates)
    try:
        outcome = launch.run(settings, queue, progress)
    finally:
        progress.close()
    print(f"--- {name}")
    report.tell(outcome)
    return outcome


def finish(outcome: Outcome, started: float, *others: Outcome) -> int:
    """Prints everything that went wrong, in other runs too, and the last line; returns the exit code."""
    problems = [problem for run in (outcome, *others) for problem in run.problems]
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(
        f"demo: samples={outcome.consumed} reward_start={outcome.reward_start:.4f}"
        f" reward_end={outcome.reward_end:.4f} seconds={time.monotonic() - started:.1f}",
        flush=True,
    )
    return 1 if problems else 0
