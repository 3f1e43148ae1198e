"""Waiting for a state that the system reaches by itself: by its events, not by sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ctq


def wait_event(
    client: ctq.TransferQueueClient,
    wanted: Callable[[dict[str, Any]], bool],
    since: int = 0,
    seconds: float = 30.0,
) -> dict[str, Any]:
    """The first event after `since` that is wanted; each look waits at the controller until something happens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        events = client.get_events(since=since, wait=True)
        for event in events:
            since = event["seq"]
            if wanted(event):
                return event
    raise AssertionError(f"no such event within {seconds} s")


def wait_status(
    client: ctq.TransferQueueClient,
    wanted: Callable[[dict[str, Any]], bool],
    seconds: float = 30.0,
) -> dict[str, Any]:
    """The first status that is wanted, for what has no event of its own: asked for again and again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status: dict[str, Any] = client.status()
        if wanted(status):
            return status
    raise AssertionError(f"no such status within {seconds} s")
