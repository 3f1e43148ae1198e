"""Output: a table for the terminal, JSON with every number, charts."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import limits, noisy
from bench.figures import FIGURES, percentile

COLOURS = {
    "transferq": "#1b6ca8",
    "upstream": "#c46a2b",
    "Ray objects": "#7a7a7a",
    "Redis": "#a83232",
}


def evaluate(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures with their values."""
    return [
        {
            "figure": figure.name,
            "value": (value := figure.value(results)),
            "target": figure.target,
            "at most": figure.at_most,
            "reached": figure.reached(value),
        }
        for figure in FIGURES
    ]


def show(figures: list[dict[str, Any]], results: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    console.print(_figures(figures))
    missing = [each["figure"] for each in figures if each["value"] is None]
    if missing:
        console.print("not measured:", "; ".join(missing))
    console.print(_throughput(results))
    console.print(_latencies(results))
    console.print(_concurrent(results))
    console.print(_limits(results))
    if results["noisy"]:
        console.print(_noisy(results))
    if results["hosts"]["rounds"]:
        console.print(_hosts(results["hosts"]["rounds"]))
    else:
        console.print(f"across hosts: left out. {results['hosts']['skipped']}")


def show_some(figures: list[dict[str, Any]], results: dict[str, Any], console: Console) -> None:
    """Print the tables of a run that measured only some parts."""
    console.print(_figures(figures))
    if results["batches"]:
        console.print(_throughput(results))
    if results["small"]:
        console.print(_latencies(results))
    console.print(_times(results))


def _times(results: dict[str, Any]) -> Table:
    """Batches, reads of texts and gaps of the event loop in milliseconds."""
    table = Table(title="milliseconds (medians)", title_justify="left")
    for name in ("what", "side"):
        table.add_column(name)
    table.add_column("ms", justify="right")

    def add(what: str, side: str, seconds: list[float]) -> None:
        table.add_row(what, side, f"{1e3 * median(seconds):.2f}")

    for workload, rounds in results["batches"].items():
        for step in ("put", "get"):
            for side in rounds[0]:
                add(f"{workload}: {step}", side, [found[side][step] for found in rounds])
    for name in results["texts"][0] if results["texts"] else ():
        add(
            f"long texts: {name}",
            "transferq",
            [one for each in results["texts"] for one in each[name]],
        )
    for workload, rounds in results["stalls"].items():
        for step in ("put", "get", "idle"):
            for side in rounds[0]:
                gaps = [one for found in rounds for one in found[side][step]]
                add(f"{workload}: the loop stands still, {step}", side, gaps)
    for name in results["zero-copy"][0] if results["zero-copy"] else ():
        seconds = [one for each in results["zero-copy"] for one in each[name]]
        add(f"zero-copy get, {name}", "transferq", seconds)
    return table


def _figures(figures: list[dict[str, Any]]) -> Table:
    table = Table(title="figures (medians of the rounds' ratios)", title_justify="left")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("target", justify="right")
    table.add_column("")
    for each in figures:
        if each["value"] is None:
            continue
        bound = (
            ""
            if each["target"] is None
            else f"{'<=' if each['at most'] else '>='} {each['target']}"
        )
        verdict = {None: "", True: "reached", False: "[bold]missed[/bold]"}[each["reached"]]
        table.add_row(each["figure"], f"{each['value']:.2f}", bound, verdict)
    return table


def _throughput(results: dict[str, Any]) -> Table:
    table = Table(title="batches (GB/s, medians)", title_justify="left")
    for name in ("workload", "MB", "side"):
        table.add_column(name)
    for name in ("put", "get"):
        table.add_column(name, justify="right")
    for name in ("list ms", "clear ms"):
        table.add_column(name, justify="right")
    for workload, rounds in results["batches"].items():
        size = rounds[0]["transferq"]["bytes"]
        for side in rounds[0]:
            each = [found[side] for found in rounds]
            table.add_row(
                workload,
                f"{size / 1e6:.0f}",
                side,
                *(
                    f"{size / 1e9 / median(one[step] for one in each):.{2 if size > 1e6 else 6}f}"
                    for step in ("put", "get")
                ),
                *(
                    f"{1000 * median(one[step] for one in each):.2f}" if step in each[0] else ""
                    for step in ("list", "clear")
                ),
            )
    return table


def _latencies(results: dict[str, Any]) -> Table:
    table = Table(title="small operations (microseconds)", title_justify="left")
    for name in ("operation", "side"):
        table.add_column(name)
    for name in ("p50", "p99"):
        table.add_column(name, justify="right")
    for operation, rounds in results["small"].items():
        for side in rounds[0]:
            seconds = [one for found in rounds for one in found[side]]
            table.add_row(
                operation,
                side,
                *(f"{1e6 * percentile(seconds, share):.0f}" for share in (0.5, 0.99)),
            )
    for when in ("alone", "computing", "listing") if results["claims while listing"] else ():
        seconds = [one for found in results["claims while listing"] for one in found[when]]
        table.add_row(
            "claim of 1, alone" if when == "alone" else f"claim of 1, another is {when}",
            "transferq",
            *(f"{1e6 * percentile(seconds, share):.0f}" for share in (0.5, 0.99)),
        )
    return table


def _concurrent(results: dict[str, Any]) -> Table:
    table = Table(
        title="small operations by number of callers (microseconds)", title_justify="left"
    )
    for name in ("operation", "side"):
        table.add_column(name)
    for name in ("callers", "p50", "p99", "a second"):
        table.add_column(name, justify="right")
    for operation, by_callers in results["concurrent"].items():
        for callers, rounds in by_callers.items():
            for side in rounds[0]:
                seconds = [one for found in rounds for one in found[side]["seconds"]]
                table.add_row(
                    operation,
                    side,
                    callers,
                    *(f"{1e6 * percentile(seconds, share):.0f}" for share in (0.5, 0.99)),
                    f"{median(found[side]['per_second'] for found in rounds):.0f}",
                )
    return table


def _limits(results: dict[str, Any]) -> Table:
    """Upper limits for anything that moves bytes, and how long systems take to start."""
    table = Table(title="limits of the machine, and start-up (medians)", title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for name in ("unix stream", "tcp stream"):
        seconds = median(found[name] for found in results["limits"])
        table.add_row(f"{name}, GB/s", f"{limits.STREAM / 1e9 / seconds:.2f}")
    trip = median(found["round trip"] for found in results["limits"])
    table.add_row("round trip between processes, microseconds", f"{1e6 * trip:.0f}")
    for side in results["init"][0]:
        started = median(found[side] for found in results["init"])
        table.add_row(f"init of {side}, seconds", f"{started:.2f}")
    return table


def _noisy(results: dict[str, Any]) -> Table:
    table = Table(title="beside large batches (microseconds)", title_justify="left")
    for name in ("operation", "side"):
        table.add_column(name)
    for name in ("p50", "p99", "written GB/s", "read GB/s"):
        table.add_column(name, justify="right")
    for operation in noisy.OPERATIONS:
        for side in results["noisy"][0]:
            each = [found[side] for found in results["noisy"]]
            seconds = [one for found in each for one in found[operation]]
            table.add_row(
                operation,
                side,
                *(f"{1e6 * percentile(seconds, share):.0f}" for share in (0.5, 0.99)),
                *(
                    f"{median(one['moved'][way] for one in each):.2f}"
                    for way in ("written", "read")
                ),
            )
    return table


def _hosts(rounds: list[dict[str, Any]]) -> Table:
    table = Table(title="across hosts, simple (GB/s, medians)", title_justify="left")
    table.add_column("side")
    for name in ("put", "get"):
        table.add_column(name, justify="right")
    size = rounds[0]["transferq"]["bytes"]
    for side, title in (("transferq", "transferq"), ("raw", "raw stream")):
        seconds = [median(each[side][step] for each in rounds) for step in ("put", "get")]
        table.add_row(title, *(f"{size / 1e9 / one:.2f}" for one in seconds))
    return table


def save_numbers(results: dict[str, Any], figures: list[dict[str, Any]], folder: Path) -> Path:
    """Write only the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / "bench.json"
    numbers.write_text(json.dumps({"figures": figures, **results}, indent=1) + "\n", "utf-8")
    return numbers


def save(results: dict[str, Any], figures: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write the numbers and the charts; returns the files written."""
    return [
        save_numbers(results, figures, folder),
        _draw_batches(results, folder / "batches.png"),
        _draw_small(results, folder / "small.png"),
        _draw_callers(results, folder / "callers.png"),
    ]


def _draw_batches(results: dict[str, Any], path: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    # One sample moves hardly any data.
    batches = {
        name: each
        for name, each in results["batches"].items()
        if each[0]["transferq"]["bytes"] > 1e6
    }
    workloads = list(batches)
    for axes, step in zip(both, ("put", "get"), strict=True):
        for place, side in enumerate(COLOURS):
            heights = [
                rounds[0]["transferq"]["bytes"] / 1e9 / median(each[side][step] for each in rounds)
                if side in rounds[0]
                else 0
                for rounds in batches.values()
            ]
            axes.bar(
                [at + place * 0.2 for at in range(len(workloads))],
                heights,
                0.2,
                label=side,
                color=COLOURS[side],
            )
        axes.set_xticks([at + 0.3 for at in range(len(workloads))], workloads)
        axes.set_title(step)
    both[0].set_ylabel("GB/s")
    both[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path


def _draw_small(results: dict[str, Any], path: Path) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for side in ("transferq", "upstream"):
        seconds = [
            [1e6 * one for found in rounds for one in found.get(side, [])]
            for rounds in results["small"].values()
        ]
        if all(seconds):
            axes.plot(
                list(results["small"]),
                [median(each) for each in seconds],
                "o-",
                color=COLOURS[side],
                label=f"{side}, p50",
            )
            axes.plot(
                list(results["small"]),
                [percentile(each, 0.99) for each in seconds],
                "o:",
                color=COLOURS[side],
                label=f"{side}, p99",
            )
    axes.set_yscale("log")
    axes.set_ylabel("microseconds")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path


def _draw_callers(results: dict[str, Any], path: Path) -> Path:
    """Calls per second by number of callers, one chart per operation."""
    from matplotlib import pyplot

    operations = results["concurrent"]
    figure, every = pyplot.subplots(
        1, len(operations), figsize=(3 * len(operations), 4), sharey=True, layout="constrained"
    )
    for axes, (operation, by_callers) in zip(every, operations.items(), strict=True):
        for side in next(iter(by_callers.values()))[0]:
            rates = [
                median(found[side]["per_second"] for found in rounds)
                for rounds in by_callers.values()
            ]
            axes.plot(list(by_callers), rates, "o-", color=COLOURS[side], label=side)
        axes.set_title(operation)
        axes.set_xlabel("callers")
        axes.set_yscale("log")
    every[0].set_ylabel("calls a second")
    every[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path
