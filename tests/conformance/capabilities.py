"""The table of docs/backends.md: reads it, and writes what the suite measured for each backend."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
BEGIN = "<!-- begin: written by make test-backends -->"
END = "<!-- end -->"

COLUMNS = (
    "zero-copy",
    "partial read",
    "largest value tried",
    "survives client crash",
    "survives store restart",
    "device tensors",
)

Row = dict[str, str]


def parts(page: str) -> tuple[str, str, str]:
    """The parts of the page before, in and after the table."""
    before, rest = page.split(BEGIN + "\n")
    table, after = rest.split(END)
    return before + BEGIN + "\n", table, END + after


def read() -> dict[str, Row]:
    """The current table of the page, by backend."""
    _, table, _ = parts(PAGE.read_text(encoding="utf-8"))
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.strip().splitlines()
        if line.startswith("|")
    ]
    if not lines:
        return {}
    names = lines[0][1:]
    return {cells[0]: dict(zip(names, cells[1:], strict=True)) for cells in lines[2:]}


def write(rows: dict[str, Row]) -> bool:
    """Write the table to the page; returns whether anything changed."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, after = parts(page)
    lines = ["| backend | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for title, row in rows.items():
        lines.append("| " + " | ".join([title, *(row[column] for column in COLUMNS)]) + " |")
    made = before + "\n".join(lines) + "\n" + after
    if made != page:
        PAGE.write_text(made, encoding="utf-8")
    return made != page
