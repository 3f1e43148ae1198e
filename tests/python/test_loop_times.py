"""What `make loop-times` edits and runs is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_its_files_and_tests_exist() -> None:
    spec = importlib.util.spec_from_file_location("loop_times", ROOT / "tools" / "loop_times.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    builds = "".join(path.read_text() for path in ROOT.glob("src/**/meson.build"))
    builds += (ROOT / "tests/c/meson.build").read_text()
    for _, edited, (*_, test) in script.EDITS:
        assert (ROOT / edited).is_file()
        path, _, name = test.partition("::")
        if path.endswith(".py"):
            assert not name or f"def {name}(" in (ROOT / path).read_text()
        else:
            assert f"'{test}':" in builds
