"""Each line of README.md has tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("| \n").split("|")]
    for line in (HERE / "README.md").read_text().splitlines()
    if re.match(r"\| [AHLS]\d", line)
]
LINES = {
    *(f"A{number}" for number in range(1, 7)),
    *(f"H{number}" for number in range(1, 9)),
    *("L1", "S2b", *(f"S{number}" for number in range(2, 10))),
}


def test_all_lines_are_there() -> None:
    assert {row[0] for row in ROWS} == LINES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_line_has_tests(row: list[str]) -> None:
    named = re.findall(r"`([\w./]+)::(\w+)`", row[2])
    assert named
    for file, name in named:
        path = HERE / file if "/" not in file else ROOT / file
        found = re.search(rf"\b{name}\(", path.read_text())
        assert found, f"{file} has no test {name}"
