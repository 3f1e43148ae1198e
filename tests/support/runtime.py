"""A runtime directory for the test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def own_runtime(*without: str) -> Iterator[Path]:
    """This process and its children find no other systems; variables in `without` are unset."""
    # Socket paths are short, so the directory is not below pytest's own.
    with tempfile.TemporaryDirectory(prefix="tq-") as path, pytest.MonkeyPatch.context() as patch:
        for name in ("TQ_ADDRESS", "TQ_TOKEN_FILE", "TQ_SYSTEM", *without):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_RUNTIME_DIR", path)
        yield Path(path)
