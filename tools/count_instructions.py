"""Count the instructions of fixed operations, and compare with the counts kept in the repository.

The operations are in tests/instructions/operations.c, the counts in tests/instructions/counts.json: instructions per
operation.  A count that exceeds the kept one by more than the tolerance is a failure; one as far below it is reported,
so that the kept count is lowered.
Usage: count_instructions.py BUILD [--update]      (BUILD: a build directory with -Dtests=true)
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNTS = ROOT / "tests" / "instructions" / "counts.json"
REPEATS = 16
TOLERANCE = 0.05


def count(build: Path) -> dict[str, int]:
    """Count the instructions of each operation."""
    with tempfile.TemporaryDirectory(prefix="tq-count-") as folder:
        out = Path(folder) / "callgrind.out"
        subprocess.run(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet"),
                str(build / "tests" / "instructions" / "count_operations"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        texts = [path.read_text() for path in Path(folder).iterdir()]
    dumps = (_dump(text) for text in texts)
    return dict(sorted(dump for dump in dumps if dump is not None))


def _dump(text: str) -> tuple[str, int] | None:
    """Operation and count in one dump; None for instructions after the last operation."""
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
    total = re.search(r"^(?:totals|summary): (\d+)$", text, re.MULTILINE)
    if name is None or total is None:
        return None
    return name[1], int(total[1]) // REPEATS


def compare(known: dict[str, int], counted: dict[str, int]) -> list[str]:
    """Describe the differences, one line each."""
    wrong = [f"{name}: not counted any more" for name in known.keys() - counted.keys()]
    for name, now in counted.items():
        before = known.get(name)
        if before is None:
            wrong.append(f"{name}: {now} instructions, no count is kept")
        elif now > before * (1 + TOLERANCE):
            wrong.append(
                f"{name}: {now} instructions, {100 * (now / before - 1):.1f} % over {before}"
            )
    return wrong


def main() -> int:
    """Compare, or save the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="a build directory with -Dtests=true")
    parser.add_argument("--update", action="store_true", help="write the counts down")
    chosen = parser.parse_args()
    counted = count(chosen.build)
    if chosen.update:
        COUNTS.write_text(json.dumps(counted, indent=2) + "\n", "utf-8")
        return 0
    known: dict[str, int] = json.loads(COUNTS.read_text("utf-8"))
    for name, now in counted.items():
        print(f"{now:10} {known.get(name, 0):10}  {name}")
    wrong = compare(known, counted)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
