"""The lint that finds tests which got lost in a rename."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

FILES = {
    "src/base/base_test.c": """
#define PAIR(name) cmocka_unit_test_setup(name, setup)
        cmocka_unit_test(a_sentence),
        cmocka_unit_test_setup_teardown(another, setup, teardown),
        PAIR(a_third),
""",
    "src/base/meson.build": """
tqi_tests += {
  'base': {
    'sources': files('base_test.c'),
  },
  'order': files('order_test.c'),
}
""",
    "fuzz/frame_fuzz.c": "",
    "tests/python/test_new.py": """
def test_one(): pass
class TestMany:
    async def test_two(self): pass
""",
    "tests/RENAMED.md": "",
    "tests/former_names.txt": "",
}

NAMES = [
    *("a_sentence", "another", "a_third", "base", "order", "fuzz_frame"),
    *("tests/python/test_new.py::test_one", "tests/python/test_new.py::TestMany::test_two"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree with a copy of the script."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/check_test_names.py", tmp_path / "tools")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def check(tree: Path, former: list[str], renamed: str = "", *args: str) -> list[str]:
    """The names that the script misses."""
    (tree / "tests/former_names.txt").write_text("\n".join(former))
    (tree / "tests/RENAMED.md").write_text(renamed)
    done = subprocess.run(
        [sys.executable, "tools/check_test_names.py", *args],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == bool(done.stdout), done.stderr
    return [line.split(": ")[0] for line in done.stdout.splitlines()]


def test_finds_every_name(tree: Path) -> None:
    assert check(tree, NAMES) == []


@pytest.mark.parametrize("name", ["setup", "name", "sources", "files", "test_one", "base_test"])
def test_finds_no_other(tree: Path, name: str) -> None:
    assert check(tree, [name]) == [name]


def test_follows_renames(tree: Path) -> None:
    renamed = """# Renamed tests
- tests/old.py -> tests/python/test_new.py
- first -> second
- second -> another
- tests/old.py::test_zero -> tests/python/test_new.py::test_one
- `base: third` -> `base: a_third`
- `tests/python/test_new.py::test_0` -> `test_one`
"""
    former = ["third", "tests/python/test_new.py::test_0"]
    former += ["first", "second", "tests/old.py::test_one", "tests/old.py::test_zero"]
    assert check(tree, former, renamed) == []


def test_a_new_name_must_be_there_too(tree: Path) -> None:
    renamed = (
        "- a -> gone\n- b -> b\n- c -> another\n- c -> gone\n- tests/old.py -> tests/other.py\n"
    )
    former = ["a", "b", "c", "tests/old.py::test_one"]
    assert check(tree, former, renamed) == former


def test_c_tests_are_sentences(tree: Path) -> None:
    (tree / "src/base/base_test.c").write_text(
        "cmocka_unit_test(test_it), cmocka_unit_test(it_is),"
    )
    assert check(tree, []) == ["test_it"]


def test_writes_the_names_of_a_commit(tree: Path) -> None:
    for words in (["add", "."], ["-c", "user.name=t", "-c", "user.email=t", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=tree, check=True)
    (tree / "src/base/base_test.c").unlink()
    assert check(tree, [], "", "--write", "HEAD") == []
    assert (tree / "tests/former_names.txt").read_text().split() == sorted(NAMES)
