"""Check that no test got lost in a rename: every former name is in the tree, or leads to a name that is.

Also that C tests are named by sentences, without `test_`.

tests/former_names.txt has the names of an earlier commit. tests/RENAMED.md has the renames since, one per line as
`- old -> new`; the new name of a Python test needs no path if that is the same, and for a file that was moved as a whole
the two paths are enough. Names are read from the
sources, so nothing has to be built or imported: programs and functions of the C tests, fuzz targets, and functions of
the Python tests. Instances of a parametrised test count as one.

Usage: check_test_names.py [--write COMMIT]
"""

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORMER = ROOT / "tests" / "former_names.txt"
RENAMED = ROOT / "tests" / "RENAMED.md"

FUNCTION = re.compile(r"\bcmocka_unit_test\w*\(\s*(\w+)")
MACRO = re.compile(r"^#define (\w+)\(\w+\) +cmocka_unit_test", re.MULTILINE)
PROGRAM = re.compile(r"'(\w+)': (?:files\(|\{)")
FUZZ = re.compile(r"fuzz/(?:.*/)?(\w+)_fuzz\.c")
RENAME = re.compile(r"^- `?(?:\w+: )?([^\s`]+)`? -> `?(?:\w+: )?([^\s`]+)`?$", re.MULTILINE)


def git(*words: str) -> str:
    """The output of git in the root."""
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def sources(commit: str | None) -> Iterator[tuple[str, str]]:
    """Path and text of every file that may define tests: of a commit, or of the working tree."""
    if commit is None:
        names = git("ls-files", "-co", "--exclude-standard").splitlines()
    else:
        names = git("ls-tree", "-r", "--name-only", commit).splitlines()
    for name in sorted(set(names)):
        test = name.startswith("tests/") and Path(name).name.startswith("test_")
        if name.endswith(("_test.c", "_fuzz.c", "/meson.build")) or (test and name.endswith(".py")):
            if commit is not None:
                yield name, git("show", f"{commit}:{name}")
            elif (ROOT / name).is_file():
                yield name, (ROOT / name).read_text(encoding="utf-8")


def python_tests(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    """The ids of test functions, those in classes included."""
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from python_tests(node.body, f"{prefix}::{node.name}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test_"
        ):
            yield f"{prefix}::{node.name}"


def names(commit: str | None) -> set[str]:
    """The names of all tests."""
    found: set[str] = set()
    for path, text in sources(commit):
        if path.endswith(".py"):
            found.update(python_tests(ast.parse(text).body, path))
        elif path.endswith("_fuzz.c"):
            found.update(f"fuzz_{name}" for name in FUZZ.findall(path))
        elif path.endswith(".c"):
            found.update(name for name in FUNCTION.findall(text) if name != "name")
            for macro in MACRO.findall(text):
                found.update(re.findall(rf"^ +{macro}\((\w+)\)", text, re.MULTILINE))
        elif "tqi_tests" in text:
            # Programs are the keys of this table; each may have a table of its own, with these keys.
            options = ("sources", "link_args", "c_args", "dependencies")
            found.update(name for name in PROGRAM.findall(text) if name not in options)
    return found


def renames() -> dict[str, list[str]]:
    """The new names of each renamed test, and the new path of each moved file.

    Two C programs may have had a function of one name: then both of the new names must be there.
    """
    found: dict[str, list[str]] = {}
    for old, new in RENAME.findall(RENAMED.read_text(encoding="utf-8")):
        path, colons, _ = old.rpartition("::")
        new = new if colons == "" or "::" in new else f"{path}::{new}"
        found.setdefault(old, []).append(new)
    return found


def kept(former: str, renamed: dict[str, list[str]], there: set[str], depth: int = 9) -> bool:
    """Whether a former name leads through renames to names that are all there; without one, it must be there itself."""
    path, colons, rest = former.partition("::")
    news = renamed.get(former) or [new + colons + rest for new in renamed.get(path, [])]
    if not news or depth == 0:
        return former in there
    return all(new in there or kept(new, renamed, there, depth - 1) for new in news)


def check() -> int:
    """Compare; 1 if a name got lost."""
    there = names(None)
    renamed = renames()
    former = FORMER.read_text(encoding="utf-8").split()
    lost = [name for name in former if not kept(name, renamed, there)]
    for name in lost:
        print(f"{name}: neither a test nor in tests/RENAMED.md with a new name that is one")
    bare = sorted(name for name in there if name.startswith("test_"))
    for name in bare:
        print(f"{name}: a C test is named by a sentence on what is right, see tests/README.md")
    return 1 if lost or bare else 0


def main() -> int:
    """Check, or write the former names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", metavar="COMMIT", help="write the names of this commit")
    args = parser.parse_args()
    if args.write is None:
        return check()
    FORMER.write_text("".join(f"{name}\n" for name in sorted(names(args.write))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
