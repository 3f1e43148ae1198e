"""Run every linter and check script: `make lint`.

Each one counts as one test. clang-tidy looks only at files that changed, or that include a header that changed, since
they last passed (build/lint-cache); the compiler's dependency files say which. Needs build/test, which the Makefile sets
up.

Usage: lint.py [--json FILE] [CHECK...]
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prose import tracked

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "test"
CACHE = ROOT / "build" / "lint-cache"
SPOKEN = ROOT / "build" / "dialect-cache"
COMMANDS = ROOT / "build" / "lint-commands"
# Where a command puts its object, and the folder for what is generated for its target.
OF_THE_OBJECT = re.compile(r" -(?:o|MF|MQ) \S+| -I\S+\.p\b")
# Given as to the compiler, relative to the build directory.
OUR_HEADERS = (
    rf"^{re.escape(str(ROOT))}/(build/test/\.\./\.\./)?(include|src|python/transferq|examples)/"
)
JOBS = min(4, os.cpu_count() or 2)

# Limits how far the analyzer follows one function; the default takes ten times as long and finds little more.
MOST_NODES = 20000

# Limits the output shown for one check.
MOST_LINES = 100

Result = tuple[bool, str]


def command(*words: str) -> Result:
    """Run a command in the root; return whether it succeeded, and its output."""
    done = subprocess.run(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode == 0, done.stdout


def c_files() -> list[str]:
    """Return all C files."""
    return [name for name in tracked(ROOT) if name.endswith((".c", ".h"))]


def python_script(name: str, *args: str) -> Result:
    """Run one of the check scripts."""
    return command(sys.executable, f"tools/{name}.py", *args)


def clang_format() -> Result:
    """All C files are formatted according to .clang-format."""
    good, output = command("clang-format", "--dry-run", "-Werror", *c_files())
    files = sorted({line.split(":", 1)[0] for line in output.splitlines() if ": error: " in line})
    return good, "\n".join([*files, "run `make format`"]) if files else output


def included(build: Path) -> dict[str, list[Path]]:
    """Return what each object of a build was compiled from, headers included, as the compiler recorded it."""
    listing = subprocess.run(
        ["ninja", "-C", str(build), "-t", "deps"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: dict[str, list[Path]] = {}
    files: list[Path] = []
    for line in listing.splitlines():
        if line.startswith("    "):
            files.append(build / line.strip())
        elif ": #deps " in line:
            files = found.setdefault(line.split(": #deps ", 1)[0], [])
    return found


class TidyKeys:
    """A key per file for everything that clang-tidy's result for it depends on; headers of the system are left out."""

    def __init__(self, build: Path) -> None:
        """Read what the compiler recorded."""
        self.included = included(build)
        self.settings = (ROOT / ".clang-tidy").read_bytes()
        self.digests: dict[Path, bytes] = {}

    def digest(self, path: Path) -> bytes:
        """Return the digest of one file: its name and its contents."""
        if path not in self.digests:
            self.digests[path] = hashlib.sha256(str(path).encode() + path.read_bytes()).digest()
        return self.digests[path]

    def of(self, output: str, arguments: str) -> str | None:
        """Return the key of one object; none if it has not been compiled."""
        files = {Path(os.path.normpath(path)) for path in self.included.get(output, [])}
        ours = sorted(path for path in files if path.is_relative_to(ROOT))
        if not all(path.exists() for path in ours) or not ours:
            return None
        digest = hashlib.sha256(self.settings + arguments.encode())
        for path in ours:
            digest.update(self.digest(path))
        return digest.hexdigest()


def tidy_work(build: Path, cache: Path) -> dict[str, list[str]]:
    """Return the sources that clang-tidy has not passed in their present state, and forget older states.

    Each with its keys: one per object that it is compiled to.
    """
    database = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    keys = TidyKeys(build)
    cache.mkdir(parents=True, exist_ok=True)
    work: dict[str, list[str]] = {}
    used = set()
    for entry in database:
        source = (Path(entry["directory"]) / entry["file"]).resolve()
        if source.is_relative_to(build) or not source.is_relative_to(ROOT):
            continue
        key = keys.of(entry["output"], entry["command"])
        used.add(key)
        if key is None:
            work.setdefault(str(source), [])
        elif not (cache / key).exists():
            work.setdefault(str(source), []).append(key)
    for old in cache.iterdir():
        if old.name not in used:
            old.unlink()
    return work


def databases(build: Path, folder: Path) -> dict[str, list[Path]]:
    """Write compilation databases that have each source once; return those that a source is in.

    Given several commands for a source, the analyzer of clang-tidy 14 takes each va_list after the first command for
    uninitialized. Commands that differ only in the object that they make count as one.
    """
    layers: list[list[dict[str, str]]] = []
    commands: dict[str, set[str]] = {}
    for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
        source = str((Path(entry["directory"]) / entry["file"]).resolve())
        seen = commands.setdefault(source, set())
        alike = OF_THE_OBJECT.sub("", entry["command"])
        if alike in seen:
            continue
        if len(seen) == len(layers):
            layers.append([])
        layers[len(seen)].append(entry)
        seen.add(alike)
    for number, entries in enumerate(layers):
        layer = folder / str(number)
        layer.mkdir(parents=True, exist_ok=True)
        (layer / "compile_commands.json").write_text(json.dumps(entries), encoding="utf-8")
    return {
        source: [folder / str(number) for number in range(len(seen))]
        for source, seen in commands.items()
    }


