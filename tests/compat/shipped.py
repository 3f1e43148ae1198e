"""Run the tests that PyPI's transferqueue ships, unchanged, against the compat package.

The files are taken from the wheel in .venv-peer.  Tests of the public interface are run; a test that cannot apply
has a line in shipped.md, with the reason.  Fails on a failure that is not listed, on a listed test that passes,
and on a file of the wheel that is neither run nor listed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-compat" / "bin" / "python"
TABLE = Path(__file__).with_suffix(".md")
RUN = [
    "e2e/test_kv_interface_e2e.py",
    "e2e/test_e2e_lifecycle_consistency.py",
    "e2e/test_checkpoint_e2e.py",
    "test_metadata.py",
    "test_samplers.py",
    "test_streaming_dataset.py",
]
SECONDS = 540.0

# One Ray cluster for all files, found through RAY_ADDRESS, because starting one is slow.
CLUSTER = """
import os, sys, ray
context = ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error")
os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
import subprocess
sys.exit(subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]]).returncode)
"""


def shipped_tests() -> Path:
    """The folder of tests in upstream's wheel."""
    [folder] = (ROOT / ".venv-peer").glob("lib/python*/site-packages/tests")
    return folder


def reasons() -> dict[str, str]:
    """The tests that cannot apply, with the reasons."""
    rows = re.findall(r"^\| `(\S+)` \| (.+) \|$", TABLE.read_text("utf-8"), re.MULTILINE)
    return dict(rows)


def run_files(folder: Path) -> Path:
    """Run the files in a copy of the folder, so that none of upstream's modules is imported; returns the report."""
    shutil.copytree(shipped_tests(), folder / "tests")
    (folder / "run").mkdir(mode=0o700)
    report = folder / "report.xml"
    env = {**os.environ, "XDG_RUNTIME_DIR": str(folder / "run"), "TQ_SYSTEM": "shipped"}
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}"]
    files = [f"tests/{name}" for name in RUN]
    subprocess.run(
        [str(PYTHON), "-c", CLUSTER, *options, *files],
        cwd=folder,
        env=env,
        timeout=SECONDS,
        check=False,
    )
    if not report.exists():
        raise SystemExit("compat: pytest made no report")
    return report


def main() -> int:
    """Run, count, and compare with the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write what passed and failed to this file")
    args = parser.parse_args()
    listed = reasons()
    problems = []
    for path in sorted(shipped_tests().rglob("test_*.py")):
        name = path.relative_to(shipped_tests()).as_posix()
        if name not in RUN and name not in listed:
            problems.append(f"{name} is neither run nor listed")
    passed: Counter[str] = Counter()
    ran: Counter[str] = Counter()
    known: Counter[str] = Counter()
    seen = set()
    with tempfile.TemporaryDirectory(prefix="tqs-") as scratch:
        cases = list(ET.parse(run_files(Path(scratch))).getroot().iter("testcase"))
    for case in cases:
        file, test = _name(case)
        if case.find("skipped") is not None:
            continue  # they skip themselves without their backend or a GPU
        ran[file] += 1
        name = f"{file}::{test}"
        row = next((row for row in (name, re.sub(r"\[.*\]$", "", name)) if row in listed), None)
        failed = case.find("failure") is not None or case.find("error") is not None
        if row is not None:
            seen.add(row)
            known[file] += 1
            if not failed:
                problems.append(f"{name} is listed and passes")
        elif failed:
            problems.append(f"{name} fails")
        else:
            passed[file] += 1
    for row in listed:
        if "::" in row and row not in seen:
            problems.append(f"{row} is listed and was not run")
    for file in RUN:
        print(f"compat: shipped {file}: {passed[file]} passed of {ran[file]}, {known[file]} listed")
        if not ran[file]:
            problems.append(f"{file} ran no tests")
    for problem in problems:
        print(f"compat: shipped {problem}")
    print(
        f"compat: upstream's own tests: {passed.total()} passed of {ran.total()} run, "
        f"{known.total()} cannot apply (tests/compat/shipped.md)"
    )
    if args.json:
        args.json.write_text(json.dumps({"passed": passed.total(), "failures": problems}))
    return 1 if problems else 0


def _name(case: ET.Element) -> tuple[str, str]:
    """File and test of a case: pytest writes them as one dotted name."""
    dotted = (case.get("classname") or "").removeprefix("tests.")
    for file in RUN:
        module = file.removesuffix(".py").replace("/", ".")
        if dotted == module or dotted.startswith(module + "."):
            classes = dotted[len(module) :].lstrip(".").split(".")
            return file, "::".join([*filter(None, classes), case.get("name") or ""])
    return case.get("name") or dotted, ""


if __name__ == "__main__":
    sys.exit(main())
