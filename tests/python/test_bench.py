"""The benchmark: what it makes is what it reads back, and every figure of one side comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from bench import report
from bench.figures import Figure, percentile, ratio
from bench.run import CALLERS, OPERATIONS, Plan, measure
from bench.workloads import WORKLOADS, size, table

TINY = Plan(rounds=2, scale=0.01, calls=5, claims=5, listed=50, many=2000, few=1000, others=False)


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_a_workload_is_the_same_in_every_process(name: str) -> None:
    one, other = (WORKLOADS[name].columns(0.01) for _ in range(2))
    assert one.keys() == other.keys()
    assert size(one) == size(other) > 0
    fields = table(one)
    assert sorted(fields.keys()) == sorted(one)
    assert fields.batch_size[0] in (1, 8, 16)


@pytest.mark.slow
def test_a_run_without_the_peer(tmp_path: Path) -> None:
    ticks: list[str] = []
    results = measure(TINY, ticks.append, peer=False)
    assert len(ticks) == TINY.steps()
    assert [len(rounds) for rounds in results["batches"].values()] == [2, 2, 2, 2]
    assert set(results["small"]) == set(OPERATIONS)
    assert set(results["concurrent"]) == {str(callers) for callers in CALLERS}
    assert all(each["ctq"] > 0 for each in results["init"])
    figures = report.evaluate(results)
    known = {each["figure"] for each in figures if each["value"] is not None}
    assert known == {
        "claim while another process lists: p99 against alone",
        "simple: zero-copy get by metadata, dense",
        "claim at 1,000,000 ready samples against 10,000",
        "simple, across hosts: put against a raw stream",
        "simple, across hosts: get against a raw stream",
    }, results["hosts"]
    written = report.save(results, figures, tmp_path)
    assert all(path.stat().st_size > 0 for path in written)
    assert json.loads(written[0].read_text())["about"]["cores"] > 0


def test_figures_are_medians_of_ratios() -> None:
    assert ratio([2.0, 8.0, 9.0], [1.0, 2.0, 3.0]) == 3.0
    assert ratio([], []) is None
    assert percentile([5.0, 1.0, 3.0], 0.5) == 3.0

    def nothing(results: dict[str, Any]) -> float | None:
        return None

    most = Figure("memory", 1.1, nothing, at_most=True)
    assert [most.reached(value) for value in (1.0, 1.2, None)] == [True, False, None]
    least = Figure("speed", 3.5, nothing)
    assert [least.reached(value) for value in (3.5, 3.4)] == [True, False]
