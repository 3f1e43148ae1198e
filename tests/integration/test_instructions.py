"""Fixed operations cost as many instructions as before, counted and compared with the kept counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tools.count_instructions import COUNTS, TOLERANCE, compare, count


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    """Instructions per operation, in this build."""
    return count(Path(os.environ["TQ_TEST_BUILD"]))


@pytest.mark.parametrize("operation", json.loads(COUNTS.read_text("utf-8")))
def test_an_operation_did_not_become_dearer(counted: dict[str, int], operation: str) -> None:
    known = json.loads(COUNTS.read_text("utf-8"))
    assert compare({operation: known[operation]}, {operation: counted[operation]}) == []


def test_every_operation_has_a_count(counted: dict[str, int]) -> None:
    assert counted.keys() == json.loads(COUNTS.read_text("utf-8")).keys()


def test_dearer_unknown_and_missing_ones_are_named() -> None:
    assert compare({"a": 1000}, {"a": round(1000 * (1 + TOLERANCE))}) == []
    assert compare({"a": 1000}, {"a": 1100}) == ["a: 1100 instructions, 10.0 % over 1000"]
    assert compare({"a": 1000}, {}) == ["a: not counted any more"]
    assert compare({}, {"a": 7}) == ["a: 7 instructions, no count is kept"]
