"""Tests with verl itself; they need its environment (.venv-verl), and are not collected in any other."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

try:
    importlib.metadata.version("verl")
    collect_ignore_glob: list[str] = []
except importlib.metadata.PackageNotFoundError:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module")
def tq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package transfer_queue with a running system on verl's stock configuration."""
    import transfer_queue
    from names import stock_configuration
    from omegaconf import OmegaConf

    runtime = tmp_path_factory.mktemp("run")
    runtime.chmod(0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    conf = OmegaConf.load(stock_configuration())
    conf.enable = True
    conf.backend.SimpleStorage.num_data_storage_units = 2
    transfer_queue.init(conf)
    yield transfer_queue
    transfer_queue.close()
    if before is None:
        os.environ.pop("XDG_RUNTIME_DIR")
    else:
        os.environ["XDG_RUNTIME_DIR"] = before
