"""Systems on a store of the test."""

from __future__ import annotations

from typing import Any

import transferq


def started(name: str, client_timeout: float = 30, **section: Any) -> None:
    """Start a system on a backend."""
    backend = {"storage_backend": name, name: section}
    transferq.init({"backend": backend, "client": {"timeout": client_timeout}})
