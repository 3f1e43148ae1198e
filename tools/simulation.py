"""The parts of the test suite that simulate the whole system: see docs/simulation.md.

Every run begins with the corpus, then come seeds that are the same in every run: about one seed in some thousands still has a
finding (docs/simulation.md), and a test that fails without a change is of no use.
"""

import re
import sys
from pathlib import Path

from test_runner import BUILD, LOGS, ROOT, Outcome, PartError, Runner

SIM = Path("tests") / "sim" / "sim"
CORPUS = ROOT / "tests" / "sim" / "corpus" / "seeds.txt"
SEEDS = 400
ASAN_SEEDS = 150
QUICK_SEEDS = 100
HISTORIES = 40
SUMMARY = re.compile(r"^sim: seeds=(\d+) .*found=(\d+) ", re.MULTILINE)
CORPUS_SUMMARY = re.compile(r"^sim: corpus: (\d+) lines, found=(\d+)", re.MULTILINE)
FOUND = re.compile(r"^(?:FOUND|MISSING) .*$", re.MULTILINE)
SANITIZERS = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=0:detect_leaks=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
}


def run(runner: Runner, build: Path, *options: str) -> Outcome:
    """Run the program: each line of the corpus and each seed is a test."""
    status = runner.command(
        build / SIM,
        *("--corpus", CORPUS),
        *options,
        env=SANITIZERS,
    )
    output = runner.log_path.read_text(encoding="utf-8", errors="replace")
    outcome = Outcome(failures=FOUND.findall(output))
    summaries = SUMMARY.findall(output)
    if not summaries:
        raise PartError(f"sim: exit status {status}")
    for passed, found in [*CORPUS_SUMMARY.findall(output), *summaries]:
        outcome.passed += int(passed) - int(found)
    if status != 0 and not outcome.failures:
        outcome.failures.append(f"sim: exit status {status}")
    return outcome


def histories(runner: Runner, build: Path, first: int) -> Outcome:
    """Check what the clients of some seeds saw by the checker that knows nothing else; each seed is a test."""
    folder = LOGS / "histories"
    folder.mkdir(exist_ok=True)
    outcome = Outcome()
    for seed in range(first, first + HISTORIES):
        file = folder / f"{seed}.json"
        file.unlink(missing_ok=True)
        # What the program itself finds is a failure above already.
        runner.command(build / SIM, "--seed", str(seed), "--every", "0", "--history", file)
        status = runner.command(sys.executable, ROOT / "tests" / "sim" / "check_history.py", file)
        if status == 0:
            outcome.passed += 1
            file.unlink()
        else:
            outcome.failures.append(f"the history of seed {seed}: {file.relative_to(ROOT)}")
    return outcome


def sim(runner: Runner) -> Outcome:
    """Simulate the corpus and the first seeds, and check histories."""
    outcome = run(runner, BUILD / "test", "--seeds", f"1-{SEEDS}")
    more = histories(runner, BUILD / "test", 1)
    outcome.passed += more.passed
    outcome.failures += more.failures
    return outcome


def sim_asan(runner: Runner) -> Outcome:
    """Simulate the same under AddressSanitizer and UndefinedBehaviorSanitizer, which built it before."""
    return run(runner, BUILD / "asan", "--seeds", f"1-{ASAN_SEEDS}")


def sim_quick(runner: Runner) -> Outcome:
    """Simulate the corpus and the first seeds."""
    return run(runner, BUILD / "test", "--seeds", f"1-{QUICK_SEEDS}")
