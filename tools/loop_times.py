"""Measure the loop that CONTRIBUTING.md describes: seconds from an edit to the result of its test (`make loop-times`).

A file is edited by setting its time of modification, with ccache off, so everything runs as after a real edit. Nothing
is built that the test does not need. Seconds are printed and not judged; a test that fails ends the measurement.

Usage: loop_times.py
"""

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

EDITS = (
    ("the client in C", "src/client/get/get.c", C_TEST),
    ("the table", "src/table/view.c", ("meson", "test", "-C", BUILD, "table_view")),
    ("a test in C", "tests/c/client/read_test.c", C_TEST),
    ("the client in Python", "python/transferq/client/client.py", PYTHON_TEST),
    ("the client in Python", "python/transferq/client/client.py", PYTHON_TESTS),
    ("the client in C, tested from Python", "src/client/get/get.c", PYTHON_TEST),
)
"""What is edited, and the test of it."""


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
    for what, path, command in EDITS:
        if not (ROOT / path).is_file():
            sys.exit(f"loop_times: there is no {path}")
        idle, _ = run(command)
        (ROOT / path).touch()
        seconds, processor = run(command)
        print(
            f"{seconds:4.1f} s (processor {processor:.1f} s; {idle:.1f} s without an edit): "
            f"{what} ({path}) to {command[-1]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
