"""Tables that map faults to tests: when a test is renamed, it must be renamed in its table too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Line(NamedTuple):
    """A row of a table: its name, and the tests as file and function."""

    name: str
    tests: list[tuple[Path, str]]

    def missing(self) -> list[str]:
        """The tests that do not exist."""
        return [
            f"{file}::{test}"
            for file, test in self.tests
            if not file.exists() or not re.search(rf"\b{test}\(", file.read_text())
        ]


def lines(page: Path) -> list[Line]:
    """The rows of a page: the first cell is the name, the last has tests as `file::function`."""
    rows = [
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in page.read_text().splitlines()
        if line.startswith("| ")
    ]
    found = []
    for row in rows[2:]:  # below the header and its rule
        tests = re.findall(r"`([\w./]+)::(\w+)`", row[-1])
        found.append(
            Line(row[0], [((ROOT if "/" in f else page.parent) / f, name) for f, name in tests])
        )
    return found
