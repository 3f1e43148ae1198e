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
PAGES = (("tq", 1), ("tqd", 1), ("tq.h", 3))
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
    return examples_apart(arranged("\n".join(lines)))


def see_also(program: str) -> str:
    """Return the section that names the other pages."""
    others = [f".BR {name} ({section})" for name, section in PAGES if name != program]
    return "[see also]\n" + ",\n".join(others) + "\n"


def arranged(page: str) -> str:
    """Give commands, options and the exit status sections of their own: help2man puts all into the description."""
    before, description, rest = page.partition(".SH DESCRIPTION\n")
    body, other, after = re.split(r"(?m)^(?=\.SH )(.)", rest, maxsplit=1)
    listed, mandatory, prose = re.split(
        r"(?m)^\.PP\n(Mandatory or optional .*\n)", body, maxsplit=1
    )
    commands = re.search(
        r"(?ms)^\.SS \"Commands:\"\n(.*?)(?=^\.TP\n\\fB\\-)|^\.PP\n(ROLE is one of\n.*?)(?=^\.PP\n)",
        listed + prose,
    )
    assert commands is not None
    first = next(group for group in commands.groups() if group)
    prose = prose.replace(commands.group(), "")
    options = re.sub(
        r"(?s)\A.*?(?=^\.TP\n\\fB)", "", listed.replace(commands.group(), ""), flags=re.M
    )
    options, _, of_bench = options.partition(".IP\nOptions of bench:\n")
    if of_bench:
        of_bench, last = re.split(r"(?m)^(?=\.TP\n\\-\?, )", of_bench)
        options += last
        of_bench = '.SS "Options of bench"\n' + of_bench
    prose, _, status = prose.partition(".PP\nExit status: ")
    prose = re.sub(r"\A\.PP\n", "", prose)
    return "".join(
        (
            before,
            ".SH ROLES\n" if first.startswith("ROLE") else ".SH COMMANDS\n",
            first,
            description,
            prose,
            ".SH OPTIONS\n",
            options,
            ".PP\n",
            mandatory,
            of_bench,
            f'.SH "EXIT STATUS"\n{status}' if status else "",
            other,
            after,
        )
    )


def examples_apart(page: str) -> str:
    """Give each example a line of its own: help2man takes them for one paragraph."""

    def apart(match: re.Match[str]) -> str:
        return match.group(1) + match.group(2).rstrip("\n").replace("\n", "\n.br\n") + "\n"

    return re.sub(r"(?s)(\.SH EXAMPLES\n\.IP\n)(.*?\n)(?=\.)", apart, page)


def main() -> int:
    """Write the pages, or compare them; 1 if they differ."""
    build = Path(sys.argv[1])
    include = build / "see-also.h2m"
    differ = []
    for program in NAMES:
        include.write_text(see_also(program), encoding="utf-8")
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
