"""How long calls block an event loop; the tests of the async calls measure this too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any


async def longest_gap(call: Awaitable[Any]) -> tuple[float, Any]:
    """The longest gap between two runs of a task due every millisecond during a call, and the call's result."""
    longest, ended = 0.0, False

    async def beat() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not ended:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0.005)
    longest = 0.0
    result = await call
    ended = True
    await beating
    return longest, result
