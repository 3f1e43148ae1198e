"""The CPU-heavy parts of a call: encoding and decoding.

A call yields such work as a step (see `_calls`).  The sync form runs it in the calling thread.  The async form runs
heavy work in another thread, so that no call blocks the event loop for long.  Those threads release the GIL about
once a millisecond (pace.c), and copy memory without holding it.
"""

from __future__ import annotations

import contextlib
import contextvars
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .._core import VALUE, pace, weigh

if TYPE_CHECKING:
    from .._core import DataColumn
    from .tensors import Fields

P = ParamSpec("P")
R = TypeVar("R")

WEIGHT = 2000
"""Small values to encode or decode in the loop: about half a millisecond."""
ROWS = 128
"""Rows in the loop that may each become an object."""
BYTES = 1 << 20
"""Bytes to copy in the loop."""
COLUMNS = 512
"""Columns to look at in the loop: about two milliseconds."""


class Work(Generic[R]):
    """A step of a call: a computation.  A `heavy` one must not run in an event loop."""

    __slots__ = ("_call", "heavy")

    def __init__(
        self, heavy: bool, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        self.heavy = heavy
        self._call: Callable[[], R] = lambda: call(*args, **kwargs)

    def __call__(self) -> R:
        """Run the computation."""
        if not self.heavy:
            return self._call()
        with _collector_off():
            return self._call()

    async def beside_the_loop(self) -> R:
        """Run the computation in another thread."""
        import asyncio

        context = contextvars.copy_context()
        streams = _cuda_streams()

        def run() -> R:
            _use_streams(streams)
            return context.run(self)

        # Not the loop's default executor: all of its threads may be busy waiting for this very call.
        return await asyncio.get_running_loop().run_in_executor(_threads.get(), run)


class _Threads:
    """The threads, created on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def get(self) -> ThreadPoolExecutor:
        """The executor of this process."""
        with self._lock:
            if self._executor is None:
                count = min(4, len(os.sched_getaffinity(0)))
                self._executor = ThreadPoolExecutor(count, "transferq-work", initializer=pace)
            return self._executor

    def forked(self) -> None:
        """Start over in a forked child, which has none of the threads."""
        self._lock = threading.Lock()
        self._executor = None


class _Collector:
    """Switches Python's garbage collector off while many long-lived objects are created.

    Otherwise it would scan all objects of the process several times, holding the GIL for tens of milliseconds each time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._was_on = False

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Keep the collector off; after the last user it is switched on again if it was on before."""
        with self._lock:
            if not self._users:
                self._was_on = gc.isenabled()
                gc.disable()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._was_on:
                    gc.enable()

    def forked(self) -> None:
        """Start over in a forked child, which does not have the threads that wanted the collector off."""
        if self._users and self._was_on:
            gc.enable()
        self._lock = threading.Lock()
        self._users = 0


_threads = _Threads()
_collector = _Collector()
_collector_off = _collector.off
os.register_at_fork(after_in_child=_threads.forked)
os.register_at_fork(after_in_child=_collector.forked)


def _cuda_streams() -> tuple[int, list[Any]] | None:
    """The current device and streams of this thread: copies to the host must wait for the kernels that made the tensors."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    devices = range(torch.cuda.device_count())
    return torch.cuda.current_device(), [torch.cuda.current_stream(each) for each in devices]


def _use_streams(streams: tuple[int, list[Any]] | None) -> None:
    if streams is None:
        return
    import torch

    for stream in streams[1]:
        torch.cuda.set_stream(stream)
    torch.cuda.set_device(streams[0])


# --- what is heavy --------------------------------------------------------------------------------


def is_heavy(fields: Fields) -> bool:
    """Whether a batch takes long to encode; deciding takes microseconds."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    columns = (
        fields.values() if isinstance(fields, Mapping) else (each for _, each in fields.items())
    )
    for place, column in enumerate(columns):
        if place == COLUMNS:
            return True
        if torch is not None and isinstance(column, torch.Tensor):
            if column.is_nested:
                if column.layout is not torch.jagged and column.size(0) > ROWS:
                    return True
            elif _is_copied(torch, column):
                return True
        elif numpy is not None and isinstance(column, numpy.ndarray):
            if column.dtype.hasobject or (column.nbytes > BYTES and not column.flags.c_contiguous):
                return True
        elif isinstance(column, list):
            if len(column) > ROWS or weigh(column, WEIGHT):
                return True
        elif type(column).__name__ == "NonTensorStack":
            if len(column) > ROWS or weigh(column.tolist(), WEIGHT):
                return True
        elif hasattr(column, "__len__") and len(column) > ROWS:
            return True
    return False


def _is_copied(torch: Any, tensor: Any) -> bool:
    """Whether a tensor is large and cannot be put directly from its own memory."""
    if tensor.numel() * tensor.element_size() <= BYTES:
        return False
    return bool(
        tensor.layout is not torch.strided or not (tensor.is_cpu and tensor.is_contiguous())
    )


def is_heavy_row(values: Mapping[str, Any]) -> bool:
    """Like is_heavy, for one sample."""
    torch = sys.modules.get("torch")
    for value in values.values():
        if torch is not None and isinstance(value, torch.Tensor):
            if _is_copied(torch, value):
                return True
        elif weigh(value, WEIGHT):
            return True
    return False


def are_heavy(columns: Sequence[DataColumn], rows: int) -> bool:
    """Whether columns that were read take long to decode."""
    if len(columns) > COLUMNS:
        return True
    for column in columns:
        if column.kind == VALUE:
            if rows > ROWS or len(column.data) > BYTES // 4:
                return True
        elif column.ragged and rows > ROWS:
            return True
    return False
