"""What the C library logs, handed on to Python's logging: to the logger `transferq.PART`, such as `transferq.client`.

The library writes to stderr by itself as long as Python's logging has no handler for these loggers.  Otherwise it
puts its lines into a list, and a thread hands them on, since the threads of the library must not wait for the GIL or
for a handler.  At exit, in a forked child, and if a handler blocks, lines go to stderr again.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections import deque

from .._core import log_start, log_stop, log_wait

LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
WORDS = ("error", "warn", "info", "debug")
WARN = 1

EXIT_SECONDS = 1.0
"""How long the process's exit waits for a handler that blocks."""


_Line = tuple[float, int, str, str]
"""Seconds since 1970, level, part of the library, text."""


class _Forwarder:
    """The thread that hands lines on, if there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: deque[_Line] = deque()
        """Lines that the thread took from the library and has yet to hand on."""
        self._registered = False
        self._exiting = False

    @property
    def is_on(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        # A thread that holds the lock is starting or stopping this; a handler or a signal handler must not wait for it.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self.is_on and not self._exiting:
                self._start()
        finally:
            self._lock.release()

    def _start(self) -> None:
        if not self._registered:
            self._registered = True
            atexit.register(self._exit)
            os.register_at_fork(after_in_child=self._forked)
        self._waiting = deque()
        thread = threading.Thread(
            target=_run, args=(self._waiting,), name="transferq-log", daemon=True
        )
        log_start()
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no more threads: stderr it is
            log_stop()
        else:
            self._thread = thread

    def stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            log_stop()
            thread.join(EXIT_SECONDS)
            if thread.is_alive():
                found = log_wait()
                if found is not None:
                    _keep(self._waiting, *found)
            while (line := _next(self._waiting)) is not None:
                _write(*line)

    def _exit(self) -> None:
        """No thread is started any more: it would end without handing on what waits."""
        self._exiting = True
        self.stop()

    def _forked(self) -> None:
        """In the child there is no such thread: the library writes to stderr until `start` is called again."""
        self._lock = threading.Lock()
        self._waiting.clear()  # they are the parent's to hand on
        if self.is_on:
            self._thread = None
            log_stop()


_forwarder = _Forwarder()


def forward() -> None:
    """Hand the library's lines on from now on if Python's logging has a handler for `transferq`; cheap if it does already."""
    if not _forwarder.is_on and logging.getLogger("transferq").hasHandlers():
        _forwarder.start()


def stop() -> None:
    """Let the library write to stderr again.  Lines that wait are handed on, or go to stderr after EXIT_SECONDS."""
    _forwarder.stop()


def _run(waiting: deque[_Line]) -> None:
    while (found := log_wait()) is not None:
        _keep(waiting, *found)
        while (line := _next(waiting)) is not None:
            try:
                _hand_on(*line)
            except BaseException:  # noqa: BLE001  # a filter's or handler's own code; the lines that follow need this thread
                _write(*line)


def _keep(waiting: deque[_Line], lines: list[_Line], dropped: int) -> None:
    waiting.extend(lines)
    if dropped:
        text = f"{dropped} lines were dropped, because a handler of Python's logging takes long"
        waiting.append((time.time(), WARN, "log", text))


def _next(waiting: deque[_Line]) -> _Line | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _hand_on(when: float, level: int, part: str, text: str) -> None:
    logger = logging.getLogger(f"transferq.{part}")
    if not logger.hasHandlers():
        _write(when, level, part, text)
    elif logger.isEnabledFor(LEVELS[level]):
        record = logger.makeRecord(logger.name, LEVELS[level], "libtq", 0, text, (), None)
        record.created, record.msecs = when, int(when % 1 * 1000) + 0.0
        logger.handle(record)


def _write(when: float, level: int, part: str, text: str) -> None:
    """Write a line to stderr as the library does."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when))
    line = f"{stamp}.{int(when % 1 * 1000):03d}Z {WORDS[level]} {part}: {text}\n"
    with contextlib.suppress(OSError):  # stderr is closed
        os.write(2, line.encode("utf-8", "backslashreplace"))
