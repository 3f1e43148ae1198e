"""Each line of README.md has tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.lines import Line, lines

LINES = lines(Path(__file__).with_name("README.md"))


def test_no_line_is_missing() -> None:
    attacks = {*(f"A{number}" for number in range(1, 7)), *(f"H{number}" for number in range(1, 9))}
    faults = {"S2b", *(f"S{number}" for number in range(1, 10))}
    assert {line.name for line in LINES} == attacks | faults | {"L1"}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_a_line_has_tests(line: Line) -> None:
    assert line.tests
    assert not line.missing()