def clang_tidy() -> Result:
    """clang-tidy finds nothing in the sources of the build."""
    work = tidy_work(BUILD, CACHE)
    among = databases(BUILD, COMMANDS)

    def one(source: str) -> Result:
        options = [f"--extra-arg={word}" for word in ("-Xclang", "-analyzer-config")]
        options += [f"--extra-arg={word}" for word in ("-Xclang", f"max-nodes={MOST_NODES}")]
        if source.endswith("_test.c"):
            # The analyzer does not know that a failed cmocka assertion ends the test.
            options = ["--checks=-clang-analyzer-*"]
        results = [
            command(
                "clang-tidy",
                "-p",
                str(database),
                "--quiet",
                f"--header-filter={OUR_HEADERS}",
                "--extra-arg=-Wno-unknown-warning-option",
                *options,
                source,
            )
            for database in among[source]
        ]
        good = all(passed for passed, _ in results)
        lines = [
            line
            for _, output in results
            for line in output.splitlines()
            if not line.endswith((" generated.", " generated)."))
            and not line.startswith(("Suppressed ", "Use -header-filter"))
        ]
        for key in work[source] if good else []:
            (CACHE / key).touch()
        return good, "\n".join(lines)

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        results = list(pool.map(one, sorted(work)))
    return all(good for good, _ in results), "\n".join(text for good, text in results if not good)


def dialect() -> Result:
    """The sources of the build follow the C dialect of CONTRIBUTING.md."""
    work = tidy_work(BUILD, SPOKEN)
    if not work:
        return True, ""
    good, output = python_script("check_dialect", str(BUILD), *sorted(work))
    for keys in work.values() if good else []:
        for key in keys:
            (SPOKEN / key).touch()
    return good, output


def mypy() -> Result:
    """The package and the typing tests pass mypy in strict mode."""
    folders = [
        name
        for name in ("python/transferq", "python/ctq", "tests/typing")
        if any((ROOT / name).glob("**/*.py*"))
    ]
    return command(sys.executable, "-m", "mypy", "--no-error-summary", *folders)


def pyright() -> Result:
    """The typing tests pass pyright, too, without the network; `[tool.pyright]` of pyproject.toml says what it reads."""
    return command(sys.executable, "-m", "pyright", "--pythonpath", sys.executable)


# What these say is printed when they pass, too.
REPORTS = {"names", "calls", "english"}

CHECKS: dict[str, Callable[[], Result]] = {
    "clang-tidy": clang_tidy,
    "dialect": dialect,
    "mypy": mypy,
    "pyright": pyright,
    "clang-format": clang_format,
    "ruff check": lambda: command("ruff", "check", "--quiet", "--output-format=concise", "."),
    "ruff format": lambda: command("ruff", "format", "--check", "--quiet", "."),
    "includes": lambda: python_script("check_includes"),
    "symbols": lambda: python_script("check_symbols", str(BUILD)),
    "error page": lambda: python_script("error_page", "--check"),
    "configuration": lambda: command(sys.executable, "config/generate.py", "--check"),
    "protocol": lambda: python_script("check_protocol"),
    "docs": lambda: python_script("check_docs"),
    "names": lambda: python_script("check_names", str(BUILD)),
    "calls": lambda: python_script("check_calls", str(BUILD)),
    "english": lambda: python_script("check_english"),
    "tour": lambda: python_script("check_tour"),
    "test names": lambda: python_script("check_test_names"),
    "C reference": lambda: python_script("c_reference", "--check"),
    "manual pages": lambda: python_script("man_pages", str(BUILD), "--check"),
    "waiting": lambda: python_script("check_waiting"),
    "mutants": lambda: python_script("check_mutants"),
}


def run(name: str) -> tuple[str, bool, str, float]:
    """Run one check; a check that cannot be run has failed."""
    start = time.monotonic()
    try:
        good, output = CHECKS[name]()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        good, output = False, f"{type(error).__name__}: {error}"
    return name, good, output, time.monotonic() - start


def main() -> int:
    """Run the checks named, or all; 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--no-build", action="store_true", help="build/test is up to date")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(CHECKS))
    args = parser.parse_args()
    names = args.checks or list(CHECKS)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        parser.error(f"no such check: {', '.join(unknown)}; there are {', '.join(CHECKS)}")

    results = {}
    if not args.no_build and set(names) & {
        "clang-tidy",
        "dialect",
        "symbols",
        "manual pages",
        "names",
        "calls",
    }:
        # Needs the generated headers and the binaries.
        good, output = command("ninja", "-C", str(BUILD), "-k0", "--quiet")
        results["build"] = good
        print(
            f"lint: {'ok  ' if good else 'FAIL'} build" + ("" if good else "\n" + output),
            flush=True,
        )
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for job in concurrent.futures.as_completed([pool.submit(run, name) for name in names]):
            name, good, output, seconds = job.result()
            results[name] = good
            print(f"lint: {'ok  ' if good else 'FAIL'} {name} ({seconds:.1f} s)", flush=True)
            if not good or name in REPORTS:
                lines = output.splitlines()
                print("\n".join(lines[:MOST_LINES]), flush=True)
                if len(lines) > MOST_LINES:
                    whole = ROOT / "build" / f"lint-{name.replace(' ', '-')}.log"
                    whole.write_text(output, encoding="utf-8")
                    print(f"... the whole output: {whole.relative_to(ROOT)}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results), encoding="utf-8")
    failed = sorted(name for name, good in results.items() if not good)
    if failed:
        print(f"lint: failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
