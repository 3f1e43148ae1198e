"""The lint that refuses pauses in tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def check(tree: Path, name: str, text: str) -> str:
    """What the script says of a tree with one file."""
    for folder in ("tools", "src", Path(name).parent):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tools" / "check_waiting.py", tree / "tools")
    (tree / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "tools/check_waiting.py"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == bool(done.stdout), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "time.sleep(0.1)",
        "await asyncio.sleep(0.1)",
        "threading.Event().wait(0.01)",
        'server.ask("BLPOP", "never", "0.01")',
        "while client.status(): pass",
    ],
)
def test_a_pause_is_refused(tmp_path: Path, line: str) -> None:
    text = f"async def test_it():\n    {line}\n"
    assert check(tmp_path, "tests/python/test_it.py", text).startswith("tests/python/test_it.py:2:")
    (tmp_path / "tests/python/test_it.py").unlink()
    assert check(tmp_path, "tests/support/waiting.py", text) == ""


@pytest.mark.parametrize("line", ["usleep(10);", "uv_sleep(10);", 'ask("BLPOP never 1");'])
def test_a_pause_in_c_is_refused(tmp_path: Path, line: str) -> None:
    for name in ("src/base/base_test.c", "tests/c/kv/testkit.h"):
        assert check(tmp_path, name, f"\n{line}\n").startswith(f"{name}:2:")
        (tmp_path / name).unlink()
    assert check(tmp_path, "src/base/clock.c", line) == ""


@pytest.mark.parametrize("line", ["await asyncio.sleep(0)", "event.wait(10)", "process.wait(10)"])
def test_what_ends_by_an_event_is_no_pause(tmp_path: Path, line: str) -> None:
    assert check(tmp_path, "tests/test_it.py", f"async def test_it():\n    {line}\n") == ""
