"""Run the Python tests on every available Python, and with both tensordicts: `make test-matrix`.

Each Python from 3.10 to 3.14 that is found gets an environment in build/matrix/ with the package built for it. The
Python of .venv is tested with torch. The others are tested without torch, unless --torch installs it for them: tests
that need torch, or another missing package, are left out and listed. verl's environment tests an older tensordict.

Usage: test_matrix.py [--torch] [--only ENVIRONMENT]... [--list]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MATRIX = ROOT / "build" / "matrix"
FOLDERS = ("tests/python", "tests/field")
VERSIONS = [f"3.{minor}" for minor in range(10, 15)]
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
PIP = "pip>=23.1"  # the pip of a Python may be older, and not know build settings
TESTS_NEED = ["pytest", "pytest-timeout", "hypothesis", "omegaconf", "prometheus_client"]
TORCH = ["torch", "tensordict"]


class Result(NamedTuple):
    """The result of one environment."""

    name: str
    passed: int
    failures: list[str]
    left_out: Counter[str]


def find(version: str) -> str | None:
    """An interpreter of this version: on PATH, or one of pyenv's."""
    found = shutil.which(f"python{version}")
    if found and runs(found, version):
        return found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python3"), reverse=True):
        if runs(str(path), version):
            return str(path)
    return None


def runs(python: str, version: str) -> bool:
    """Whether the interpreter is of the version in its name: pyenv puts dead names on PATH."""
    code = "import sys, venv; print(*sys.version_info[:2], sep='.')"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


def build(version: str, python: str, torch: bool) -> Path:
    """The environment of a Python, with the package built for it."""
    venv = MATRIX / version
    inside = venv / "bin" / "python"
    if not inside.exists():
        subprocess.run([python, "-m", "venv", venv], check=True)
    pip = [inside, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, PIP], cwd=ROOT, check=True)
    # The pinned versions are for one Python; another may have no wheels for them.
    subprocess.run(
        [*pip, "-r", "requirements/build.txt", *TESTS_NEED, *(TORCH if torch else [])],
        cwd=ROOT,
        check=True,
    )
    env = {**os.environ, "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    options = ["--no-build-isolation", "--no-deps", "--force-reinstall"]
    folder = f"-Cbuild-dir={MATRIX / f'{version}-build'}"
    subprocess.run([*pip, *options, folder, "."], cwd=ROOT, env=env, check=True)
    return inside


def test(name: str, python: Path) -> Result:
    """Run the tests with an interpreter, in its own runtime folder."""
    MATRIX.mkdir(parents=True, exist_ok=True)
    report = MATRIX / f"{name}.xml"
    report.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="tqm-") as scratch:
        run = Path(scratch) / "run"
        run.mkdir(mode=0o700)
        env = {
            **os.environ,
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": scratch,
            "XDG_RUNTIME_DIR": str(run),
            "TQ_TEST_BUILD": str(ROOT / "build" / "test"),
        }
        with (MATRIX / f"{name}.log").open("w", encoding="utf-8") as log:
            status = subprocess.run(
                [python, "-m", "pytest", "-q", f"--junitxml={report}", *folders(python)],
                cwd=ROOT,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
    if not report.exists():
        return Result(name, 0, [f"pytest: exit status {status}"], Counter())
    found = read(name, report)
    for path, missing in unusable(python).items():
        found.left_out[f"{path}: needs {missing}"] += 1
    if status not in (0, 1) or (status == 1 and not found.failures) or not found.passed:
        found.failures.append(f"pytest: exit status {status}")
    return found


def read(name: str, report: Path) -> Result:
    """Count the cases of a report."""
    passed, failures, left_out = 0, [], Counter[str]()
    for case in ET.parse(report).getroot().iter("testcase"):
        where = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failures.append(where)
        elif skipped is not None:
            left_out[f"{where.partition('::')[0] or where}: {skipped.get('message')}"] += 1
        else:
            passed += 1
    return Result(name, passed, failures, left_out)


def folders(python: Path) -> list[str]:
    """Arguments for pytest: the folders, without files that cannot be imported there."""
    return [*FOLDERS, *(f"--ignore={path}" for path in unusable(python))]


def unusable(python: Path) -> dict[str, str]:
    """Test files whose top-level imports an interpreter lacks, with the missing package."""
    wanted: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("test_*.py")):
            text = path.read_text(encoding="utf-8")
            wanted[path.relative_to(ROOT).as_posix()] = re.findall(
                r"^(?:import|from) (torch|tensordict|ray|omegaconf|redis|PIL)\b", text, re.MULTILINE
            )
    names = sorted({name for names in wanted.values() for name in names})
    code = (
        "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if not u.find_spec(n)])"
    )
    done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    absent = set(done.stdout.split())
    lacking = {path: ", ".join(sorted(absent & set(names))) for path, names in wanted.items()}
    return {path: names for path, names in lacking.items() if names}


def main() -> int:
    """Run; 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--torch", action="store_true", help="install torch for every Python")
    parser.add_argument("--only", action="append", default=[], metavar="ENVIRONMENT")
    parser.add_argument("--list", action="store_true", help="name the environments and stop")
    args = parser.parse_args()
    old = ROOT / ".venv-verl" / "bin" / "python"
    pythons = {version: found for version in VERSIONS if (found := find(version))}
    missing = [version for version in VERSIONS if version not in pythons]
    known = [*pythons, *(["tensordict-0.10.0"] if old.exists() else [])]
    if args.list:
        print("\n".join(known))
        return 0
    for name in args.only:
        if name not in known:
            parser.error(f"no environment {name}; there are {', '.join(known)}")
    results = []
    for name in args.only or known:
        print(f"[{name}] starts", flush=True)
        try:
            if name == "tensordict-0.10.0":
                python = old
            elif name == OWN:
                python = Path(sys.executable)
            else:
                python = build(name, pythons[name], args.torch)
            result = test(name, python)
        except subprocess.CalledProcessError as error:
            result = Result(name, 0, [str(error)], Counter())
        results.append(result)
        for what, count in sorted(result.left_out.items()):
            print(f"[{name}] left out: {what}" + (f" ({count} tests)" if count > 1 else ""))
        for failure in result.failures:
            print(f"[{name}] FAILED {failure}", flush=True)
        print(
            f"[{name}] {result.passed} passed, {len(result.failures)} failed, "
            f"{result.left_out.total()} left out; log: build/matrix/{name}.log",
            flush=True,
        )
    for version in missing:
        print(f"[{version}] left out: no such Python is installed")
    passed = sum(result.passed for result in results)
    failed = sum(len(result.failures) for result in results)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
