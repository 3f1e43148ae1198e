"""Check the C dialect of CONTRIBUTING.md ("C dialect") on the syntax tree, and apply it with --fix.

- A pointer is compared with NULL, not used as a truth value.
- sizeof has parentheses.
- The variable that holds a status (TQ_OK, ...) is `rc`.
- A blank line follows the declarations that open a function.

What a macro expands to is not looked at. The files are those of build/test/compile_commands.json, with the
headers they include.

Usage: check_dialect.py BUILD [--fix] [FILE ...]
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from clang import cindex
from clang.cindex import Cursor, CursorKind, TypeKind

ROOT = Path(__file__).resolve().parent.parent
JOBS = os.cpu_count() or 2

MENDED = "mended"
VARIABLES = {CursorKind.VAR_DECL, CursorKind.PARM_DECL}
# The name `code`, but not in a comment, in a string, or as a member.
WORD = re.compile(
    r"""/\*.*?\*/|"(?:[^"\\]|\\.)*"|(?:->|\.)\s*code\b|\b(?P<code>code)\b""", re.DOTALL
)
TRANSPARENT = {CursorKind.PAREN_EXPR, CursorKind.UNEXPOSED_EXPR}
CONDITION_FIRST = {
    CursorKind.IF_STMT,
    CursorKind.WHILE_STMT,
    CursorKind.CONDITIONAL_OPERATOR,
}


class Edit(NamedTuple):
    """Bytes [start, end) of a file to replace, and why."""

    file: str
    start: int
    end: int
    text: str
    line: int
    why: str


def stripped(expression: Cursor) -> Cursor:
    """Return the expression without its parentheses and implicit conversions."""
    while expression.kind in TRANSPARENT:
        inner = list(expression.get_children())
        if len(inner) != 1:
            break
        expression = inner[0]
    return expression


def is_pointer(expression: Cursor) -> bool:
    """Whether the expression is a pointer."""
    return bool(expression.type.get_canonical().kind == TypeKind.POINTER)


