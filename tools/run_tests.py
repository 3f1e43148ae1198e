"""Run every part of the test suite and sum up: `make test` and `make test-quick`.

Three lanes run side by side, each with one part at a time. A part prints a line when it starts and when it ends; its
complete output is in build/test-logs/. Each of these counts as one test: a cmocka test of a C program (per build that
runs it), a fuzz target, a check of the lint, a pytest case; and in the comparison with PyPI's transferqueue
each name, case and random sequence, and each of that package's own tests. A part that cannot be built, crashes, times
out or finds no tests counts as a failure. The last line of the output is `N passed, N failed`.

Usage: run_tests.py [--quick] [--only PART]... [--list]
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from simulation import sim, sim_asan, sim_quick
from test_runner import BUILD, LOGS, ROOT, Outcome, PartError, Runner

CORPUS = ROOT / "fuzz" / "corpus"
FUZZ_SECONDS = 5
STATEFUL_SECONDS = 30
# Minimum number of good answers to each kind of request by then: few, because the machine may be slow.
STATEFUL_LEAST = 20
JOBS = str(os.cpu_count() or 2)

TAP_LINE = re.compile(r"^(not ok|ok)\b(?: (\d+))?(.*)$", re.MULTILINE)
TAP_PLAN = re.compile(r"^1\.\.(\d+)$", re.MULTILINE)


# Only one ninja at a time may run in a build directory.
NINJA: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


# --- C programs -----------------------------------------------------------------------------------


def count_tap(output: str, name: str, outcome: Outcome) -> tuple[int, int]:
    """Add the tests reported by a cmocka program; return how many there are and how many it announced."""
    seen = 0
    for match in TAP_LINE.finditer(output):
        verdict, number, rest = match.groups()
        if number is None:
            continue
        seen += 1
        if "# SKIP" in rest:
            outcome.skips.append(
                f"{name}:{rest.replace('# SKIP', '').strip(' -')}: skipped by the test"
            )
        elif verdict == "ok":
            outcome.passed += 1
        else:
            outcome.failures.append(f"{name}:{rest.strip(' -')}")
    return seen, sum(int(plan) for plan in TAP_PLAN.findall(output))


def count_meson(runner: Runner, log: Path, outcome: Outcome) -> None:
    """Add the results of one `meson test`."""
    if not log.exists():
        raise PartError(f"no results in {log.relative_to(ROOT)}")
    programs = 0
    for line in log.read_text(encoding="utf-8").splitlines():
        test = json.loads(line)
        programs += 1
        name = test["name"].rsplit(":", 1)[-1]
        before = len(outcome.failures)
        seen, planned = count_tap(test.get("stdout", ""), name, outcome)
        if test["result"] == "SKIP":
            outcome.skips.append(f"{name}: the whole program")
        elif test["result"] != "OK":
            if len(outcome.failures) == before or seen < planned:
                outcome.failures.append(
                    f"{name}: {test['result']}, exit status {test['returncode']}"
                )
            runner.log.write(f"--- {name}\n{test.get('stdout', '')}\n{test.get('stderr', '')}\n")
        elif seen == 0:
            outcome.passed += 1
    if programs == 0:
        raise PartError("no tests")


def meson_setup(
    runner: Runner, build: Path, *options: str, env: dict[str, str] | None = None
) -> None:
    """Configure a build directory, or reconfigure an existing one."""
    again = ["--reconfigure"] if (build / "build.ninja").exists() else []
    runner.must("meson", "setup", *again, build, *options, env=env)


def compile_all(runner: Runner, build: Path) -> None:
    """Build everything in a build directory."""
    with NINJA[build]:
        if runner.command("ninja", "-C", build, "-j", JOBS, "-k", "0") != 0:
            raise PartError("does not build")


def meson_test(runner: Runner, build: Path, *options: str, processes: int = 2) -> Outcome:
    """Build and run the C tests of a build directory; if tests are selected, build only those."""
    outcome = Outcome()
    base = f"tests-{runner.name}"
    for old in (build / "meson-logs").glob(f"{base}*.json"):
        old.unlink()
    if "--suite" not in options:
        compile_all(runner, build)
        options = ("--no-rebuild", *options)
    status = runner.command(
        "meson",
        "test",
        "-C",
        build,
        "--logbase",
        base,
        "--num-processes",
        str(processes),
        *options,
    )
    logs = list((build / "meson-logs").glob(f"{base}*.json"))
    count_meson(runner, logs[0] if logs else build / "meson-logs" / f"{base}.json", outcome)
    if status != 0 and not outcome.failures:
        outcome.failures.append(f"meson test: exit status {status}")
    return outcome


def build_tests(runner: Runner) -> Outcome:
    """Build what several parts use, before they start."""
    compile_all(runner, BUILD / "test")
    return Outcome()


def unit(runner: Runner) -> Outcome:
    """Run the C tests without a sanitizer: more in parallel than there are cores, because the longest mostly wait."""
    return meson_test(runner, BUILD / "test", processes=4)


def sanitized(runner: Runner, sanitizer: str, *options: str) -> Outcome:
    """Run the C tests under a sanitizer, in a separate build."""
    build = BUILD / runner.name
    meson_setup(
        runner,
        build,
        "-Dtests=true",
        "-Dpython=false",
        "-Ddefault_library=static",
        "-Dbuildtype=debug",
        "-Doptimization=1",
        f"-Db_sanitize={sanitizer}",
        "-Db_lundef=false",
    )
    return meson_test(runner, build, "--timeout-multiplier", "5", *options)


def asan(runner: Runner) -> Outcome:
    """Run the C tests under AddressSanitizer and UndefinedBehaviorSanitizer."""
    return sanitized(runner, "address,undefined")


def tsan(runner: Runner) -> Outcome:
    """Run the C tests that start threads under ThreadSanitizer."""
    options = ["--suite", "threaded"]
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    if bits.exists() and int(bits.read_text(encoding="ascii")) > 28:
        # This ThreadSanitizer does not support address layouts as random as these.
        options += ["--wrap", f"setarch {platform.machine()} --addr-no-randomize"]
    return sanitized(runner, "thread", *options)


def valgrind(runner: Runner) -> Outcome:
    """Run the selected C tests under valgrind."""
    wrapper = (
        "valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite"
    )
    return meson_test(
        runner,
        BUILD / "test",
        "--suite",
        "valgrind",
        "--timeout-multiplier",
        "10",
        "--wrap",
        wrapper,
    )


def stateful(runner: Runner, build: Path, outcome: Outcome) -> None:
    """Run sequences of requests that build up state; the log has the seed and how often each request succeeded."""
    # Always from the same seed on: a failure comes from a change.  CONTRIBUTING.md says how to search for new faults.
    seed = "1"
    status = runner.command(
        build / "stateful",
        *("--seed", seed),
        *("--seconds", str(STATEFUL_SECONDS)),
        *("--least", str(STATEFUL_LEAST)),
        *("--keep", build / "found"),
        env={
            "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
        },
    )
    if status == 0:
        outcome.passed += 1
    else:
        outcome.failures.append(f"stateful from seed {seed} on: exit status {status}")


def fuzz(runner: Runner) -> Outcome:
    """Run each libFuzzer target for a few seconds, starting from its corpus, and then sequences of requests."""
    build = BUILD / "fuzz"
    meson_setup(
        runner,
        build,
        "-Dfuzz=true",
        "-Dpython=false",
        "-Ddefault_library=static",
        "-Dbuildtype=debug",
        "-Doptimization=1",
        "-Db_sanitize=address,undefined",
        "-Db_lundef=false",
        env={"CC": "clang"},
    )
    compile_all(runner, build)
    outcome = Outcome()
    targets = sorted(
        path for path in build.glob("fuzz_*") if path.is_file() and os.access(path, os.X_OK)
    )
    if not targets:
        raise PartError("no fuzz targets")
    for target in targets:
        name = target.name.removeprefix("fuzz_")
        found = build / "found" / name
        found.mkdir(parents=True, exist_ok=True)
        corpus = CORPUS / name
        if not corpus.is_dir() or not any(corpus.iterdir()):
            outcome.failures.append(f"{name}: no corpus in {corpus.relative_to(ROOT)}")
            continue
        status = runner.command(
            target,
            f"-max_total_time={FUZZ_SECONDS}",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            f"-artifact_prefix={found.parent}/{name}-",
            found,
            corpus,
        )
        if status == 0:
            outcome.passed += 1
        else:
            outcome.failures.append(
                f"{name}: exit status {status}, input in {found.parent.relative_to(ROOT)}"
            )
    stateful(runner, build, outcome)
    return outcome


# --- lint and Python --------------------------------------------------------------------------------


def lint(runner: Runner) -> Outcome:
    """Run the linters and check scripts."""
    results = LOGS / "lint.json"
    results.unlink(missing_ok=True)
    status = runner.command(sys.executable, "tools/lint.py", "--no-build", "--json", results)
    if not results.exists():
        raise PartError(f"tools/lint.py: exit status {status}")
    outcome = Outcome()
    for name, good in json.loads(results.read_text(encoding="utf-8")).items():
        if good:
            outcome.passed += 1
        else:
            outcome.failures.append(name)
    return outcome


def count_junit(report: Path, outcome: Outcome) -> int:
    """Add the cases of a pytest report; return their number."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failures.append(name)
        elif skipped is not None:
            outcome.skips.append(f"{name}: {skipped.get('message')}")
        else:
            outcome.passed += 1
    return len(cases)


