"""Write man/tq.1 and man/tqd.1 from the programs' --help, by help2man.

The pages are committed, so that an installation does not need help2man; the lint compares them with what the programs
say.

Usage: man_pages.py BUILD [--check]
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "tq": "command line of the transfer queue",
    "tqd": "daemon of the transfer queue",
}
SEE_ALSO = """[see also]
.BR tq (1),
.BR tqd (1),
.BR tq.h (3)
"""
# argp breaks lines for a terminal; man breaks them itself.
ENVIRONMENT = os.environ | {"ARGP_HELP_FMT": "rmargin=300", "LC_ALL": "C.UTF-8"}


def manual(build: Path, program: str, include: Path) -> str:
    """Return the page of a program, without what depends on the day and on help2man's version."""
    made = subprocess.run(
        [
            "help2man",
            "--no-info",
            f"--name={NAMES[program]}",
            f"--include={include}",
            str((build / program).resolve()),
        ],
        check=True,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    ).stdout
    lines = made.split("\n")
    head = next(at for at, line in enumerate(lines) if line.startswith(".TH "))
    lines[: head + 1] = [
        f'.\\" Written by tools/man_pages.py from {program} --help.',
        re.sub(r'^(\.TH \S+ "1" )"[^"]*"', r'\1""', lines[head]),
    ]
    return examples_apart("\n".join(lines))


def examples_apart(page: str) -> str:
    """Give each example a line of its own: help2man takes them for one paragraph."""

    def apart(match: re.Match[str]) -> str:
        return match.group(1) + match.group(2).rstrip("\n").replace("\n", "\n.br\n") + "\n"

    return re.sub(r"(?s)(\.SH EXAMPLES\n\.IP\n)(.*?\n)(?=\.)", apart, page)


def main() -> int:
    """Write the pages, or compare them; 1 if they differ."""
    build = Path(sys.argv[1])
    include = build / "see-also.h2m"
    include.write_text(SEE_ALSO, encoding="utf-8")
    differ = []
    for program in NAMES:
        page = ROOT / "man" / f"{program}.1"
        text = manual(build, program, include)
        if "--check" not in sys.argv:
            page.parent.mkdir(exist_ok=True)
            page.write_text(text, encoding="utf-8")
        elif not page.exists() or page.read_text(encoding="utf-8") != text:
            differ.append(f"{page.relative_to(ROOT)}: run python tools/man_pages.py build/test")
    print("\n".join(differ) if differ else "man/ says what --help says")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
