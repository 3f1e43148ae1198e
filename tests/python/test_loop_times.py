"""What `make loop-times` edits and runs is there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def script() -> Any:
    """The module tools/loop_times.py."""
    spec = importlib.util.spec_from_file_location("loop_times", ROOT / "tools" / "loop_times.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_its_files_and_tests_exist(script: Any) -> None:
    builds = "".join(path.read_text() for path in ROOT.glob("src/**/meson.build"))
    builds += (ROOT / "tests/c/meson.build").read_text()
    for _, edited, _, (*_, test) in script.EDITS:
        assert (ROOT / edited).is_file()
        path, _, name = test.partition("::")
        if path.endswith(".py"):
            assert not name or f"def {name}(" in (ROOT / path).read_text()
        else:
            assert f"'{test}':" in builds


@pytest.mark.parametrize("limit", [600.0, 0.0])
def test_a_slow_loop_fails(
    script: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    limit: float,
) -> None:
    (tmp_path / "edited.c").touch()
    monkeypatch.setattr(script, "ROOT", tmp_path)
    edit = ("a file", "edited.c", limit, (sys.executable, "-c", "import json"))
    monkeypatch.setattr(script, "EDITS", (edit,))
    if limit:
        script.main()
    else:
        with pytest.raises(SystemExit, match=r"edited.c to import json: .* s, the limit is 0 s"):
            script.main()
    assert f" s of {limit:.0f} s (" in capsys.readouterr().out