class Scan:
    """The edits that one translation unit needs."""

    def __init__(self) -> None:
        """Begin with none."""
        self.edits: set[Edit] = set()
        self.texts: dict[str, bytes] = {}

    def source(self, file: str) -> bytes:
        """Return the bytes of a file."""
        if file not in self.texts:
            self.texts[file] = Path(file).read_bytes()
        return self.texts[file]

    def add(self, at: Cursor, start: int, end: int, text: str, why: str) -> None:
        """Note an edit in the file of a cursor."""
        file = at.extent.start.file
        if file is not None:
            name = os.path.normpath(file.name)
            line = self.source(name).count(b"\n", 0, start) + 1
            self.edits.add(Edit(name, start, end, text, line, why))

    def spelled(self, at: Cursor) -> str:
        """Return the text of a cursor as the file has it; "" inside a macro."""
        extent = at.extent
        if extent.start.file is None:
            return ""
        source = self.source(os.path.normpath(extent.start.file.name))
        return source[extent.start.offset : extent.end.offset].decode()

    def truth(self, expression: Cursor) -> None:
        """Look at an expression that is used as a truth value."""
        inner = stripped(expression)
        if inner.kind in {CursorKind.BINARY_OPERATOR, CursorKind.CONDITIONAL_OPERATOR}:
            return
        text = self.spelled(expression)
        if is_pointer(expression) and is_whole(text, inner):
            end = expression.extent.end.offset
            self.add(expression, end, end, " != NULL", "a pointer as a truth value")

    def negation(self, operator: Cursor) -> None:
        """Look at `!operand`."""
        operand = next(operator.get_children(), None)
        text = self.spelled(operator)
        if operand is None or not is_pointer(operand) or not text.startswith("!"):
            return
        start = operator.extent.start.offset
        end = operator.extent.end.offset
        body = text[1:].strip()
        if "=" not in body or body.endswith(")"):
            self.add(operator, start, end, f"{body} == NULL", "! of a pointer")

    def sizes(self, operator: Cursor) -> None:
        """Look at a sizeof."""
        text = self.spelled(operator)
        if text.startswith("sizeof ") and not text[7:].lstrip().startswith("("):
            start, end = operator.extent.start.offset, operator.extent.end.offset
            self.add(operator, start, end, f"sizeof({text[7:].strip()})", "sizeof without ()")

    def function(self, function: Cursor) -> None:
        """Look at the names and at the first lines of a function."""
        declared = [one for one in function.walk_preorder() if one.kind in VARIABLES]
        names = {one.spelling for one in declared}
        members = {
            one.spelling for one in function.walk_preorder() if one.kind == CursorKind.FIELD_DECL
        }
        types = {one.type.spelling for one in declared if one.spelling == "code"}
        if types and types <= {"int", "int *"} and "rc" not in names and "code" not in members:
            self.rename(function)
        body = [one for one in function.get_children() if one.kind == CursorKind.COMPOUND_STMT]
        if body:
            self.opening(body[0])

    def rename(self, function: Cursor) -> None:
        """Call the status of a function `rc`, in what macros are given, too."""
        start = function.extent.start.offset
        for found in WORD.finditer(self.spelled(function)):
            if found["code"]:
                at = start + len(found.string[: found.start("code")].encode())
                self.add(function, at, at + 4, "rc", "a status is called rc")

    def opening(self, body: Cursor) -> None:
        """A blank line follows the declarations that open a function."""
        statements = list(body.get_children())
        n = 0
        while n < len(statements) and statements[n].kind == CursorKind.DECL_STMT:
            n += 1
        if n == 0 or n == len(statements):
            return
        last, first = statements[n - 1], statements[n]
        file = last.extent.end.file
        if file is None or not self.spelled(last):
            return
        source = self.source(os.path.normpath(file.name))
        end = source.find(b"\n", last.extent.end.offset)
        between = source[end : first.extent.start.offset]
        if b"\n" in between and not between[1:].lstrip(b" ").startswith(b"\n") and end >= 0:
            self.add(last, end, end, "\n", "no blank line after the declarations of a function")

    def walk(self, parent: Cursor) -> None:
        """Look at everything below a cursor."""
        for inner in parent.get_children():
            if inner.kind in CONDITION_FIRST:
                self.truth(next(inner.get_children()))
            elif inner.kind == CursorKind.DO_STMT:
                self.truth(list(inner.get_children())[-1])
            elif inner.kind == CursorKind.FOR_STMT:
                for part in inner.get_children():
                    if stripped(part).kind in {
                        CursorKind.DECL_REF_EXPR,
                        CursorKind.MEMBER_REF_EXPR,
                    }:
                        self.truth(part)
            elif inner.kind == CursorKind.BINARY_OPERATOR and inner.type.spelling in {
                "int",
                "bool",
            }:
                self.logical(inner)
            elif inner.kind == CursorKind.UNARY_OPERATOR:
                self.negation(inner)
            elif inner.kind == CursorKind.CXX_UNARY_EXPR:
                self.sizes(inner)
            elif inner.kind == CursorKind.FUNCTION_DECL:
                self.function(inner)
            self.walk(inner)

    def logical(self, operator: Cursor) -> None:
        """Look at the operands of && and ||."""
        sides = list(operator.get_children())
        if len(sides) != 2 or not any(map(is_pointer, sides)):
            return
        source = self.spelled(operator)
        start = operator.extent.start.offset
        between = source[sides[0].extent.end.offset - start : sides[1].extent.start.offset - start]
        if between.strip(" \n()").startswith(("&&", "||")):
            for side in sides:
                self.truth(side)


def is_whole(text: str, expression: Cursor) -> bool:
    """Whether the text is that of the expression, and not of a macro around it."""
    if expression.kind == CursorKind.DECL_REF_EXPR:
        return text.strip("()") == expression.spelling
    if expression.kind == CursorKind.MEMBER_REF_EXPR:
        return text.rstrip(")").endswith(expression.spelling) and "," not in text
    if expression.kind == CursorKind.CALL_EXPR:
        return text.lstrip("(").startswith(expression.spelling + "(")
    return expression.kind == CursorKind.ARRAY_SUBSCRIPT_EXPR and text.endswith("]")


