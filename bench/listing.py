"""Claims of one process while another one lists a large partition again and again: the controller serves both."""

from __future__ import annotations

import threading
from typing import Any

from bench.subjects import Subject

TAGS = 7
LISTS = 3
CHUNK = 50


def measure(subject: Subject, environment: str, keys: int) -> dict[str, Any]:
    """Seconds of each claim alone and meanwhile, and of each listing."""
    with Subject("lister", environment, "ctq", XDG_RUNTIME_DIR=subject.home) as lister:
        lister.ask("attach")
        subject.ask("fill_keys", keys=keys, tags=TAGS)
        alone: list[float] = []
        while len(alone) < 4 * CHUNK:
            alone += subject.ask("small_claims", count=CHUNK)["seconds"]
        found: dict[str, Any] = {}
        listing = threading.Thread(
            target=lambda: found.update(lister.ask("listings", keys=keys, count=LISTS))
        )
        listing.start()
        meanwhile: list[float] = []
        while listing.is_alive() or not meanwhile:
            meanwhile += subject.ask("small_claims", count=CHUNK)["seconds"]
        listing.join()
        subject.ask("clear_keys")
        lister.ask("close")
    return {"alone": alone, "meanwhile": meanwhile, "lists": found["seconds"]}
