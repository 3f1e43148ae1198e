"""Waiting for a state that the system reaches by itself: through its events where there are some, else by polling.

Tests never sleep and never poll without a deadline: this file is the only place that pauses between two looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import transferq

T = TypeVar("T")

PAUSE = 0.005
"""Seconds between two looks at a state."""


def late(what: str, state: object, seconds: float) -> str:
    """Text of the failure."""
    return f"waited {seconds:g} s for {what}; the state is still {state!r}"


def wait_until(
    what: str,
    look: Callable[[], T],
    reached: Callable[[T], object] = bool,
    seconds: float = 60.0,
) -> T:
    """Poll a state that nobody announces until it is reached, and return it.

    The failure names `what` was waited for and the last state seen. `look` may raise to end the wait earlier.
    """
    deadline = time.monotonic() + seconds
    while not reached(state := look()):
        if time.monotonic() > deadline:
            raise AssertionError(late(what, state, seconds))
        time.sleep(PAUSE)
    return state


async def async_wait_until(
    what: str,
    look: Callable[[], Awaitable[T]],
    reached: Callable[[T], object] = bool,
    seconds: float = 60.0,
) -> T:
    """`wait_until` in an event loop, whose other tasks run meanwhile."""
    deadline = time.monotonic() + seconds
    while not reached(state := await look()):
        if time.monotonic() > deadline:
            raise AssertionError(late(what, state, seconds))
        await asyncio.sleep(0)
    return state


def wait_waiting(client: transferq.TransferQueueClient, calls: int = 1) -> None:
    """Wait until that many calls wait at the controller, or more."""
    wait_until(
        f"{calls} waiting calls", lambda: client.status()["waiting"], lambda now: now >= calls, 30
    )


async def async_wait_waiting(client: transferq.TransferQueueClient, calls: int = 1) -> None:
    """`wait_waiting` in an event loop."""
    await async_wait_until(
        f"{calls} waiting calls", client.async_status, lambda now: now["waiting"] >= calls, 30
    )


def wait_event(
    client: transferq.TransferQueueClient,
    wanted: Callable[[dict[str, Any]], bool],
    since: int = 0,
    seconds: float = 30.0,
) -> dict[str, Any]:
    """The first wanted event after `since`; each attempt waits at the controller until something happens."""
    deadline = time.monotonic() + seconds
    seen: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        events = client.get_events(since=since, wait=True)
        for event in events:
            since = event["seq"]
            if wanted(event):
                return event
        seen += events
    raise AssertionError(f"no such event within {seconds:g} s, only {seen}")


def wait_status(
    client: transferq.TransferQueueClient,
    wanted: Callable[[dict[str, Any]], bool],
    seconds: float = 30.0,
) -> dict[str, Any]:
    """The first wanted status, for states without an event."""
    return wait_until("a status", client.status, wanted, seconds)
