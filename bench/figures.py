"""The figures that the benchmark reports, each with its target.

Where possible a figure is a ratio, because absolute times differ between machines and hours.  Every round measures
both sides one right after the other; a figure is the median of the rounds' ratios, so that a slow minute affects both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Results = dict[str, Any]
"""Everything that the run measured: see run.py for its keys."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    target: float | None
    """The target; None: only reported."""
    value: Callable[[Results], float | None]
    """The value; None if it was not measured."""
    unit: str = "x"
    at_most: bool = False

    def reached(self, value: float | None) -> bool | None:
        """Whether the target is reached; None if there is no target, or no value."""
        if self.target is None or value is None:
            return None
        return value <= self.target if self.at_most else value >= self.target


def ratio(over: Sequence[float], under: Sequence[float]) -> float | None:
    """Median of the rounds' ratios."""
    ratios = [one / other for one, other in zip(over, under, strict=True)]
    return median(ratios) if ratios else None


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _batches(
    workload: str, step: str, other: str = "upstream"
) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        rounds = results["batches"].get(workload, [])
        rounds = [each for each in rounds if other in each]
        return ratio(
            [each[other][step] for each in rounds], [each["transferq"][step] for each in rounds]
        )

    return value


def _hosts(step: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        rounds = results["hosts"]["rounds"]
        return ratio(
            [each["raw"][step] for each in rounds], [each["transferq"][step] for each in rounds]
        )

    return value


def _small(operation: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        rounds = [each for each in results["small"].get(operation, []) if "upstream" in each]
        return ratio(
            [percentile(each["upstream"], 0.5) for each in rounds],
            [percentile(each["transferq"], 0.5) for each in rounds],
        )

    return value


def _noisy(operation: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        rounds = [each for each in results["noisy"] if "upstream" in each]
        return ratio(
            [percentile(each["upstream"][operation], 0.99) for each in rounds],
            [percentile(each["transferq"][operation], 0.99) for each in rounds],
        )

    return value


def _demo(value: str, over: str | None) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        rounds = results["demo"]
        if over is None:
            return median([each["transferq"][value] for each in rounds]) if rounds else None
        rounds = [each for each in rounds if over in each]
        return ratio(
            [each["transferq"][value] for each in rounds], [each[over][value] for each in rounds]
        )

    return found


def _daemon(results: Results) -> float | None:
    rounds = results["hosts"]["rounds"]
    return median([each["daemon"] for each in rounds]) if rounds else None


def _concurrent(results: Results) -> float | None:
    rounds = [each for each in results["concurrent"]["kv_put"]["256"] if "upstream" in each]
    return ratio(
        *([each[side]["per_second"] for each in rounds] for side in ("transferq", "upstream"))
    )


def _init(results: Results) -> float | None:
    rounds = [each for each in results["init"] if "upstream" in each]
    return ratio([each["upstream"] for each in rounds], [each["transferq"] for each in rounds])


def _listing(results: Results) -> float | None:
    rounds = [each for each in results["listing"] if "upstream" in each]
    return ratio([each["upstream"] for each in rounds], [each["transferq"] for each in rounds])


def _meanwhile(beside: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        rounds = results["claims while listing"]
        return ratio(
            [percentile(each["listing"], 0.99) for each in rounds],
            [percentile(each[beside], 0.99) for each in rounds],
        )

    return value


def _zero_copy(size: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        rounds = results["zero-copy"]
        return median(percentile(each[size], 0.5) for each in rounds) * 1e3 if rounds else None

    return value


def _stall(workload: str, step: str) -> Callable[[Results], float | None]:
    """Milliseconds for which the event loop was blocked beyond the gap of an idle one, medians of all calls."""

    def value(results: Results) -> float | None:
        rounds = results["stalls"].get(workload, [])
        calls = [one["transferq"] for one in rounds]
        if not calls:
            return None
        busy, idle = (
            median(gap for each in calls for gap in each[name]) for name in (step, "idle")
        )
        return float(max(0.0, busy - idle) * 1e3)

    return value


def _texts(read: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        rounds = results["texts"]
        return ratio(
            [percentile(each[read], 0.5) for each in rounds],
            [percentile(each["decoded"], 0.5) for each in rounds],
        )

    return value


def _growth(results: Results) -> float | None:
    rounds = results["growth"]
    return ratio(
        [percentile(each["many"], 0.5) for each in rounds],
        [percentile(each["few"], 0.5) for each in rounds],
    )


def _scale(step: str, key: str, unit: float = 1.0) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        rounds = results["scale"][step]
        values = [each[key] for each in rounds if key in each]
        return median(values) / unit if values else None

    return value


def _crowd(results: Results) -> float | None:
    rounds = results["scale"]["many clients"]
    return median(percentile(each["seconds"], 0.99) for each in rounds) if rounds else None


FIGURES = (
    Figure("simple: put against upstream", 3.5, _batches("simple", "put")),
    Figure("simple: get against upstream", 6, _batches("simple", "get")),
    Figure("complex: put against upstream", 5, _batches("complex", "put")),
    Figure("complex: get against upstream", 5, _batches("complex", "get")),
    Figure("grpo-longtail: put against upstream", 10, _batches("grpo-longtail", "put")),
    Figure("grpo-longtail: get against upstream", 10, _batches("grpo-longtail", "get")),
    Figure("multimodal: put against upstream", None, _batches("multimodal", "put")),
    Figure("multimodal: get against upstream", None, _batches("multimodal", "get")),
    Figure("maps: put against upstream", 4, _batches("maps", "put")),
    Figure("maps: get against upstream", 4, _batches("maps", "get")),
    Figure("images: put against upstream", 2, _batches("images", "put")),
    Figure("images: get against upstream", 2, _batches("images", "get")),
    Figure("strings: put against upstream", None, _batches("strings", "put")),
    Figure("strings: get against upstream", None, _batches("strings", "get")),
    Figure("long texts: put against upstream", None, _batches("long texts", "put")),
    Figure("long texts: get against upstream", None, _batches("long texts", "get")),
    Figure("long texts: get against decoding them", 1.3, _texts("read"), at_most=True),
    Figure(
        "long texts: get by metadata against decoding them",
        1.3,
        _texts("read by metadata"),
        at_most=True,
    ),
    *(
        Figure(
            f"{name}: the loop stands still in an async {step}, beyond an idle one",
            10,
            _stall(name, step),
            unit=" ms",
            at_most=True,
        )
        for name in ("maps", "strings")
        for step in ("put", "get")
    ),
    Figure("simple: put against Ray objects", None, _batches("simple", "put", "Ray objects")),
    Figure("simple: get against Ray objects", None, _batches("simple", "get", "Ray objects")),
    Figure("simple: put against Redis", None, _batches("simple", "put", "Redis")),
    Figure("simple: get against Redis", None, _batches("simple", "get", "Redis")),
    Figure("simple: put against one warm copy", 0.7, _batches("simple", "put", "warm copy")),
    Figure("simple: get against one warm copy", 0.7, _batches("simple", "get", "warm copy")),
    Figure("simple, across hosts: put against a raw stream", 0.85, _hosts("put")),
    Figure("simple, across hosts: get against a raw stream", 0.85, _hosts("get")),
    Figure(
        "simple: zero-copy get by metadata, dense",
        1,
        _zero_copy("whole"),
        unit=" ms",
        at_most=True,
    ),
    Figure(
        "an eighth of it: zero-copy get by metadata, dense",
        1,
        _zero_copy("eighth"),
        unit=" ms",
        at_most=True,
    ),
    Figure("kv_put of one sample: p50 against upstream", 20, _small("kv_put")),
    Figure("put of a tag: p50 against upstream", 15, _small("tag_put")),
    Figure("claim of 64: p50 against upstream", 12, _small("claim")),
    Figure("kv_batch_get of one key, jagged: p50 against upstream", 10, _small("kv_get")),
    Figure("kv_batch_get of one key, dense: p50 against upstream", 20, _small("kv_get_dense")),
    Figure("kv_put beside large batches: p99 against upstream", 10, _noisy("kv_put")),
    Figure("claim beside large batches: p99 against upstream", 10, _noisy("claim")),
    Figure("256 concurrent small puts: rate against upstream", 40, _concurrent),
    Figure("async demo: seconds of a step", None, _demo("step", None)),
    Figure("async demo: seconds of a step against upstream's", None, _demo("step", "upstream")),
    Figure("async demo: the queue's share of the time", None, _demo("share", None)),
    Figure("async demo: share against upstream's", 0.5, _demo("share", "upstream"), at_most=True),
    Figure("across hosts: daemon CPU seconds per GB", None, _daemon),
    Figure("init against upstream", 20, _init),
    Figure("kv_list of 100,000 keys with 7 tags against upstream", 3, _listing),
    Figure(
        "claim while another process lists: p99 against alone",
        1.5,
        _meanwhile("alone"),
        at_most=True,
    ),
    Figure(
        "claim while another process lists: p99 against beside one that only computes",
        None,
        _meanwhile("computing"),
    ),
    Figure("claim at 1,000,000 ready samples against 10,000", 1.5, _growth, at_most=True),
    Figure("many clients, each put + claim + get + clear: p99", None, _crowd, "s"),
    Figure(
        "daemon's memory per idle client",
        32,
        _scale("many clients", "bytes", 1024),
        "KiB",
        at_most=True,
    ),
    Figure("controller's memory per cell", 32, _scale("cells", "bytes"), "bytes", at_most=True),
    Figure(
        "store's memory against the bytes put, simple",
        1.1,
        _scale("memory", "simple"),
        at_most=True,
    ),
    Figure(
        "store's memory after steps that clear whole batches, against live bytes",
        1.3,
        _scale("memory", "after"),
        at_most=True,
    ),
    Figure(
        "store's memory after steps that clear single samples, against live bytes",
        1.3,
        _scale("memory by rows", "after"),
        at_most=True,
    ),
    Figure(
        "all cleared: store under 64 MiB after", 60, _scale("memory", "cleared"), "s", at_most=True
    ),
    Figure(
        "unit killed: slowest of the next puts", 1, _scale("recovery", "put"), "s", at_most=True
    ),
    Figure("unit back: serves after", 2, _scale("recovery", "back"), "s", at_most=True),
    Figure("idle system: share of a core", 0.1, _scale("idle", "share", 0.01), "%", at_most=True),
    Figure("first read of a process", None, _scale("first read", "first", 1e-3), "ms"),
)
