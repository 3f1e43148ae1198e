"""Lists of many keys, and claims of one process while another one lists them again and again: the controller serves both.

Where there are few cores a neighbour takes some of them, whatever it does.  So the claims are timed beside one that only
computes on one of them, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from bench.subjects import Subject

TAGS = 7
LISTED = 300_000
"""Keys that are listed in a round, by as many lists as that takes, but no more than this:"""
LISTS = 100
CHUNK = 50
CLAIMS = 1000
"""Claims beside nobody, and at least beside a neighbour."""


def measure(
    rounds: int,
    subjects: dict[str, Subject],
    lister: Subject,
    keys: int,
    tick: Callable[[str], None],
) -> dict[str, Any]:
    """Seconds of lists by side; of each claim of ours alone, beside a computing and beside a listing process."""
    lists: list[dict[str, float]] = []
    claims: list[dict[str, list[float]]] = []
    ours = subjects["ctq"]
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
    """Claims while the neighbour does something, again and again until there are enough of them."""
    claims: list[float] = []
    answer: dict[str, Any] = {}
    while len(claims) < CLAIMS:
        busy = threading.Thread(target=lambda: answer.update(neighbour.ask(do, **args)))
        busy.start()
        while busy.is_alive():
            claims += _claims(subject)
        busy.join()
    return claims, answer
