"""Run the script on both sides and compare: compare.py [--sequences N] [--keep FOLDER] [CASE...]

Prints what is covered and what disagrees; fails on a disagreement that docs/compatibility.md does not list,
and on a listed one that no longer exists.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from differential import (  # noqa: F401 - they register their cases
    points_checkpoint,
    points_inputs,
    points_kv,
    points_meta,
    points_samplers,
    points_values,
)
from differential.answers import agree
from differential.cases import CASES, listed_ids
from differential.names import NAMES, differences

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "compatibility.md"
POINTS = 23
"""The numbered points of the contract, and the section on data_parser."""
SECONDS = 540.0
SHOWN = 1500
"""Longest part of an answer in a report."""

Told = dict[str, Any]


def play_both(folder: Path, sequences: int, cases: list[str]) -> tuple[Told, Told]:
    """Run the script in both environments at the same time."""
    running = []
    for side, environment in (("upstream", ".venv-peer"), ("ours", ".venv-compat")):
        home = folder / side
        (home / "run").mkdir(mode=0o700, parents=True)
        (home / "scratch").mkdir()
        command = [
            str(ROOT / environment / "bin" / "python"),
            str(Path(__file__).with_name("play.py")),
            str(home / "scratch"),
            str(home / "answers.json"),
            str(sequences),
            *cases,
        ]
        env = {**os.environ, "XDG_RUNTIME_DIR": str(home / "run"), "TQ_SYSTEM": f"compat-{side}"}
        with (home / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log)
        running.append((side, home, process))
    told = []
    try:
        for side, home, process in running:
            if process.wait(timeout=SECONDS) != 0:
                log = (home / "log").read_text(errors="replace").splitlines()[-30:]
                raise SystemExit("\n".join([f"compat: the {side}'s side failed:", *log]))
            told.append(json.loads((home / "answers.json").read_text()))
    finally:
        for _, _, process in running:
            process.kill()
            process.wait()
    return told[0], told[1]


class Report:
    """The disagreements, and which of them are listed."""

    def __init__(self) -> None:
        self.listed = listed_ids(DOCUMENT)
        self.used: Counter[str] = Counter()
        self.problems: list[str] = []

    def known(self, name: str) -> bool:
        """Whether the page lists a disagreement; reports it if not."""
        self.used[name] += 1
        if name in self.listed:
            return True
        self.problems.append(f"{name} is not listed in {DOCUMENT.relative_to(ROOT)}")
        return False

    def compare_answers(self, where: str, upstream: list[Told], ours: list[Told]) -> bool:
        """Compare the answers of one case or sequence."""
        before = len(self.problems)
        for place, (one, other) in enumerate(zip(upstream, ours, strict=False)):
            same = agree(one["answer"], other["answer"])
            listed = other["listed"]
            if listed is not None and same:
                self.problems.append(f"{where}, answer {place}: listed as {listed}, but it agrees")
            elif listed is not None:
                self.known(listed)
            elif not same:
                self.problems.append(
                    f"{where}, answer {place}:\n  upstream {_shown(one['answer'])}\n"
                    f"  ours {_shown(other['answer'])}"
                )
        if len(upstream) != len(ours):
            self.problems.append(f"{where}: {len(upstream)} answers there, {len(ours)} here")
        return len(self.problems) == before

    def finish(self) -> int:
        """Report; returns 1 if anything is wrong."""
        for problem in self.problems:
            print(f"compat: {problem}")
        return 1 if self.problems else 0


def _shown(answer: Any) -> str:
    text = json.dumps(answer)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def compare_names(report: Report, upstream: Told, ours: Told) -> tuple[int, int]:
    """How many of the names agree, and how many there are."""
    good = 0
    for name in NAMES:
        found = differences(name, upstream["names"][name.path], ours["names"][name.path])
        if not found:
            good += 1
        elif name.listed is None:
            report.problems.append(f"name {name.path}: {'; '.join(found)}")
        elif report.known(name.listed):
            good += 1
    return good, len(NAMES)


def unwritten() -> list[str]:
    """Names that are missing on the page."""
    words = set(re.findall(r"[\w.]+", DOCUMENT.read_text(encoding="utf-8")))
    missing = []
    for name in NAMES:
        path = name.path.replace("async_", "")
        wanted = {name.path, path, re.split(r"[.:]", path)[-1]}
        if name.kind == "module":
            wanted.add(path.split(".")[0])
        if name.kind != "key" and not wanted & words:
            missing.append(name.path)
    return missing


def main() -> int:
    """Compare; returns 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=40, help="random sequences (40)")
    parser.add_argument("--keep", type=Path, help="keep answers and logs in this folder")
    parser.add_argument("--json", type=Path, help="write what passed and failed to this file")
    parser.add_argument("--again", type=Path, help="compare the answers kept in this folder")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="only these cases")
    args = parser.parse_args()
    if args.again:
        upstream, ours = (
            json.loads((args.again / side / "answers.json").read_text())
            for side in ("upstream", "ours")
        )
    else:
        with tempfile.TemporaryDirectory(prefix="tqd-") as scratch:
            folder = args.keep or Path(scratch)
            sequences = 0 if args.cases else args.sequences
            upstream, ours = play_both(folder.resolve(), sequences, args.cases)
    report = Report()
    bad_points = set()
    answers = good_cases = 0
    for case in CASES:
        if case.name in upstream["cases"]:
            there, here = upstream["cases"][case.name], ours["cases"][case.name]
            answers += len(there)
            where = f"point {case.point}, {case.name}"
            if report.compare_answers(where, there, here):
                good_cases += 1
            else:
                bad_points.add(case.point)
    agreed = sum(
        report.compare_answers(f"seed {seed}", there, ours["sequences"][seed])
        for seed, there in upstream["sequences"].items()
    )
    if args.cases:
        return report.finish()
    names, all_names = compare_names(report, upstream, ours)
    report.problems += [f"name {path} is not in {DOCUMENT.name}" for path in unwritten()]
    covered = {case.point for case in CASES}
    for name in sorted(set(report.listed) - set(report.used)):
        report.problems.append(f"{name} is listed, but no case shows it")
    status = report.finish()
    print(
        f"compat: {len(CASES)} cases with {answers} answers; {len(report.used)} listed differences"
    )
    print(
        f"compat: names {names}/{all_names}, semantic points {len(covered - bad_points)}/{POINTS}, "
        f"random sequences {agreed} agreed of {len(upstream['sequences'])}"
    )
    if args.json:
        passed = good_cases + agreed + names
        args.json.write_text(json.dumps({"passed": passed, "failures": report.problems}))
    return status


if __name__ == "__main__":
    sys.exit(main())
