"""`python -m bench`: measure, print the tables, write JSON and charts."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import only, report
from bench.run import OUT, OUT_ONLY, OUT_QUICK, QUICK, Plan, measure


def _parts(text: str) -> list[str]:
    """The parts listed in --only."""
    parts = list(dict.fromkeys(text.split(",")))
    for part in parts:
        if part not in only.PARTS:
            raise argparse.ArgumentTypeError(
                f"there is no part {part!r}, only {', '.join(only.PARTS)}"
            )
    return parts


def main() -> None:
    """Run what the options request."""
    options = argparse.ArgumentParser(prog="bench", description=__doc__)
    options.add_argument(
        "--quick", action="store_true", help="fewer, smaller rounds: less than 2 minutes"
    )
    options.add_argument("--rounds", type=int, help="rounds of everything")
    options.add_argument(
        "--no-upstream", action="store_true", help="leave out PyPI's transferqueue"
    )
    options.add_argument(
        "--only",
        type=_parts,
        metavar="PART,...",
        help=f"these parts alone, of {', '.join(only.PARTS)}; JSON in out/bench-only, no charts",
    )
    options.add_argument(
        "--out", type=Path, help="folder of JSON and charts; else out/bench, or out/bench-quick"
    )
    chosen = options.parse_args()
    plan = QUICK if chosen.quick else Plan()
    if chosen.rounds:
        plan = replace(plan, rounds=chosen.rounds)
    console = Console(width=None if Console().is_terminal else 110)
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        total = only.steps(plan, chosen.only) if chosen.only else plan.steps()
        task = progress.add_task("start", total=total)
        took: dict[str, float] = {}
        begun = last = time.monotonic()

        def tick(done: str) -> None:
            nonlocal last
            last, before = time.monotonic(), last
            took[done] = took.get(done, 0.0) + last - before
            progress.update(task, advance=1, description=done)

        if chosen.only:
            results = only.measure(plan, chosen.only, tick, upstream=not chosen.no_upstream)
        else:
            results = measure(plan, tick, upstream=not chosen.no_upstream)
    results["took"] = took
    figures = report.evaluate(results)
    if chosen.only:
        report.show_some(figures, results, console)
        written = [report.save_numbers(results, figures, chosen.out or OUT_ONLY)]
    else:
        report.show(figures, results, console)
        out = chosen.out or (OUT_QUICK if chosen.quick else OUT)
        written = report.save(results, figures, out)
    if plan.scale < 1:
        console.print(
            f"A smaller run: {plan.scale:g} of the samples, lists of {plan.listed:,} keys, claims from"
            f" {plan.many:,}, {plan.crowd.clients:,} clients. Figures are named as in the whole one."
        )
    for path in written:
        console.print(f"wrote {path}")
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    console.print(f"took {minutes} min {seconds} s")


if __name__ == "__main__":
    main()
