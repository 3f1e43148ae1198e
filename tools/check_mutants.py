"""Check that the planted faults of the simulation still fit the tree.

tests/sim/mutants/ has planted faults, mutants/unseen/ those that the simulation does not find, and tests/sim/unmended/ former
ones: each is a patch that must apply exactly, and begin with the invariant that it breaks, what goes wrong, and what other
tests say to it. Every invariant has at least two planted faults that are found, and at least eight of those pass all other
tests: only the simulation finds them.

Usage: check_mutants.py [ROOT]
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = "tests/sim/mutants"
UNSEEN = "tests/sim/mutants/unseen"
UNMENDED = "tests/sim/unmended"

INVARIANTS = (
    "the table agrees with the model",
    "commits lie between call and return",
    "unknown outcomes are 0 or 1",
    "no sample twice",
    "none lost",
    "data not mixed",
    "no torn memory",
    "no leak at rest",
    "legal errors",
    "liveness",
)
"""What the oracle watches."""

OTHER = ("determinism",)
"""What only a comparison of two runs shows."""

LEAST = 2
"""Planted faults for each invariant."""

LEAST_UNSEEN = 8
"""Planted faults that pass all other tests."""

HEAD = re.compile(r"\AInvariant: ([^\n]+)\n\n(.+?)\n\nOther tests: (.+?)\n\n--- a/", re.DOTALL)


@dataclass
class Patch:
    """A patch with what its head says."""

    path: Path
    invariant: str
    text: str
    others: str

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def unseen(self) -> bool:
        """Whether all other tests pass."""
        return self.others.startswith("pass")


def read(path: Path) -> Patch | None:
    """Read a patch; None if its head is not as it should be."""
    head = HEAD.match(path.read_text(encoding="utf-8"))
    if head is None:
        return None
    invariant, text, others = (" ".join(part.split()) for part in head.groups())
    return Patch(path, invariant, text, others)


def patches(root: Path, folder: str) -> list[Path]:
    """The patches of a folder, in their order."""
    return sorted((root / folder).glob("*.patch"))


def git_apply(tree: Path, patch: Path, *options: str) -> str:
    """Apply a patch to a tree, which need not be a repository of its own; return what git says against it."""
    done = subprocess.run(
        ["git", "apply", *options, str(patch.resolve())],
        cwd=tree,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.resolve().parent), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip() or "it does not apply" if done.returncode != 0 else ""


def faults(root: Path) -> Iterator[str]:
    """Describe what is wrong."""
    count = dict.fromkeys(INVARIANTS, 0)
    unseen = 0
    for folder in (MUTANTS, UNSEEN, UNMENDED):
        for path in patches(root, folder):
            name = path.relative_to(root)
            patch = read(path)
            if patch is None:
                yield f"{name}: it does not begin with `Invariant:`, a text, and `Other tests:`"
                continue
            if patch.invariant not in INVARIANTS + OTHER:
                yield f"{name}: there is no invariant '{patch.invariant}'"
            wrong = git_apply(root, path, "--check")
            if wrong:
                yield f"{name}: {wrong.splitlines()[0]}"
            if folder == MUTANTS:
                count[patch.invariant] = count.get(patch.invariant, 0) + 1
                unseen += patch.unseen
    for invariant in INVARIANTS:
        if count[invariant] < LEAST:
            yield f"{MUTANTS}: '{invariant}' has {count[invariant]} planted faults, at least {LEAST} are needed"
    if unseen < LEAST_UNSEEN:
        yield f"{MUTANTS}: {unseen} pass all other tests, at least {LEAST_UNSEEN} are needed"


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    found = list(faults(root))
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