def pytest(runner: Runner, python: Path, build: Path, *options: str) -> Outcome:
    """Run pytest with its own temporary and runtime folders."""
    report = LOGS / f"{runner.name}.xml"
    report.unlink(missing_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="tqt-"))
    (scratch / "run").mkdir(mode=0o700)
    env = {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(scratch),
        "XDG_RUNTIME_DIR": str(scratch / "run"),
        "TQ_TEST_BUILD": str(build),
        "PYTHONFAULTHANDLER": "1",
    }
    try:
        status = runner.command(
            python,
            "-m",
            "pytest",
            "-q",
            "--durations=10",
            f"--junitxml={report}",
            *options,
            env=env,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    outcome = Outcome()
    if not report.exists():
        raise PartError(f"pytest: exit status {status}")
    if count_junit(report, outcome) == 0:
        raise PartError("no tests")
    if status != 0 and not outcome.failures:
        outcome.failures.append(f"pytest: exit status {status}")
    return outcome


def pytest_folder(folder: str, *options: str) -> Callable[[Runner], Outcome]:
    """Make a part from a folder of Python tests."""

    def part(runner: Runner) -> Outcome:
        if not (ROOT / folder).is_dir():
            raise PartError(f"{folder} is missing")
        return pytest(runner, Path(sys.executable), BUILD / "test", *options, folder)

    part.__doc__ = f"Run the Python tests in {folder}."
    return part


def nosimple(runner: Runner) -> Outcome:
    """Build without the simple manager and its storage; run the C tests, and the end-to-end tests on another manager."""
    base = BUILD / "nosimple"
    build = base / "meson"
    venv = base / "venv"
    python = venv / "bin" / "python"
    if not python.exists():
        runner.must(sys.executable, "-m", "venv", "--without-pip", venv)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # Sees the packages of the outer environment, after its own transferq, tq and tqd.
    own = venv / "lib" / version / "site-packages"
    outer = Path(sys.prefix) / "lib" / version / "site-packages"
    (own / "outer.pth").write_text(f"{outer}\n", encoding="utf-8")
    runner.must(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-qq",
        "--no-deps",
        "--no-build-isolation",
        "--ignore-installed",
        f"-Cbuild-dir={build}",
        "-Csetup-args=-Dsimple=false",
        "-Csetup-args=-Dtests=true",
        ".",
    )
    outcome = meson_test(runner, build)
    try:
        more = pytest(runner, python, build, "-m", "out_of_tree", "tests")
    except PartError as error:
        more = Outcome(failures=[f"pytest: {error}"])
    outcome.passed += more.passed
    outcome.failures += more.failures
    outcome.skips += more.skips
    return outcome


def compat(runner: Runner) -> Outcome:
    """Compare with PyPI's transferqueue, and run that package's own tests and the tests of the compat package."""
    python = ROOT / ".venv-compat" / "bin" / "python"
    if not python.exists() or not (ROOT / ".venv-peer").is_dir():
        raise PartError("the environments are missing: run `make compat`")
    outcome = Outcome()
    for script in ("tests/compat/differential/compare.py", "tests/compat/shipped.py"):
        results = LOGS / f"compat-{Path(script).stem}.json"
        results.unlink(missing_ok=True)
        status = runner.command(sys.executable, script, "--json", results)
        if not results.exists():
            outcome.failures.append(f"{script}: exit status {status}")
            continue
        told = json.loads(results.read_text(encoding="utf-8"))
        outcome.passed += told["passed"]
        outcome.failures += [problem.splitlines()[0] for problem in told["failures"]]
    try:
        more = pytest(runner, python, BUILD / "test", "tests/compat")
    except PartError as error:
        more = Outcome(failures=[f"pytest: {error}"])
    outcome.passed += more.passed
    outcome.failures += more.failures
    outcome.skips += more.skips
    say(runner, "compat: names", "compat: upstream's own tests")
    return outcome


def say(runner: Runner, *beginnings: str) -> None:
    """Print the lines of a part's log with these prefixes."""
    log = runner.log_path.read_text(encoding="utf-8", errors="replace")
    for line in log.splitlines():
        if line.startswith(beginnings):
            print(f"[{runner.name}] {line}", flush=True)


# Only the Python tests about tensordict's input and output; `make test-matrix` runs all of them with it.
WITH_OLD_TENSORDICT = [
    f"tests/python/test_{name}.py" for name in ("kv", "layouts", "values", "streaming")
]


def verl(runner: Runner) -> Outcome:
    """Run verl on the compat package, and some Python tests with the older tensordict that verl allows."""
    python = ROOT / ".venv-verl" / "bin" / "python"
    if not python.exists():
        raise PartError("the environment is missing: run `make verl`")
    outcome = Outcome()
    results = LOGS / "verl-names.json"
    results.unlink(missing_ok=True)
    status = runner.command(python, "tests/compat/verl/names.py", "--json", results)
    if not results.exists():
        raise PartError(f"tests/compat/verl/names.py: exit status {status}")
    told = json.loads(results.read_text(encoding="utf-8"))
    outcome.passed += told["passed"]
    outcome.failures += told["failures"]
    for options in (["tests/compat/verl"], ["-m", "not slow", *WITH_OLD_TENSORDICT]):
        try:
            more = pytest(runner, python, BUILD / "test", *options)
        except PartError as error:
            more = Outcome(failures=[f"pytest: {error}"])
        outcome.passed += more.passed
        outcome.failures += more.failures
        outcome.skips += more.skips
    say(runner, "verl ")
    return outcome


# --- putting it together ----------------------------------------------------------------------------

# Three lanes for two cores, because many tests mostly wait. All tests that start Ray are in the same lane.
LANES: list[dict[str, Callable[[Runner], Outcome]]] = [
    {
        "lint": lint,
        "asan": asan,
        "sim_asan": sim_asan,
        "nosimple": nosimple,
        "fuzz": fuzz,
    },
    {
        "unit": unit,
        "sim": sim,
        "python": pytest_folder("tests/python"),
        "field": pytest_folder("tests/field"),
        "hostile": pytest_folder("tests/hostile"),
        "valgrind": valgrind,
        "tsan": tsan,
    },
    {
        "integration": pytest_folder("tests/integration"),
        "conformance": pytest_folder("tests/conformance"),
        "faults": pytest_folder("tests/faults"),
        "compat": compat,
        "verl": verl,
    },
]

QUICK_LANES: list[dict[str, Callable[[Runner], Outcome]]] = [
    {"python": pytest_folder("tests/python", "-m", "not slow")},
    {
        "unit": unit,
        "sim": sim_quick,
        "integration": pytest_folder("tests/integration", "-m", "not slow"),
    },
    {
        "field": pytest_folder("tests/field", "-m", "not slow"),
        "hostile": pytest_folder("tests/hostile", "-m", "not slow"),
        "faults": pytest_folder("tests/faults", "-m", "not slow"),
    },
]


def run_part(name: str, part: Callable[[Runner], Outcome], outcomes: dict[str, Outcome]) -> None:
    """Run one part and report it."""
    print(f"[{name}] starts", flush=True)
    start = time.monotonic()
    runner = Runner(name)
    try:
        outcome = part(runner)
    except (PartError, OSError, ValueError, ET.ParseError, subprocess.SubprocessError) as error:
        outcome = Outcome(failures=[f"{type(error).__name__}: {error}"])
    outcomes[name] = outcome
    seconds = time.monotonic() - start
    print(
        f"[{name}] {outcome.passed} passed, {len(outcome.failures)} failed, "
        f"{len(outcome.skips)} skipped in {seconds:.0f} s",
        flush=True,
    )
    for failure in outcome.failures:
        print(f"[{name}] FAILED {failure}", flush=True)
    if outcome.failures:
        print(
            f"{runner.tail()}\n[{name}] whole log: {runner.log_path.relative_to(ROOT)}", flush=True
        )
    runner.log.close()


def run_lane(lane: dict[str, Callable[[Runner], Outcome]], outcomes: dict[str, Outcome]) -> None:
    """Run the parts of a lane one after the other."""
    for name, part in lane.items():
        run_part(name, part, outcomes)


def main() -> int:
    """Run the selected parts; 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="only what takes seconds")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="only this part"
    )
    parser.add_argument("--list", action="store_true", help="name the parts and stop")
    args = parser.parse_args()
    lanes = QUICK_LANES if args.quick else LANES
    known = [name for lane in lanes for name in lane]
    if args.list:
        for name in known:
            print(name)
        return 0
    for name in args.only:
        if name not in known:
            parser.error(f"no such part: {name}; there are {', '.join(known)}")
    if args.only:
        lanes = [{n: part for n, part in lane.items() if n in args.only} for lane in lanes]

    start = time.monotonic()
    LOGS.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    run_part("build", build_tests, outcomes)
    threads = [threading.Thread(target=run_lane, args=(lane, outcomes)) for lane in lanes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        Runner.kill_all()
        os._exit(130)

    names = ["build", *(name for lane in lanes for name in lane)]
    for name in names:
        outcomes.setdefault(name, Outcome(failures=["did not run to its end"]))
        for skip in outcomes[name].skips:
            print(f"[{name}] skipped {skip}")
    for name in names:
        for failure in outcomes[name].failures:
            print(f"[{name}] FAILED {failure}")
    passed = sum(outcome.passed for outcome in outcomes.values())
    failed = sum(len(outcome.failures) for outcome in outcomes.values())
    print(f"tests took {time.monotonic() - start:.0f} s")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