def flags(entry: dict[str, Any]) -> list[str]:
    """Return the options of a compile command that the parser needs."""
    kept = []
    for word in shlex.split(entry["command"])[1:]:
        if word.startswith("-I"):
            kept.append("-I" + os.path.normpath(os.path.join(entry["directory"], word[2:])))
        elif word.startswith(("-D", "-std", "-isystem")):
            kept.append(word)
    return kept


def scan(entry: dict[str, Any], resources: str) -> tuple[set[Edit], list[str]]:
    """Return the edits and the errors of one translation unit."""
    file = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
    unit = cindex.Index.create().parse(
        file, args=[*flags(entry), "-resource-dir", resources, "-ferror-limit=0"]
    )
    errors = [
        str(one)
        for one in unit.diagnostics
        if one.severity >= cindex.Diagnostic.Error
        and one.location.file is not None
        and ours(os.path.normpath(one.location.file.name))
    ]
    found = Scan()
    for top in unit.cursor.get_children():
        at = top.extent.start.file
        if at is not None and ours(os.path.normpath(at.name)):
            if top.kind == CursorKind.FUNCTION_DECL:
                found.function(top)
            found.walk(top)
    return {edit for edit in found.edits if ours(edit.file)}, errors


def ours(file: str) -> bool:
    """Whether a file is written by hand, here."""
    path = Path(file)
    return path.is_relative_to(ROOT) and not path.relative_to(ROOT).parts[0].startswith(
        ("build", ".venv")
    )


def apply(edits: set[Edit]) -> None:
    """Write the edits of one file, the innermost first, for as long as they do not overlap."""
    path = Path(next(iter(edits)).file)
    source = path.read_bytes()
    before = len(source) + 1
    for edit in sorted(edits, key=lambda one: (one.start, one.end), reverse=True):
        if edit.end <= before:
            source = source[: edit.start] + edit.text.encode() + source[edit.end :]
            before = edit.start
    path.write_bytes(source)


def look(entries: list[dict[str, Any]], resources: str, *, fix: bool) -> list[str]:
    """Return what is wrong; with `fix`, mend it, and return MENDED if there was something to mend."""
    by_file: dict[str, set[Edit]] = defaultdict(set)
    problems = []
    with ProcessPoolExecutor(JOBS) as pool:
        for found, errors in pool.map(scan, entries, [resources] * len(entries), chunksize=4):
            problems += errors
            for edit in found:
                by_file[edit.file].add(edit)
    if fix and not problems:
        for edits in by_file.values():
            apply(edits)
        return [MENDED] if by_file else []
    for file, edits in sorted(by_file.items()):
        problems += [
            f"{os.path.relpath(file, ROOT)}:{edit.line}: {edit.why}"
            for edit in sorted(edits, key=lambda one: one.start)
        ]
    return problems


def main() -> int:
    """Check or fix; 1 if something is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path)
    parser.add_argument("files", nargs="*", type=Path, help="only these translation units")
    parser.add_argument("--fix", action="store_true")
    args = parser.parse_args()
    database = json.loads((args.build / "compile_commands.json").read_text(encoding="utf-8"))
    only = {str(file.resolve()) for file in args.files}
    entries = {}
    for entry in database:
        file = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
        if ours(file) and (not only or file in only):
            entries.setdefault(file, entry)
    resources = subprocess.run(
        ["clang", "-print-resource-dir"], check=True, capture_output=True, text=True
    ).stdout.strip()
    problems = look(list(entries.values()), resources, fix=args.fix)
    while args.fix and problems == [MENDED]:
        problems = look(list(entries.values()), resources, fix=True)
    print("\n".join(problems) if problems else f"{len(entries)} files follow the C dialect")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
