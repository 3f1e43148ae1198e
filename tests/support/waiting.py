"""Waiting for a state that the system reaches by itself: through its events, without sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import transferq


def wait_event(
    client: transferq.TransferQueueClient,
    wanted: Callable[[dict[str, Any]], bool],
    since: int = 0,
    seconds: float = 30.0,
) -> dict[str, Any]:
    """The first wanted event after `since`; each attempt waits at the controller until something happens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        events = client.get_events(since=since, wait=True)
        for event in events:
            since = event["seq"]
            if wanted(event):
                return event
    raise AssertionError(f"no such event within {seconds} s")


def wait_status(
    client: transferq.TransferQueueClient,
    wanted: Callable[[dict[str, Any]], bool],
    seconds: float = 30.0,
) -> dict[str, Any]:
    """The first wanted status, for states without an event: polled repeatedly."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status: dict[str, Any] = client.status()
        if wanted(status):
            return status
    raise AssertionError(f"no such status within {seconds} s")
