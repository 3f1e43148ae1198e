"""Fixtures for tests of whole systems."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.daemons import System

# A shell ignores these for what it starts in the background, and a daemon keeps to that.  Daemons of the tests end by them,
# wherever the tests run.
for ignored, usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, usual)

# Two threads of torch on cores that other tests use, too, spin for each other: the same takes up to 20 times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SMALL = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make test-full` adds."""
    parser.addoption("--full", action="store_true", help="also the tests that take many minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes many minutes; tests/conformance has an option of its own for that."""
    if config.getoption("full"):
        return
    own = Path(__file__).parent / "conformance"
    long = [
        item for item in items if item.get_closest_marker("full") and own not in item.path.parents
    ]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def pytest_collection_finish() -> None:
    """What the modules brought is no garbage: tests that look for some need not walk it, 0.2 s each time with torch."""
    gc.collect()
    gc.freeze()


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
