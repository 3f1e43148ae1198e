"""Calls of a value-form storage client: run in threads, each with a time limit, with their answers checked."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .._impl.dtypes import describe_dtype
from ..errors import ClosedError, InvalidArgumentError, TimedOutError

CALLS_AT_ONCE = 32
"""Concurrent calls of one manager's client."""


class CallLeftError(Exception):
    """A call is still running, but no longer waited for; `reason` is the error to raise to its caller."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Calls:
    """The blocking calls of a value-form client: run in threads, each with a time limit.

    A call cannot be stopped.  If its caller is cancelled or runs out of time, the call is left to its thread.
    """

    def __init__(self, client: Any) -> None:
        self.name = type(client).__name__
        self._client = client
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._pid = 0
        self._closed = False

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._closed:
                raise ClosedError("the client is closed")
            if self._threads is None or self._pid != os.getpid():  # threads do not survive a fork
                self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, f"transferq-{self.name}")
                self._pid = os.getpid()
            return self._threads

    async def run(
        self,
        method: str,
        args: Sequence[Any],
        deadline: float,
        kwargs: Mapping[str, Any] | None = None,
        late: Callable[[Any], None] | None = None,
    ) -> Any:
        """Call a method and return its answer.

        CallLeftError if it is still running: once it ends, `late` is called with its answer, or None after an error.
        """
        call = getattr(self._client, method)
        running = self._executor().submit(call, *args, **(kwargs or {}))
        waiting = asyncio.wrap_future(running)
        seconds = deadline - time.monotonic()
        reason: BaseException
        try:
            await asyncio.wait([waiting], timeout=max(0.0, seconds))
            if waiting.done():
                return waiting.result()
            reason = TimedOutError(
                f"{self.name}.{method} did not end within {round(seconds, 1):g} s"
            )
        except asyncio.CancelledError as error:
            if waiting.done():
                if not waiting.cancelled():
                    waiting.exception()  # marks it as retrieved: the cancellation is raised instead
                raise
            reason = error
        waiting.cancel()  # also cancels the call, if no thread has started it
        if late is not None and not running.cancelled():
            running.add_done_callback(
                lambda ended: (
                    None
                    if ended.cancelled()
                    else late(None if ended.exception() else ended.result())
                )
            )
        raise CallLeftError(reason)

    @staticmethod
    def is_row(answer: Any, keys: Sequence[str]) -> bool:
        """Whether an answer has one item per key."""
        listed = hasattr(answer, "__len__") and hasattr(answer, "__getitem__")
        return listed and not isinstance(answer, (str, bytes, Mapping)) and len(answer) == len(keys)

    def check_row(self, method: str, what: str, answer: Any, keys: Sequence[str]) -> Any:
        """Check that the answer has one item per key, and return it."""
        if not self.is_row(answer, keys):
            got = f"{len(answer)}" if isinstance(answer, (list, tuple)) else _described(answer)
            raise InvalidArgumentError(
                f"{self.name}.{method}: expected a list with one {what} for each of {len(keys)} keys, got {got}"
            )
        return answer

    def check_tensor(self, key: str, value: Any, shape: Any, dtype: Any) -> None:
        """Raise an error unless a value that was read is the tensor that was put."""
        found = describe_dtype(getattr(value, "dtype", None))
        if (
            found is None
            or found != describe_dtype(dtype)
            or (shape is not None and tuple(value.shape) != tuple(shape))
        ):
            raise InvalidArgumentError(
                f"{self.name}.get: expected for key {key!r} a tensor of shape {tuple(shape or ())} and {dtype}, got "
                f"{_described(value)}"
            )

    def close(self) -> None:
        """Start no further calls; running calls go on."""
        with self._lock:
            self._closed = True
            if self._threads is not None and self._pid == os.getpid():
                self._threads.shutdown(wait=False, cancel_futures=True)


def _described(value: Any) -> str:
    """Describe a value for messages."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if dtype is not None and shape is not None:
        return f"one of shape {tuple(shape)} and {dtype}"
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"
