"""The lint that keeps the planted faults of the simulation up to date."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Of the lint, not of the queue: left out of make test-quick.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent


def check(tree: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/check_mutants.py"), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources and the patches."""
    for folder in ("src", "tests/sim/mutants", "tests/sim/unmended"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def a_patch(tree: Path) -> Path:
    return sorted((tree / "tests/sim/mutants").glob("*.patch"))[0]


def test_the_patches_fit_the_tree(tree: Path) -> None:
    assert check(tree) == (0, "")


def test_a_change_below_a_patch_is_noticed(tree: Path) -> None:
    patch = a_patch(tree)
    target = next(
        tree / line[6:] for line in patch.read_text().splitlines() if line.startswith("+++ b/")
    )
    removed = next(
        line[1:]
        for line in patch.read_text().splitlines()
        if line.startswith("-") and not line.startswith("---")
    )
    target.write_text(target.read_text().replace(removed, removed + " /* changed */"))
    code, output = check(tree)
    assert code == 1
    assert f"{patch.relative_to(tree)}: error: patch failed: {target.relative_to(tree)}" in output


def test_a_patch_only_moved_by_lines_still_fits(tree: Path) -> None:
    for source in (tree / "src").rglob("*.c"):
        source.write_text("\n" + source.read_text())
    assert check(tree) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Invariant: ", "Breaks: ", "it does not begin with"),
        ("Other tests: ", "Others: ", "it does not begin with"),
        ("Invariant: ", "Invariant: un", "there is no invariant 'un"),
    ],
)
def test_a_head_must_be_complete(tree: Path, old: str, new: str, says: str) -> None:
    patch = a_patch(tree)
    patch.write_text(patch.read_text().replace(old, new))
    code, output = check(tree)
    assert code == 1
    assert f"{patch.relative_to(tree)}: {says}" in output


def test_every_invariant_needs_faults_that_break_it(tree: Path) -> None:
    for patch in (tree / "tests/sim/mutants").glob("*.patch"):
        if "Invariant: liveness" in patch.read_text():
            patch.unlink()
    code, output = check(tree)
    assert code == 1
    assert "'liveness' has 0 planted faults, at least 2 are needed" in output


def test_some_faults_must_be_unseen_by_other_tests(tree: Path) -> None:
    for patch in (tree / "tests/sim/mutants").glob("*.patch"):
        patch.write_text(patch.read_text().replace("Other tests: pass", "Other tests: some"))
    code, output = check(tree)
    assert code == 1
    assert "0 pass all other tests, at least 8 are needed" in output
