"""A runtime directory of the test's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def own_runtime(*without: str) -> Iterator[Path]:
    """No system of somebody else's is found, by this process and its children; nor are variables `without` set."""
    # Paths of sockets are short, so the directory does not lie below pytest's own.
    with tempfile.TemporaryDirectory(prefix="ctq-") as path, pytest.MonkeyPatch.context() as patch:
        for name in ("TQ_ADDRESS", "TQ_TOKEN_FILE", "TQ_SYSTEM", *without):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_RUNTIME_DIR", path)
        yield Path(path)
