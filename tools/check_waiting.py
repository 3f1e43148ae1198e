"""Check that tests wait for what they wait for: with a deadline, and without sleeping.

tests/support/waiting.py and tests/c/testkit_wait.h are where a test polls a state that nobody announces. Anywhere else a
pause, also under another name such as an event that nobody sets, and a loop that does nothing but look are refused. Files
that let time pass for another reason are listed here with it.

Usage: check_waiting.py
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = {
    "tests/support/waiting.py": "the place for it",
    "tests/c/testkit_wait.h": "the place for it",
    "tests/hostile/test_hostile_owners.py": "clients read the list of units once a second: puts are that far apart",
    "tests/field/test_field_large_values.py": "measures how long an idle event loop is held up",
    "src/store/map_test.c": "gives a reader in another thread its turn",
}

PAUSE = re.compile(r"\b(usleep|nanosleep|clock_nanosleep|uv_sleep|sched_yield|sleep)\s*\(|BLPOP")
# Waits itself, for as long as the socket or pipe allows.
BLOCKS = re.compile(r"\.(recv|read|readline)\(")


def idle(loop: ast.While) -> bool:
    """Whether the loop only looks, again and again."""
    empty = all(isinstance(step, ast.Pass) for step in loop.body)
    return empty and not BLOCKS.search(ast.unparse(loop.test))


def python_faults(text: str) -> Iterator[tuple[int, str]]:
    """Line and description of each pause and each idle loop."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.While) and idle(node):
            yield node.lineno, "a loop without a deadline"
        if not isinstance(node, ast.Call):
            continue
        words = [word.value for word in node.args if isinstance(word, ast.Constant)]
        called = ast.unparse(node.func)
        if (
            called in ("time.sleep", "sleep")
            or "BLPOP" in words
            or (called == "asyncio.sleep" and words != [0])
        ):
            yield node.lineno, "a pause"
        elif called.endswith("Event().wait"):
            yield node.lineno, "a pause: nobody sets this event"


def c_faults(text: str) -> Iterator[tuple[int, str]]:
    """Line and description of each pause."""
    for number, line in enumerate(text.splitlines(), 1):
        if PAUSE.search(line):
            yield number, "a pause"


def main() -> int:
    """Print the faults; 1 if there are any."""
    python = (ROOT / "tests").rglob("*.py")
    tests = [path for suffix in ("c", "h") for path in (ROOT / "tests" / "c").rglob(f"*.{suffix}")]
    status = 0
    for path in sorted([*python, *tests, *(ROOT / "src").rglob("*_test.c")]):
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        faults = python_faults(text) if path.suffix == ".py" else c_faults(text)
        for line, what in faults if name not in ALLOWED else ():
            print(f"{name}:{line}: {what}; wait for an event, or with {next(iter(ALLOWED))}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
