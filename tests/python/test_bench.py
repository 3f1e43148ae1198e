"""The benchmark: the data it makes equals the data it reads back, and every figure of one side is produced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("rich")

from rich.console import Console

from bench import __main__ as command
from bench import demo, hosts, noisy, only, report
from bench.figures import FIGURES, Figure, percentile, ratio
from bench.run import ASYNC, CALLERS, OPERATIONS, Plan, measure
from bench.scale import Scale
from bench.subjects import ROOT, Subject
from bench.workloads import WORKLOADS, size, table

FEW = Scale(clients=8, steps=0, samples=2000, quiet=0.1)
TINY = Plan(
    rounds=1,
    long_rounds=1,
    scale=0.01,
    calls=5,
    claims=5,
    listed=50,
    many=2000,
    few=1000,
    others=False,
    crowd=FEW,
    noisy=False,
    hosts=False,
    updates=0,
)


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_a_workload_is_the_same_in_every_process(name: str) -> None:
    one, other = (WORKLOADS[name].columns(0.01) for _ in range(2))
    assert one.keys() == other.keys()
    assert size(one) == size(other) > 0
    fields = table(one)
    assert sorted(fields.keys()) == sorted(one)
    assert fields.batch_size[0] == WORKLOADS[name].rows(0.01)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_without_upstream(tmp_path: Path) -> None:
    ticks: list[str] = []
    results = measure(TINY, ticks.append, upstream=False)
    assert len(ticks) == TINY.steps()
    assert {name: len(rounds) for name, rounds in results["batches"].items()} == dict.fromkeys(
        WORKLOADS, 1
    )
    assert set(results["small"]) == set(OPERATIONS)
    assert set(results["concurrent"]) == set(ASYNC)
    for by_callers in results["concurrent"].values():
        assert set(by_callers) == {str(callers) for callers in CALLERS}
        for callers, rounds in by_callers.items():
            assert len(rounds[0]["transferq"]["seconds"]) == max(5, int(callers))
    assert all(each["transferq"] > 0 for each in results["init"])
    figures = report.evaluate(results)
    known = {each["figure"] for each in figures if each["value"] is not None}
    others = (
        "across hosts",
        "beside large",
        "async demo",
        "upstream",
        "Ray objects",
        "Redis",
        "warm copy",
        "that clear",
        "all cleared",
    )
    expected = {each.name for each in FIGURES if not any(other in each.name for other in others)}
    assert known == expected
    written = report.save(results, figures, tmp_path)
    assert all(path.stat().st_size > 0 for path in written)
    assert json.loads(written[0].read_text())["about"]["cores"] > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_some_parts_alone(tmp_path: Path) -> None:
    parts = ["long texts", "texts", "gaps-maps", "zero-copy", "claim"]
    ticks: list[str] = []
    results = only.measure(TINY, parts, ticks.append, upstream=False)
    assert len(ticks) == only.steps(TINY, parts)
    figures = report.evaluate(results)
    assert {each["figure"] for each in figures if each["value"] is not None} == {
        "long texts: get against decoding them",
        "long texts: get by metadata against decoding them",
        "maps: the loop stands still in an async put, beyond an idle one",
        "maps: the loop stands still in an async get, beyond an idle one",
        "simple: zero-copy get by metadata, dense",
        "an eighth of it: zero-copy get by metadata, dense",
    }
    with (tmp_path / "said").open("w") as file:
        report.show_some(figures, results, Console(file=file, width=200))
    said = (tmp_path / "said").read_text()
    assert "long texts: read by metadata" in said
    assert "long texts: put" in said
    assert "claim" in said
    written = report.save_numbers(results, figures, tmp_path / "out")
    assert json.loads(written.read_text())["about"]["cores"] > 0


def test_a_part_that_does_not_exist_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "texts,pictures"])
    with pytest.raises(SystemExit) as raised:
        command.main()
    assert raised.value.code == 2
    assert "there is no part 'pictures', only simple, complex," in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_across_hosts() -> None:
    ticks: list[str] = []
    found = hosts.measure(2, 0.01, ticks.append)
    assert len(ticks) == 2
    assert len(found["rounds"]) == 2, found
    for each in found["rounds"]:
        assert all(each[side][step] > 0 for side in ("raw", "transferq") for step in ("put", "get"))
        assert each["daemon"] >= 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_beside_noisy_clients() -> None:
    ticks: list[str] = []
    with Subject("transferq", ".venv", "transferq") as subject:
        subject.ask("init")
        (found,) = noisy.measure(1, 0.01, 5, {"transferq": subject}, ticks.append)
        subject.ask("close")
    assert len(ticks) == 1
    assert all(len(found["transferq"][operation]) >= 5 for operation in noisy.OPERATIONS)
    assert all(found["transferq"]["moved"][way] > 0 for way in ("written", "read"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo() -> None:
    found = demo.run(".venv", "transferq", 2)
    assert found["step"] > 0
    assert 0 < found["share"] < 1


@pytest.mark.slow
def test_it_starts_by_itself() -> None:
    """As `make bench` starts it, without the paths that pytest adds."""
    said = subprocess.run(
        [sys.executable, "-m", "bench", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert "--quick" in said.stdout
    assert "gaps-strings" in said.stdout


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
