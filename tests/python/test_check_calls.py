"""The lint of cycles: files of a folder that use each other."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

# Of the lint, not of the queue: left out of make test-quick.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def tool() -> ModuleType:
    """The script as a module, with its own table of limits."""
    spec = importlib.util.spec_from_file_location("check_calls", ROOT / "tools/check_calls.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(folder: Path, files: dict[str, str]) -> None:
    """Compile files, and list them as meson does."""
    entries = []
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        output = name.replace("/", "_") + ".o"
        subprocess.run(["cc", "-c", "-w", "-o", folder / output, path], check=True)
        entries.append({"directory": str(folder), "file": name, "output": output})
    (folder / "compile_commands.json").write_text(json.dumps(entries))


def run(tool: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run it on that build."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["check_calls.py", str(folder), str(folder)])
        code = tool.main()
    return code, capsys.readouterr().out


CHAIN = {
    "src/base/a.c": "int b(void); int a(void) { return b(); }",
    "src/base/b.c": "int c(void); int b(void) { return c(); }",
    "src/base/c.c": "int c(void) { return 0; }",
}
RING = CHAIN | {
    "src/base/c.c": "int a(void); int (*const c_next)(void) = a; int c(void) { return 0; }"
}


def test_a_chain_is_no_cycle(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.LIMITS = {}
    build(tmp_path, CHAIN)
    assert run(tool, tmp_path, capsys) == (
        0,
        "src/base: 3 files, cycles of none\ncheck_calls: 1 folders, 0 problems\n",
    )


def test_a_cycle_is_refused_with_its_symbols(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.LIMITS = {}
    build(tmp_path, RING)
    code, text = run(tool, tmp_path, capsys)
    assert code == 1
    assert "src/base: 3 files use each other, none is allowed" in text
    assert "    src/base/c.c -> src/base/a.c: a\n" in text


@pytest.mark.parametrize(("limits", "code"), [((3,), 0), ((2,), 1), ((3, 2), 0), ((5,), 0)])
def test_a_cycle_may_be_as_large_as_the_table_says(
    tool: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    limits: tuple[int, ...],
    code: int,
) -> None:
    tool.LIMITS = {"src/base": limits}
    build(tmp_path, RING)
    assert run(tool, tmp_path, capsys)[0] == code


def test_a_second_cycle_has_its_own_limit(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.LIMITS = {"src/base": (3,)}
    pair = {
        "src/base/d.c": "int e(void); int d(void) { return e(); }",
        "src/base/e.c": "int d(void); int e(void) { return d(); }",
    }
    build(tmp_path, RING | pair)
    code, text = run(tool, tmp_path, capsys)
    assert code == 1
    assert "src/base: 3 files, cycles" not in text
    assert "src/base: 2 files use each other, none is allowed" in text


def test_folders_and_tests_do_not_count_together(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.LIMITS = {}
    other = {
        "src/base/c.c": "int up(void); int c(void) { return up(); }",
        "src/net/up.c": "int a(void); int up(void) { return a(); }",
        "src/net/up_test.c": "int up(void); int used(void) { return up(); }",
        "src/net/testkit.c": "int used(void); int up(void); int kit(void) { return used() + up(); }",
    }
    build(tmp_path, CHAIN | other)
    code, text = run(tool, tmp_path, capsys)
    assert code == 0, text
    assert "src/net: 1 files, cycles of none" in text


def test_a_build_without_objects_is_refused(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path, {"other/a.c": "int a;"})
    assert run(tool, tmp_path, capsys)[0] == 1
