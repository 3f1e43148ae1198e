"""docs/errors.md: each example is what the library says today, but for numbers, paths and times."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.error_cases import CASES
from support.provoked import Scene
from support.runtime import own_runtime

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
BUILD = os.environ.get("TQ_TEST_BUILD", str(ROOT / "build" / "test"))
EXAMPLES: dict[str, dict[str, str]] = tomllib.loads((ROOT / "docs/error_examples.toml").read_text())
BY_CASE = {code: one for code, one in EXAMPLES.items() if "case" in one}
BY_PROGRAM = {code: one for code, one in EXAMPLES.items() if "program" in one}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Systems for this module; the process itself is attached to none."""
    with own_runtime():
        made = Scene(tmp_path_factory.mktemp("scene"))
        yield made
        made.close()


def shape(text: str) -> str:
    """A text without what differs from run to run."""
    text = re.sub(r"(?:unix:)?/[\w./'-]+", "PATH", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "EPOCH", text)
    text = re.sub(r"there are \[.*?\]", "there are [...]", text)
    return re.sub(r"[\d.]+", "N", text)


@pytest.mark.parametrize("code", sorted(BY_CASE))
def test_a_case_says_what_the_page_says(scene: Scene, code: str) -> None:
    case = next(case for case in CASES if case.name == BY_CASE[code]["case"])
    assert case.kind is not None
    with pytest.raises(case.kind) as raised:
        case.provoke(scene)
    assert shape(str(raised.value)) == shape(BY_CASE[code]["says"])


def test_the_program_says_what_the_page_says(scene: Scene) -> None:
    done = subprocess.run(
        [str(Path(BUILD) / "examples" / "example_errors")],
        env=scene.system.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    # A claim may be cancelled before or after it was sent.
    said["TQ_ECANCELED"] = re.sub(
        "cancelled.*", "cancelled before it was sent", said["TQ_ECANCELED"]
    )
    assert said == {code: one["says"] for code, one in BY_PROGRAM.items()}


def test_the_others_are_said_by_the_files_named() -> None:
    others = {code: one for code, one in EXAMPLES.items() if "test" in one}
    for code, one in others.items():
        text = (ROOT / one["test"]).read_text()
        assert re.sub(r"\W", "", one["says"]) in re.sub(r"\W", "", text), code
    silent = set(EXAMPLES) - set(BY_CASE) - set(BY_PROGRAM) - set(others)
    assert silent == {"TQ_EINTERNAL", "TQ_ENOMEM"}
