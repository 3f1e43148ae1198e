"""Run every linter and check script: `make lint`.

Each one counts as one test. clang-tidy looks only at files that changed, or whose headers changed, since they last
passed (build/lint-cache). Needs build/test, which the Makefile sets up.

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

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "test"
CACHE = ROOT / "build" / "lint-cache"
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


def tracked(*patterns: str) -> list[str]:
    """Return the matching files of the tree, whether committed yet or not."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns]
    lines = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({line for line in lines.splitlines() if (ROOT / line).is_file()})


def c_files() -> list[str]:
    """Return all C files."""
    return tracked("*.c", "*.h")


def python_script(name: str, *args: str) -> Result:
    """Run one of the check scripts."""
    return command(sys.executable, f"tools/{name}.py", *args)


def clang_format() -> Result:
    """All C files are formatted according to .clang-format."""
    good, output = command("clang-format", "--dry-run", "-Werror", *c_files())
    files = sorted({line.split(":", 1)[0] for line in output.splitlines() if ": error: " in line})
    return good, "\n".join([*files, "run `make format`"]) if files else output


def tidy_key(source: Path, headers: bytes, arguments: str) -> str:
    """Return a key for everything that clang-tidy's result for a file depends on."""
    digest = hashlib.sha256(headers)
    digest.update(arguments.encode())
    digest.update(source.read_bytes())
    return digest.hexdigest()


def header_digest() -> bytes:
    """Return a digest of all headers, of the sources of the generated ones, and of the configuration."""
    digest = hashlib.sha256()
    for name in [*tracked("*.h", "*.proto", "config/*"), ".clang-tidy"]:
        digest.update(name.encode())
        digest.update((ROOT / name).read_bytes())
    return digest.digest()


def clang_tidy() -> Result:
    """clang-tidy finds nothing in the sources of the build."""
    database = json.loads((BUILD / "compile_commands.json").read_text(encoding="utf-8"))
    headers = header_digest()
    CACHE.mkdir(parents=True, exist_ok=True)
    work: dict[str, str] = {}
    used = set()
    for entry in database:
        source = (Path(entry["directory"]) / entry["file"]).resolve()
        if source.is_relative_to(BUILD) or not source.is_relative_to(ROOT):
            continue
        key = tidy_key(source, headers, entry.get("command", ""))
        used.add(key)
        if not (CACHE / key).exists():
            work.setdefault(str(source), key)
    for old in CACHE.iterdir():
        if old.name not in used:
            old.unlink()

    def one(source: str) -> Result:
        options = [f"--extra-arg={word}" for word in ("-Xclang", "-analyzer-config")]
        options += [f"--extra-arg={word}" for word in ("-Xclang", f"max-nodes={MOST_NODES}")]
        if source.endswith("_test.c"):
            # The analyzer does not know that a failed cmocka assertion ends the test.
            options = ["--checks=-clang-analyzer-*"]
        good, output = command(
            "clang-tidy",
            "-p",
            str(BUILD),
            "--quiet",
            f"--header-filter={OUR_HEADERS}",
            "--extra-arg=-Wno-unknown-warning-option",
            *options,
            source,
        )
        lines = [
            line
            for line in output.splitlines()
            if not line.endswith((" generated.", " generated)."))
            and not line.startswith(("Suppressed ", "Use -header-filter"))
        ]
        if good:
            (CACHE / work[source]).touch()
        return good, "\n".join(lines)

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        results = list(pool.map(one, sorted(work)))
    return all(good for good, _ in results), "\n".join(text for good, text in results if not good)


def mypy() -> Result:
    """The package and the typing tests pass mypy in strict mode."""
    folders = [
        name
        for name in ("python/transferq", "python/ctq", "tests/typing")
        if any((ROOT / name).glob("**/*.py*"))
    ]
    return command(sys.executable, "-m", "mypy", "--no-error-summary", *folders)


CHECKS: dict[str, Callable[[], Result]] = {
    "clang-tidy": clang_tidy,
    "mypy": mypy,
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
    if not args.no_build and set(names) & {"clang-tidy", "symbols", "names", "calls"}:
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
            if not good:
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
