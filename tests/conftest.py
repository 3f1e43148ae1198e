"""Fixtures for tests of whole systems."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.daemons import System

SMALL = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system that the test starts as it likes; everything of it ends with the test."""
    made = System(tmp_path)
    yield made
    made.close()


@pytest.fixture
def running(system: System) -> System:
    """A system with one small storage unit, all in one daemon."""
    system.start(settings=SMALL)
    return system
