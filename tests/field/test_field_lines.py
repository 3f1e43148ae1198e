"""Each line of README.md has tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.lines import Line, lines

LINES = lines(Path(__file__).with_name("README.md"))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_a_line_has_tests(line: Line) -> None:
    assert line.tests
    assert not line.missing()
