"""Each backend that stands for a transport really uses it.

The suite itself is the same for all of them: `simple-*` in backends.py.
"""

from __future__ import annotations

import pytest

from .backend import Backend
from .backends import Units
from .worker import Worker, how_it_moves


@pytest.mark.needs("transport")
def test_it_is_that_transport(backend: Backend, pid: str) -> None:
    """Sockets and mappings of a client that has put and read."""
    assert isinstance(backend, Units)
    seen = Worker(how_it_moves, backend, pid).end()
    assert seen["shared"] == backend.shares
    assert seen["families"] == [backend.family]
