"""Fixtures for tests of the package: one system per test module, in a separate runtime directory.

A conftest.py imports them with `from support.package import client, pid, runtime_dir, tq`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .runtime import own_runtime

SMALL = {
    "backend": {"SimpleStorage": {"total_storage_size": "64MiB", "num_data_storage_units": 2}},
    "client": {"timeout": 20},
}
"""Configuration of the systems started by tests."""


@pytest.fixture(scope="module")
def runtime_dir() -> Iterator[Path]:
    """An empty runtime directory in which this process and its children look for systems."""
    with own_runtime() as path:
        yield path


@pytest.fixture(scope="module")
def tq(runtime_dir: Path) -> Iterator[Any]:
    """The package, with a running system; nothing of it is left afterwards."""
    import transferq

    transferq.init(SMALL)
    yield transferq
    transferq.close()
    assert list(runtime_dir.iterdir()) == []


@pytest.fixture
def client(tq: Any) -> Any:
    """The client of the running system."""
    return tq.get_client()


@pytest.fixture
def pid(request: pytest.FixtureRequest, tq: Any) -> Iterator[str]:
    """A partition for this test, cleared afterwards."""
    name = request.node.name[:200]
    yield name
    tq.get_client().clear_partition(name)
