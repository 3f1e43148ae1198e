"""Lists of many keys, and claims of one process while another keeps listing keys: the controller serves both.

If there are few cores, any neighbour takes some of them, whatever it does.  So the claims are also timed beside a
neighbour that only computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from bench.subjects import Subject

TAGS = 7
LISTED = 300_000
"""Most keys listed in a round, in as many lists as that takes, up to this many:"""
LISTS = 100
CHUNK = 50
CLAIMS = 1000
"""Claims without a neighbour, and the minimum beside one."""


def measure(
    rounds: int,
    subjects: dict[str, Subject],
    lister: Subject,
    keys: int,
    tick: Callable[[str], None],
) -> dict[str, Any]:
    """Seconds of lists by side, and of our claims: alone, beside a computing and beside a listing process."""
    lists: list[dict[str, float]] = []
    claims: list[dict[str, list[float]]] = []
    ours = subjects["transferq"]
    count = max(1, min(LISTS, LISTED // keys))
    for subject in subjects.values():
        subject.ask("fill_keys", keys=keys, tags=TAGS)
    for _ in range(rounds):
        lists.append(
            {
                name: subject.ask("listings", keys=keys, count=1)["seconds"][0]
                for name, subject in subjects.items()
            }
        )
        tick("kv_list")
    lister.ask("attach", XDG_RUNTIME_DIR=ours.home)
    for _ in range(rounds):
        alone: list[float] = []
        while len(alone) < CLAIMS:
            alone += _claims(ours)
        listing, answer = _beside(ours, lister, "listings", keys=keys, count=count)
        computing, _ = _beside(ours, lister, "compute", total=sum(answer["seconds"]))
        claims.append({"alone": alone, "computing": computing, "listing": listing})
        tick("claims, kv_list")
    lister.ask("close")
    for subject in subjects.values():
        subject.ask("clear_keys")
    return {"listing": lists, "claims while listing": claims}


def _claims(subject: Subject) -> list[float]:
    seconds: list[float] = subject.ask("small_claims", count=CHUNK)["seconds"]
    return seconds


def _beside(
    subject: Subject, neighbour: Subject, do: str, **args: Any
) -> tuple[list[float], dict[str, Any]]:
    """Claims while the neighbour works, repeated until there are enough of them."""
    claims: list[float] = []
    answer: dict[str, Any] = {}
    while len(claims) < CLAIMS:
        busy = threading.Thread(target=lambda: answer.update(neighbour.ask(do, **args)))
        busy.start()
        while busy.is_alive():
            claims += _claims(subject)
        busy.join()
    return claims, answer
