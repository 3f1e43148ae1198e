"""Each row of README.md has tests that exist, and each test file is in a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.lines import Line, lines

LINES = lines(Path(__file__).with_name("README.md"))


def test_no_line_is_missing() -> None:
    attacks = {*(f"A{number}" for number in range(1, 7)), *(f"H{number}" for number in range(1, 9))}
    faults = {"S2b", *(f"S{number}" for number in range(1, 10))}
    costs = {"C1", "C2"}
    assert {line.name for line in LINES} == attacks | faults | costs | {"L1"}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_a_line_has_tests(line: Line) -> None:
    assert line.tests
    assert not line.missing()


def test_each_file_of_tests_is_in_a_line() -> None:
    here = Path(__file__)
    named = {file for line in LINES for file, _ in line.tests}
    assert set(here.parent.glob("test_*.py")) - named == {here}
