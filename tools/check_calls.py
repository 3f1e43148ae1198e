"""Check that no folder's files call each other in a larger circle than the table allows.

A file uses another if its object needs a symbol that the other's object defines. Files that use each other, directly
or through others, form a cycle: nobody can read one of them without all of them. The table has the sizes of the cycles
that a folder may have, largest first; a folder that is not in it may have none. Tests are left out.

A cycle that is too large names its files, and the symbols with which each uses the others: move the few helpers that
lie in the wrong file, rather than raising a limit.

Usage: check_calls.py BUILD_DIR [ROOT]
"""

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

# Sizes of the largest cycles, in files. These are known, and no reason to add to them:
# client       an op starts the runtime, which opens, and then begins the ops that waited
# controller   an owner and its blocks
# _core        an op completes into a queue, whose reader takes results and drops what reads borrowed
# net          a server with its sessions and their connections; a channel with its calls; a connection and what sends
# table        a partition with its samples and views; a block and the fields whose cells lie in it
# unit         blocks whose writers or readers are not done: their end makes room, which those that wait take
LIMITS: dict[str, tuple[int, ...]] = {
    "python/transferq/_core": (3,),
    "src/client": (3,),
    "src/controller": (2,),
    "src/manager/simple": (2,),
    "src/net": (5, 4, 2),
    "src/table": (3, 2),
    "src/unit": (4,),
}

# The folders of which each is checked for itself, with the folders in it.
FOLDERS = (
    "src/manager/simple",
    "src/manager/kv",
    "python/transferq/_core",
    "python/transferq/_host",
)

TEST = re.compile(r"_test\.c$|/testkit\w*\.c$|_testkit\.c$|/test/")

Uses = dict[str, dict[str, list[str]]]


def folder_of(source: str) -> str:
    """Return the folder that a source counts for."""
    for folder in FOLDERS:
        if source.startswith(f"{folder}/"):
            return folder
    return "/".join(source.split("/")[:2])


def objects(build: Path, root: Path) -> dict[str, Path]:
    """Return the object of every source of the product."""
    found = {}
    database = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    for entry in database:
        source = (Path(entry["directory"]) / entry["file"]).resolve()
        if not source.is_relative_to(root):
            continue
        name = source.relative_to(root).as_posix()
        if name.startswith(("src/", "python/transferq/")) and not TEST.search(name):
            found[name] = Path(entry["directory"]) / entry["output"]
    return found


def symbols(object_file: Path) -> tuple[set[str], set[str]]:
    """Return the symbols that an object defines for other objects, and those that it needs."""
    output = subprocess.run(
        ["nm", "--format=posix", "--extern-only", str(object_file)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    defined, needed = set(), set()
    for line in output.splitlines():
        name, kind = line.split()[:2]
        (needed if kind == "U" else defined).add(name)
    return defined, needed


def uses_of(files: Mapping[str, tuple[set[str], set[str]]]) -> Uses:
    """Return for each file the files that it uses, with the symbols."""
    home = {name: file for file, (defined, _) in files.items() for name in defined}
    uses: Uses = {}
    for file, (_, needed) in files.items():
        mine: dict[str, list[str]] = defaultdict(list)
        for name in sorted(needed):
            if name in home and home[name] != file:
                mine[home[name]].append(name)
        uses[file] = dict(mine)
    return uses


def reachable(uses: Uses, start: str) -> set[str]:
    """Return the files that one uses, directly or through others."""
    seen: set[str] = set()
    todo = list(uses[start])
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo.extend(uses[file])
    return seen


def cycles(uses: Uses) -> list[list[str]]:
    """Return the groups of files that use each other, largest first."""
    reach = {file: reachable(uses, file) for file in uses}
    groups = {
        tuple(sorted(other for other in reach[file] if file in reach[other]))
        for file in uses
        if file in reach[file]
    }
    return sorted((list(group) for group in groups), key=lambda group: (-len(group), group))


def describe(uses: Uses, cycle: Iterable[str]) -> list[str]:
    """Return a line for each use of one file of a cycle by another."""
    inside = set(cycle)
    return [
        f"    {file} -> {other}: {', '.join(names)}"
        for file in sorted(inside)
        for other, names in sorted(uses[file].items())
        if other in inside
    ]


def check_folder(folder: str, uses: Uses) -> tuple[list[str], list[int]]:
    """Return a line for every cycle of a folder that is too large, and the sizes of its cycles."""
    found = cycles(uses)
    allowed = LIMITS.get(folder, ())
    problems = []
    for number, cycle in enumerate(found):
        most = allowed[number] if number < len(allowed) else 0
        if len(cycle) > most:
            limit = f"{most} are allowed" if most else "none is allowed"
            problems.append(f"{folder}: {len(cycle)} files use each other, {limit}")
            problems += describe(uses, cycle)
    return problems, [len(cycle) for cycle in found]


def main() -> int:
    """Check the objects of a build; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("build", type=Path)
    parser.add_argument("root", type=Path, nargs="?", default=Path(__file__).parent.parent)
    args = parser.parse_args()
    folders: dict[str, dict[str, tuple[set[str], set[str]]]] = defaultdict(dict)
    for source, built in sorted(objects(args.build, args.root.resolve()).items()):
        folders[folder_of(source)][source] = symbols(built)
    problems = 0
    for folder, files in sorted(folders.items()):
        lines, sizes = check_folder(folder, uses_of(files))
        problems += bool(lines)
        print(f"{folder}: {len(files)} files, cycles of {', '.join(map(str, sizes)) or 'none'}")
        for line in lines:
            print(line)
    if not folders:
        print("check_calls: no objects found")
        return 1
    print(f"check_calls: {len(folders)} folders, {problems} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
