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
from transferq._impl import log

# A shell ignores these signals for its background processes, and a daemon inherits that.  The tests' daemons end by
# them, wherever the tests run.
for ignored, usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, usual)

# Two threads of torch spin for each other on cores that other tests use too: this takes up to 20 times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The build with the programs of tests: the one of this environment, if no runner names another.
ROOT = Path(__file__).resolve().parent.parent
EDITABLE = Path(sys.prefix) == ROOT / ".venv-dev"
os.environ.setdefault("TQ_TEST_BUILD", str(ROOT / "build" / ("dev" if EDITABLE else "test")))

SMALL = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options added by `make test-full`."""
    parser.addoption("--full", action="store_true", help="also the tests that take many minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that take many minutes; tests/conformance has its own option for that."""
    if config.getoption("full"):
        return
    own = Path(__file__).parent / "conformance"
    long = [
        item for item in items if item.get_closest_marker("full") and own not in item.path.parents
    ]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def pytest_collection_finish() -> None:
    """Freeze the modules' objects: tests that collect garbage need not walk them, 0.2 s each time with torch."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def capfd(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> pytest.CaptureFixture[str]:
    """The process's stderr, to which the library writes as where Python's logging has no handler (pytest's are none)."""
    log.stop()
    monkeypatch.setattr(log, "forward", lambda: None)
    return capfd


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system for the test to start; everything ends with the test."""
    made = System(tmp_path)
    yield made
    made.close()


@pytest.fixture
def running(system: System) -> System:
    """A system with one small storage unit, all in one daemon."""
    system.start(settings=SMALL)
    return system
