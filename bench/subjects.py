"""Processes that are measured: each side has one, in its own environment, and they are asked in turn."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class SubjectError(Exception):
    """A measured process ended; the text is the end of its output."""


class Subject:
    """A worker process (worker.py) with a package imported."""

    def __init__(
        self,
        name: str,
        environment: str,
        package: str,
        before: Sequence[str] = (),
        **variables: str,
    ) -> None:
        """Start the process without waiting for it; `before`: a program to start it with; `variables` of its environment."""
        self.name = name
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the subject
        self._home = tempfile.TemporaryDirectory(prefix="tq-bench-")
        self._process = subprocess.Popen(
            [
                *before,
                str(ROOT / environment / "bin" / "python"),
                str(ROOT / "bench" / "worker.py"),
                package,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            # Its own system, whatever else this user runs.
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("TQ_")},
                "XDG_RUNTIME_DIR": self._home.name,
                "PATH": f"{ROOT / environment / 'bin'}:{os.environ['PATH']}",
                **variables,
            },
        )
        self._ready = False

    @property
    def home(self) -> str:
        """Where others find the system that it started: their XDG_RUNTIME_DIR."""
        return self._home.name

    def ready(self) -> None:
        """Wait until its imports are done."""
        if not self._ready:
            self._answer()
        self._ready = True

    def ask(self, do: str, **args: Any) -> dict[str, Any]:
        """Have the process do something; returns the measurements."""
        self.ready()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **args}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._said.seek(0)
            end = "".join(self._said.readlines()[-60:])
            raise SubjectError(f"{self.name} ended with {self._process.returncode}:\n{end}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Subject:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()
        self._said.close()
        self._home.cleanup()
