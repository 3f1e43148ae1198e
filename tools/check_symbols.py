"""Check what the built binaries export, and that every public function is there.

- libtq.so exports only names that begin with `tq_`, and every function marked TQ_API in include/tq/*.h.
- The extensions transferq._core and transferq._host export their module init function and nothing else.

Usage: check_symbols.py BUILD_DIR
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
PUBLIC = re.compile(r"\bTQ_API\b[^;{(]*?\b(\w+)\s*\(")


def exported(binary: Path) -> set[str]:
    """Return the names that a shared object defines for others."""
    output = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=posix", str(binary)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {line.split()[0].split("@")[0] for line in output.splitlines() if line.strip()}


def declared() -> dict[str, str]:
    """Return the functions marked TQ_API, with the header of each."""
    names = {}
    for header in sorted((ROOT / "include" / "tq").glob("*.h")):
        text = DIRECTIVE.sub("", COMMENT.sub(" ", header.read_text(encoding="utf-8")))
        for match in PUBLIC.finditer(text):
            names[match.group(1)] = header.name
    return names


def check_library(binary: Path) -> list[str]:
    """Return a line for every wrong or missing name of libtq.so."""
    names = exported(binary)
    public = declared()
    problems = [
        f"{binary.name}: exports {name}" for name in sorted(names) if not name.startswith("tq_")
    ]
    problems += [
        f"{binary.name}: {name}, declared in tq/{public[name]}, is missing"
        for name in sorted(public.keys() - names)
    ]
    problems += [
        f"{binary.name}: exports {name}, which no header declares"
        for name in sorted(names - public.keys())
        if name.startswith("tq_")
    ]
    return problems


def check_extension(binary: Path) -> list[str]:
    """Return a line for every name that the extension exports besides its init function."""
    names = exported(binary)
    init = f"PyInit_{binary.name.split('.')[0]}"
    problems = [f"{binary.name}: exports {name}" for name in sorted(names - {init})]
    if init not in names:
        problems.append(f"{binary.name}: has no {init}")
    return problems


def main() -> int:
    """Check the binaries of a build; 1 if anything is wrong."""
    build = Path(sys.argv[1])
    library = build / "libtq.so"
    extensions = [
        binary
        for module in ("_core", "_host")
        for binary in (build / "python").rglob(f"{module}.*.so")
    ]
    problems = []
    if library.exists():
        problems += check_library(library.resolve())
    else:
        problems.append(f"{library} is not built")
    if len(extensions) < 2:
        problems.append("the extensions transferq._core and transferq._host are not built")
    for extension in extensions:
        problems += check_extension(extension)
    for problem in problems:
        print(problem)
    print(f"check_symbols: {1 + len(extensions)} binaries, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
