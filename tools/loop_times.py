"""Measure the loop that CONTRIBUTING.md describes: seconds from an edit to the result of its test (`make loop-times`).

A file is edited by setting its time of modification, with ccache off, so everything runs as after a real edit: ninja and
Python look at nothing else. Nothing is built that the test does not need. A test that fails ends the measurement; a loop
that takes longer than its limit fails it.

Usage: loop_times.py
"""

import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = "build/dev"
PYTHON = ".venv-dev/bin/python"

C_TEST = ("meson", "test", "-C", BUILD, "client_read")
PYTHON_TESTS = (PYTHON, "-m", "pytest", "-q", "tests/python/test_client.py")
PYTHON_TEST = (*PYTHON_TESTS[:-1], f"{PYTHON_TESTS[-1]}::test_put_claim_read_clear")

LIMIT = 20.0
"""Seconds that any edit may take to the result of its test."""

PYTHON_LIMIT = 5.0
"""Seconds that an edit in Python may take to the result of one test; nothing is built for it."""

TRIES = 3
"""An edit over its limit is measured again, because other programs run, too: the best of these counts."""

EDITS = (
    ("the client in C", "src/client/get/get.c", LIMIT, C_TEST),
    ("the table", "src/table/view.c", LIMIT, ("meson", "test", "-C", BUILD, "table_view")),
    ("a test in C", "tests/c/client/read_test.c", LIMIT, C_TEST),
    ("the client in Python", "python/transferq/client/client.py", PYTHON_LIMIT, PYTHON_TEST),
    ("the client in Python", "python/transferq/client/client.py", LIMIT, PYTHON_TESTS),
    ("the client in C, tested from Python", "src/client/get/get.c", LIMIT, PYTHON_TEST),
)
"""What is edited, the limit in seconds, and the test of it."""


def run(command: tuple[str, ...]) -> tuple[float, float]:
    """Run a test, which must pass; return the seconds that it took, and those of processor time."""
    env = {**os.environ, "CCACHE_DISABLE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}loop_times: {' '.join(command)}: exit status {done.returncode}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure each edit, after a run of its test that builds what earlier edits left behind."""
    slow = []
    for what, path, limit, command in EDITS:
        if not (ROOT / path).is_file():
            sys.exit(f"loop_times: there is no {path}")
        idle, _ = run(command)
        seconds = processor = math.inf
        for _ in range(TRIES):
            (ROOT / path).touch()
            seconds, processor = min((seconds, processor), run(command))
            if seconds <= limit:
                break
        print(
            f"{seconds:4.1f} s of {limit:.0f} s (processor {processor:.1f} s; {idle:.1f} s without an edit): "
            f"{what} ({path}) to {command[-1]}",
            flush=True,
        )
        if seconds > limit:
            slow.append(f"{path} to {command[-1]}: {seconds:.1f} s, the limit is {limit:.0f} s")
    if slow:
        sys.exit("loop_times: too slow\n" + "\n".join(slow))


if __name__ == "__main__":
    main()
