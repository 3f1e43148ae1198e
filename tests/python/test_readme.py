"""The examples of the README run as printed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from elsewhere import python

from support.daemons import System

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


@pytest.mark.slow
def test_the_example_runs(runtime_dir: Path) -> None:
    examples = re.findall(
        r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert examples
    for example in examples:
        done = python(example)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    assert list(runtime_dir.iterdir()) == []


def test_the_extras_are_those_of_the_package() -> None:
    page = README.read_text("utf-8")
    (named,) = re.findall(
        r"^Some features need an extra of the package: (.*?)\.", page, re.DOTALL | re.MULTILINE
    )
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert set(re.findall(r"`(\w+)`", named)) == set(re.findall(r"^(\w+) = ", extras, re.MULTILINE))
    used = re.findall(r"whl\)\[(\w+)\]|extra `(\w+)`", page)
    assert {first or second for first, second in used} <= set(re.findall(r"`(\w+)`", named))
    assert "pip install '" not in page, "there is no package index to install it from"


def test_the_c_program_is_the_example() -> None:
    """tests/c compiles and runs the example, as C and as C++."""
    shown = re.findall(r"^```c\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    example = (ROOT / "examples" / "hello.c").read_text("utf-8")
    assert shown == [example]
    assert example.count("\n") <= 40


def test_a_c_program_is_compiled_as_printed(system: System, tmp_path: Path) -> None:
    """The compiler's command line, which assumes an installation; the one of the tests' build stands in for it."""
    (block,) = re.findall(r"^```sh\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    setup, install, _, compile_line = block.splitlines()
    assert setup.startswith("meson setup ")
    tools = ROOT / ".venv" / "bin"
    subprocess.run(
        [*install.split()[:-1], os.environ["TQ_TEST_BUILD"], "--no-rebuild", "--quiet"],
        env={
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "DESTDIR": str(tmp_path / "all"),
        },
        check=True,
    )
    (found,) = tmp_path.glob("all/**/tq.pc")
    environment = {
        **system.environment(),
        "PKG_CONFIG_PATH": str(found.parent),
        "PKG_CONFIG_SYSROOT_DIR": str(tmp_path / "all"),
        "LD_LIBRARY_PATH": str(found.parent.parent),
    }
    line = compile_line.replace("-o pipeline", f"-o {tmp_path}/pipeline")
    subprocess.run(["sh", "-ec", line], cwd=ROOT, env=environment, check=True)
    system.start(settings=["backend.SimpleStorage.total_storage_size=64MiB"])
    done = subprocess.run(
        [str(tmp_path / "pipeline")],
        env={**environment, **system.environment()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sum of 128 rows: 8128, expected 8128" in done.stdout
