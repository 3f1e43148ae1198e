"""What the C library logs, handed on to Python's logging: to the logger `transferq.PART`, such as `transferq.client`.

The library writes to stderr by itself as long as Python's logging has no handler for these loggers.  Otherwise it
puts its lines into a list, and a thread hands them on, since the threads of the library must not wait for the GIL or
for a handler.  At exit, in a forked child, and if a handler blocks, lines go to stderr again.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time

from .._core import log_start, log_stop, log_wait

LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
WORDS = ("error", "warn", "info", "debug")
WARN = 1

EXIT_SECONDS = 1.0
"""How long the process's exit waits for a handler that blocks."""


class _Forwarder:
    """The thread that hands lines on, if there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._registered = False

    @property
    def is_on(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        with self._lock:
            if self.is_on:
                return
            if not self._registered:
                self._registered = True
                atexit.register(self.stop)
                os.register_at_fork(after_in_child=self._forked)
            log_start()
            self._thread = threading.Thread(target=_run, name="transferq-log", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            log_stop()
            thread.join(EXIT_SECONDS)
            left = log_wait() if thread.is_alive() else None
        for line in left[0] if left is not None else ():
            _write(*line)

    def _forked(self) -> None:
        """In the child there is no such thread: the library writes to stderr until `start` is called again."""
        self._lock = threading.Lock()
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


def _run() -> None:
    while True:
        found = log_wait()
        if found is None:
            return
        lines, dropped = found
        if dropped:
            text = f"{dropped} lines were dropped, because a handler of Python's logging takes long"
            lines.append((time.time(), WARN, "log", text))
        for line in lines:
            try:
                _hand_on(*line)
            except Exception:  # noqa: BLE001  # a filter's or handler's own code
                _write(*line)


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
    os.write(2, line.encode("utf-8", "backslashreplace"))
