"""What clang-tidy checks again after an edit: the files that the compiler read it for, and no others."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NINJA = shutil.which("ninja")

FILES = {
    ".clang-tidy": "Checks: '*'\n",
    "src/one.h": "#include <stddef.h>\nextern size_t one;\n",
    "src/two.h": "extern int two;\n",
    "src/one.c": '#include "one.h"\nsize_t one = 1;\n',
    "src/both.c": '#include "one.h"\n#include "two.h"\nint two = 2;\n',
    "src/none.c": "int none = 0;\n",
}
SOURCES = ("one", "both", "none")


@pytest.fixture
def lint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script on a small tree, compiled once."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location("lint", ROOT / "tools" / "lint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    build = tmp_path / "build"
    build.mkdir()
    command = "cc -MD -MF {0}.o.d -c ../src/{0}.c -o {0}.o"
    rules = ["rule cc", "  command = cc -MD -MF $out.d -c $in -o $out", "  depfile = $out.d"]
    rules += ["  deps = gcc", *(f"build {name}.o: cc ../src/{name}.c" for name in SOURCES)]
    (build / "build.ninja").write_text("\n".join([*rules, ""]))
    database = [
        {
            "directory": str(build),
            "file": f"../src/{name}.c",
            "command": command.format(name),
            "output": f"{name}.o",
        }
        for name in SOURCES
    ]
    (build / "compile_commands.json").write_text(json.dumps(database))
    return module


def compiled(lint: ModuleType) -> Callable[[], list[str]]:
    """The names of the sources to check; they count as passed afterwards."""
    build, cache = lint.ROOT / "build", lint.ROOT / "cache"
    subprocess.run([str(NINJA), "-C", build, "--quiet"], check=True)

    def work() -> list[str]:
        found = lint.tidy_work(build, cache)
        for keys in found.values():
            assert len(keys) == 1
            (cache / keys[0]).touch()
        return sorted(Path(name).stem for name in found)

    return work


@pytest.mark.skipif(NINJA is None, reason="needs ninja")
@pytest.mark.parametrize(
    ("edited", "again"),
    [
        ("src/one.h", ["both", "one"]),
        ("src/two.h", ["both"]),
        ("src/none.c", ["none"]),
        (".clang-tidy", ["both", "none", "one"]),
    ],
)
def test_an_edit_is_checked_where_it_is_included(
    lint: ModuleType, edited: str, again: list[str]
) -> None:
    work = compiled(lint)
    assert work() == ["both", "none", "one"]
    assert work() == []
    path = lint.ROOT / edited
    path.write_text(path.read_text() + "/* edited */\n")
    assert work() == again
    assert work() == []


def test_other_arguments_are_checked_again(lint: ModuleType) -> None:
    work = compiled(lint)
    work()
    path = lint.ROOT / "build" / "compile_commands.json"
    path.write_text(path.read_text().replace("cc -MD -MF one.o.d", "cc -DX -MD -MF one.o.d"))
    assert work() == ["one"]


def test_what_was_not_compiled_is_always_checked(lint: ModuleType) -> None:
    subprocess.run([str(NINJA), "-C", lint.ROOT / "build", "--quiet", "one.o"], check=True)
    found = lint.tidy_work(lint.ROOT / "build", lint.ROOT / "cache")
    assert {Path(name).stem: len(keys) for name, keys in found.items()} == {
        "both": 0,
        "none": 0,
        "one": 1,
    }
