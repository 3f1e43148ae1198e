#!/usr/bin/env python3
"""Checks what the clients of a simulation saw: check_history.py FILE...

Reads only the history file (history.md), and nothing of the simulator, the controller or its log. Checked are:

- codes: only errors that the faults explain; deadlines: an op ends soon after its own, and none is left at the end
- samples: made by puts, an index and a key have one at a time, cleared ones are gone, clears count them
- none lost: what was acknowledged, and cannot have been cleared, is found by key, by a look at all, in the list
- ready: a field is ready or lost once it was put, and not before
- values: every cell is a linearisable register; a read shows all of a put, or none of it
- claims: no sample twice for a task, except after a reset, for the same rank of a step, or when the session of a
  client may have ended before the server heard that the claim had arrived

Exit status: 0, or 1 with the records that contradict each other, or 2 if a file is not a history.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import history_claims
import history_rules
import history_values
from history_case import Case, Finding
from history_file import History, HistoryError, brief, read
from history_samples import Samples

RULES = [*history_rules.RULES, *history_values.RULES, *history_claims.RULES]


def findings(history: History, late: float = 3.0) -> list[Finding]:
    """All that is wrong, in the order in which it happened."""
    case = Case(history, Samples(history), late)
    found = [one for rule in RULES for one in rule(case)]
    return sorted(found, key=lambda one: (one.lines[-1] if one.lines else 0, one.rule))


def report(path: Path, history: History, found: list[Finding], most: int) -> None:
    for one in found[:most]:
        print(f"{path}: {one.rule}: {one.text}")
        for line in one.lines:
            print(f"  {line}: {brief(history.lines[line])}")
    if len(found) > most:
        print(f"{path}: and {len(found) - most} more")


def summary(history: History) -> str:
    states = Counter(op.state for op in history.ops.values())
    return f"{len(history.ops)} ops, " + ", ".join(
        f"{n} {state}" for state, n in sorted(states.items())
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Checks history files of the simulation.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument(
        "--late", type=float, default=3.0, help="seconds that a deadline may be exceeded by (3)"
    )
    parser.add_argument("--most", type=int, default=5, help="findings to print of each file (5)")
    parser.add_argument("--quiet", action="store_true", help="no line for a good file")
    given = parser.parse_args(arguments)
    status = 0
    gc.disable()  # everything lives until the end of its file, and the collector would look at all of it again and again
    for path in given.files:
        try:
            history = read(path)
        except (OSError, HistoryError) as error:
            print(f"{path}: {error}")
            return 2
        found = findings(history, given.late)
        report(path, history, found, given.most)
        status = 1 if found else status
        if not found and not given.quiet:
            print(f"{path}: {summary(history)}: good")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
