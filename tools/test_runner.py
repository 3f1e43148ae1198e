"""How run_tests.py runs a part's commands: with a deadline, with output to the part's log, and without leftovers."""

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "test-logs"
PART_TIMEOUT = 1800.0


class PartError(Exception):
    """A part cannot continue; the failed step counts as one failure."""


@dataclass
class Outcome:
    """The results of a part."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)


class Runner:
    """Runs the commands of one part and keeps their output."""

    running: ClassVar[set[subprocess.Popen[str]]] = set()
    lock = threading.Lock()

    def __init__(self, name: str) -> None:
        """Open the log of the part."""
        self.name = name
        self.deadline = time.monotonic() + PART_TIMEOUT
        self.log_path = LOGS / f"{name}.log"
        self.log = self.log_path.open("w", encoding="utf-8", errors="replace")

    def command(self, *words: str | Path, env: dict[str, str] | None = None) -> int:
        """Run a command in the root with its output in the log; return its exit status."""
        line = " ".join(str(word) for word in words)
        self.log.write(f"$ {line}\n")
        self.log.flush()
        process = subprocess.Popen(
            [str(word) for word in words],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with self.lock:
            self.running.add(process)
        try:
            return process.wait(timeout=max(1.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise PartError(f"took longer than {PART_TIMEOUT:.0f} s: {line}") from None
        finally:
            # Also kill what the command started, even after a timeout.
            self.kill(process)
            process.wait()
            with self.lock:
                self.running.discard(process)

    def must(self, *words: str | Path, env: dict[str, str] | None = None) -> None:
        """Run a command without which the part cannot continue."""
        status = self.command(*words, env=env)
        if status != 0:
            raise PartError(f"exit status {status}: {' '.join(str(word) for word in words)}")

    @staticmethod
    def kill(process: subprocess.Popen[str]) -> None:
        """Kill the session of a command."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    @classmethod
    def kill_all(cls) -> None:
        """Kill everything that is still running."""
        with cls.lock:
            for process in cls.running:
                cls.kill(process)

    def tail(self, lines: int = 40) -> str:
        """Return the end of the log."""
        self.log.flush()
        text = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join("    " + line for line in text[-lines:])
