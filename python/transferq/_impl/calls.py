"""How a call runs: it is written once, as steps, and offered in a sync and an async form.

A call is a generator.  It yields what it waits for: an operation of the C library (`Op`), a coroutine of a
storage manager written in Python, or a computation (`Work`); and it is sent the result.  `twins` makes the two
public forms of it.

The sync form waits without holding the GIL.  The async form waits in the running event loop: the
library's thread appends completed operations to a list that belongs to the loop, and the loop takes
all of them at once.  Cancelling the await cancels the operation.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .._core import Op, Queue
from .named import RAW, explain
from .work import Work

if TYPE_CHECKING:
    import asyncio
    from typing import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")
Step: TypeAlias = "Op | Work[Any] | Coroutine[Any, Any, Any]"
Steps: TypeAlias = Generator[Step, Any, R]
"""A call's generator: yields what to wait for, returns the call's result."""


def run(steps: Steps[R]) -> R:
    """Run a call to completion in this thread."""
    send: Callable[[Any], Step] = steps.send
    value: Any = None
    try:
        while True:
            try:
                step = send(value)
            except StopIteration as end:
                result: R = end.value
                return result
            try:
                if isinstance(step, Op):
                    value = step.result()
                else:
                    value = step() if isinstance(step, Work) else _background.run(step)
                send = steps.send
            except BaseException as error:  # noqa: BLE001 - the steps decide how to handle it
                value = error
                send = steps.throw
    finally:
        # An exception refers to its traceback's frames, and this frame to the exception: break the cycle.
        del value, send


async def run_async(steps: Steps[R]) -> R:
    """Run a call to completion in the running event loop."""
    send: Callable[[Any], Step] = steps.send
    value: Any = None
    try:
        while True:
            try:
                step = send(value)
            except StopIteration as end:
                result: R = end.value
                return result
            try:
                if isinstance(step, Op):
                    value = await wait(step)
                elif isinstance(step, Work):
                    value = await step.beside_the_loop() if step.heavy else step()
                else:
                    value = await step
                send = steps.send
            except BaseException as error:  # noqa: BLE001 - the steps decide how to handle it
                value = error
                send = steps.throw
    finally:
        del value, send


async def wait(op: Op) -> Any:
    """Wait for an operation in the running event loop; a cancelled wait cancels it."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    if not op.attach(_queues.of(loop), future):
        return op.result()
    try:
        return await future
    except BaseException:
        # The operation's own error, or a cancellation; cancelling a completed operation has no effect.
        op.cancel()
        raise


def twins(
    steps: Callable[P, Steps[R]],
) -> tuple[Callable[P, R], Callable[P, Coroutine[Any, Any, R]]]:
    """Make the sync and the async form of a call; the async one is called `async_NAME`."""

    @functools.wraps(steps)
    def sync(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return run(steps(*args, **kwargs))
        except RAW as error:
            explain(steps, args, kwargs, error)
            raise

    @functools.wraps(steps)
    async def asynchronous(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await run_async(steps(*args, **kwargs))
        except RAW as error:
            explain(steps, args, kwargs, error)
            raise

    # The return type of both forms is that of the steps' return value.
    result = str(steps.__annotations__.get("return", ""))
    if result.startswith("Steps["):
        steps.__annotations__["return"] = result[len("Steps[") : -1]
    owner, _, private = steps.__qualname__.rpartition(".")
    name = private.lstrip("_")
    for form, public in ((sync, name), (asynchronous, f"async_{name}")):
        form.__name__ = public
        form.__qualname__ = f"{owner}.{public}" if owner else public
    return sync, asynchronous


def wait_any(ops: Sequence[Op], seconds: float | None) -> None:
    """Wait until one of the operations has completed, or the time is up; cancels none of them."""
    import select

    queue = Queue()
    try:
        if all(op.attach(queue, _Unread()) for op in ops):
            poller = select.poll()
            poller.register(queue.fileno(), select.POLLIN)
            poller.poll(None if seconds is None else seconds * 1000)
        queue.drain()
    finally:
        queue.close()


class _Unread:
    """A stand-in for a future whose result nobody reads."""

    def done(self) -> bool:
        return True

    def set_result(self, result: Any, /) -> None:
        """Never called, because `done` returns True."""

    def set_exception(self, exception: Any, /) -> None:
        """Never called, because `done` returns True."""


# --- event loops ----------------------------------------------------------------------------------


class _Queues:
    """The lists of completed operations, one per event loop."""

    def __init__(self) -> None:
        self._of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Queue] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()

    def of(self, loop: asyncio.AbstractEventLoop) -> Queue:
        """The list of an event loop, made on first use; must be called in that loop."""
        queue = self._of_loop.get(loop)
        if queue is not None and queue.pid == os.getpid():
            return queue
        with self._lock:
            for other in list(self._of_loop):
                if other.is_closed():
                    self._of_loop.pop(other).close()
            queue = Queue()
            loop.add_reader(queue.fileno(), queue.drain)
            self._of_loop[loop] = queue
            weakref.finalize(loop, queue.close).atexit = False
        return queue

    def forked(self) -> None:
        """Replace the lock: in the parent it may have been held by a thread that the child does not have."""
        self._lock = threading.Lock()


class _Background:
    """An event loop in a thread, for coroutines that a sync call waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine to completion."""
        import asyncio

        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._serve, args=(self._loop,), name="transferq", daemon=True
                ).start()
            return self._loop

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        while True:
            # These two stop an event loop, after being passed to the waiting caller; other callers still need the loop.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()

    def forked(self) -> None:
        """Start over: threads do not survive a fork."""
        self._lock = threading.Lock()
        self._loop = None


_queues = _Queues()
_background = _Background()
os.register_at_fork(after_in_child=_queues.forked)
os.register_at_fork(after_in_child=_background.forked)
