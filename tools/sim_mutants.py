"""Let the simulation look for the planted faults: `make sim-mutants`, and `make sim-unmended` for former ones.

Each patch of tests/sim/mutants (or tests/sim/unmended) is applied to a copy of the tree in build/mutants, the program `sim` is
built there, and runs seeds until it finds something. The seed that found it must find nothing in a build without the patch:
otherwise it does not count, and the next seeds are tried. At the end the tree as it is runs the same seeds. The last line of
the output is `found N of N`; the exit status is 1 if one was not found, or if the tree as it is has findings. With --write the table goes to tests/sim/mutants/README.md, of which it is the record.

Usage: sim_mutants.py [--unmended | --unseen] [--seeds A-B] [--jobs N] [--limit SECONDS] [--write] [NAME...]
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from check_mutants import MUTANTS, ROOT, UNMENDED, UNSEEN, Patch, git_apply, patches, read
from prose import tracked

SCRATCH = ROOT / "build" / "mutants"
OPTIONS = ("-Dtests=true", "-Dpython=false")
PROGRAM = "tests/sim/sim"
LIMIT = 1800.0
"""Seconds that the search for one fault may take."""

FOUND = re.compile(r"^FOUND seed (\d+)(?: at [\d.]+ s)?(?: in [^:]+)?: ([^:\n]+)(?:: (.*))?$", re.M)
COUNT = re.compile(r"^sim: seeds=.* found=(\d+) ", re.M)

BEGIN = "<!-- The rest is written by `make sim-mutants MUTANTS_ARGS=--write`. -->"


@dataclass
class Finding:
    """What the search for one fault came to."""

    patch: Patch
    seed: int | None = None
    seeds: int = 0
    invariant: str = ""
    text: str = ""
    seconds: float = 0.0
    error: str = ""


class Scratch:
    """A copy of the tree with its build directory; one patch at a time is applied to it."""

    def __init__(self, number: int, jobs: int) -> None:
        """Bring the copy up to date and build the program without a patch."""
        self.base = SCRATCH / str(number)
        self.tree = self.base / "tree"
        self.build = self.base / "build"
        self.jobs = jobs
        self.update()
        if not (self.build / "build.ninja").exists():
            self.must("meson", "setup", str(self.build), str(self.tree), *OPTIONS)
        self.must(*self.ninja())
        self.clean = self.base / "sim-clean"
        shutil.copy2(self.build / PROGRAM, self.clean)

    def update(self) -> None:
        """Copy what differs, so that only that is compiled again."""
        names = set(tracked(ROOT))
        if self.tree.is_dir():
            for path in self.tree.rglob("*"):
                if path.is_file() and path.relative_to(self.tree).as_posix() not in names:
                    path.unlink()
        for name in names:
            bytes_now = (ROOT / name).read_bytes()
            to = self.tree / name
            if not to.exists() or to.read_bytes() != bytes_now:
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(bytes_now)
                shutil.copymode(ROOT / name, to)

    def ninja(self) -> tuple[str, ...]:
        """The command that builds the program, and nothing else."""
        return ("ninja", "-C", str(self.build), "-j", str(self.jobs), "--quiet", PROGRAM)

    @staticmethod
    def must(*words: str) -> None:
        """Run a command that has to succeed."""
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")

    def search(self, patch: Patch, first: int, last: int, limit: float) -> Finding:
        """Apply a patch, look for it, and take the patch back."""
        finding = Finding(patch)
        begin = time.monotonic()
        wrong = git_apply(self.tree, patch.path)
        if wrong:
            finding.error = wrong
            return finding
        try:
            self.must(*self.ninja())
            self.look(finding, first, last, begin + limit)
        except TimeoutError:
            finding.seeds = 0
            finding.text = f"not found in {limit:.0f} s"
        except RuntimeError as error:
            finding.error = f"does not build: {error}"
        finally:
            finding.seconds = time.monotonic() - begin
            wrong = git_apply(self.tree, patch.path, "-R")
            if wrong:
                raise RuntimeError(f"{patch.name} cannot be taken back: {wrong}")
        return finding

    def findings_of_its_own(self, first: int, last: int) -> int:
        """How many seeds find something in the tree as it is; each would make a planted fault look found."""
        words = (str(self.clean), "--seeds", f"{first}-{last}", "--every", "0")
        done = subprocess.run(
            (*words, "--jobs", str(self.jobs)), capture_output=True, text=True, check=False
        )
        found = COUNT.search(done.stdout)
        if found is None:
            raise RuntimeError(f"exit status {done.returncode}: {done.stderr[-2000:]}")
        return int(found[1])

    def look(self, finding: Finding, first: int, last: int, until: float) -> None:
        """Run seeds until one finds something that it does not find without the patch."""
        seed = first
        while seed <= last:
            found = self.sim(self.build / PROGRAM, seed, last, until)
            if found is None:
                finding.seeds = last - first + 1
                return
            at, invariant, text = found
            finding.seeds = at - first + 1
            if self.sim(self.clean, at, at, until) is None:
                finding.seed, finding.invariant, finding.text = at, invariant, text
                return
            print(f"{finding.patch.name}: seed {at} finds something without it, too", flush=True)
            seed = at + 1

    @staticmethod
    def sim(program: Path, first: int, last: int, until: float) -> tuple[int, str, str] | None:
        """Run seeds up to the first finding; return its seed, invariant and text."""
        words = (str(program), "--seeds", f"{first}-{last}", "--stop", "--every", "0")
        left = max(1.0, until - time.monotonic())
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            # It runs its seeds in children.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode == 0:
            return None
        found = FOUND.search(errors)
        count = COUNT.search(output)
        if found is None and count is not None and count[1] == "0":
            return None  # a mark is missing, which is no finding
        if found is None:
            raise RuntimeError(f"exit status {process.returncode}: {(output + errors)[-2000:]}")
        return int(found[1]), found[2].strip(), (found[3] or "").strip()


def cells(finding: Finding) -> tuple[str, ...]:
    """The cells of a row."""
    if finding.error:
        what = finding.error.splitlines()[0]
    elif finding.seed is None:
        what = finding.text or "not found"
    else:
        what = finding.invariant
    seeds = str(finding.seeds) if finding.seeds else "-"
    return finding.patch.name, finding.patch.invariant, what, seeds, f"{finding.seconds:.0f}"


HEADS = ("planted fault", "breaks", "found as", "seeds", "seconds")


def print_table(findings: list[Finding]) -> None:
    """Print all findings."""
    rows = [HEADS, *(cells(finding) for finding in findings)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def page(findings: list[Finding], clean: str) -> Iterator[str]:
    """The generated part of the page, line by line."""
    found = sum(finding.seed is not None for finding in findings)
    unseen = sum(finding.patch.unseen for finding in findings)
    yield f"Found {found} of {len(findings)}; {unseen} of them pass all other tests. {clean}"
    yield ""
    yield "| planted fault | breaks | found as | seeds | other tests |"
    yield "| --- | --- | --- | --- | --- |"
    for finding in findings:
        name, breaks, what, seeds, _ = cells(finding)
        yield f"| [{name}]({name}.patch) | {breaks} | {what} | {seeds} | {finding.patch.others} |"


def write(findings: list[Finding], clean: str) -> None:
    """Replace the generated part of the page."""
    path = ROOT / MUTANTS / "README.md"
    head = path.read_text(encoding="utf-8").split(BEGIN)[0].rstrip()
    text = "\n".join([head, "", BEGIN, "", *page(findings, clean)])
    path.write_text(text + "\n", encoding="utf-8")


def chosen(folder: str, names: list[str]) -> list[Patch]:
    """The patches named, by any part of their names; or all."""
    found = []
    for path in patches(ROOT, folder):
        patch = read(path)
        if patch is None:
            raise SystemExit(f"{path.relative_to(ROOT)}: see tools/check_mutants.py")
        if not names or any(name in patch.name for name in names):
            found.append(patch)
    if not found:
        raise SystemExit(f"{folder}: no such patch")
    return found


def look_at_clean(findings: list[Finding], args: argparse.Namespace) -> tuple[int, str]:
    """Run the tree as it is over all seeds that found something, and say how often it did, too."""
    first = args.seeds[0]
    last = max((finding.seed for finding in findings if finding.seed is not None), default=first)
    own = Scratch(0, os.cpu_count() or 2).findings_of_its_own(first, last)
    return own, f"Without any of them, seeds {first} to {last} have {own} findings."


def search_all(todo: list[Patch], args: argparse.Namespace) -> list[Finding]:
    """Search for all of them, several at a time, each in a tree of its own."""
    first, last = args.seeds
    own = threading.local()
    numbers = iter(range(args.jobs))
    lock = threading.Lock()
    cores = max(1, (os.cpu_count() or 2) // args.jobs)

    def one(patch: Patch) -> Finding:
        if not hasattr(own, "scratch"):
            with lock:
                number = next(numbers)
            own.scratch = Scratch(number, cores)
        finding: Finding = own.scratch.search(patch, first, last, args.limit)
        with lock:
            print(" | ".join((*cells(finding), finding.text[:160])), flush=True)
        return finding

    with ThreadPoolExecutor(args.jobs) as pool:
        return list(pool.map(one, todo))


def seeds(text: str) -> tuple[int, int]:
    """Parse A-B."""
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def main() -> int:
    """Search; 1 if a fault was not found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--unmended", action="store_true", help="former faults of the product")
    parser.add_argument("--unseen", action="store_true", help="those that were not found so far")
    parser.add_argument("--seeds", type=seeds, default=(1, 10000), metavar="A-B", help="1-10000")
    parser.add_argument("--jobs", type=int, default=1, help="searches at a time")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each")
    parser.add_argument("--write", action="store_true", help="write the table to the page")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of a patch's name")
    args = parser.parse_args()
    todo = chosen(UNMENDED if args.unmended else UNSEEN if args.unseen else MUTANTS, args.names)
    findings = search_all(todo, args)
    print()
    print_table(findings)
    own, clean = look_at_clean(findings, args)
    print(clean)
    if args.write and not (args.unmended or args.unseen or args.names):
        write(findings, clean)
    found = sum(finding.seed is not None for finding in findings)
    print(f"found {found} of {len(findings)}")
    return 0 if found == len(findings) and own == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
