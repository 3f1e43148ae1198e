"""Fixtures of the tests of the package."""

import sys
from typing import Any

from support.package import client, pid, runtime_dir, tq

__all__ = ["client", "pid", "runtime_dir", "tq"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many operations had equal outcomes on tensors that were read, where this was compared."""
    outcomes = sys.modules.get("support.tensor_outcomes")
    line = outcomes.TALLY.line() if outcomes is not None else None
    if line is not None:
        terminalreporter.write_line(line)
