"""Check that each step of docs/tour.md matches the code.

A step of the tour is an item of a numbered list:

    3. `src/client/op.c` `op_enqueue` (event: the loop is woken): what happens, and why.

The file has to define the function. An earlier step of the same section has to lead to it, within
`HOPS` functions: a function leads to every function and table that it names. The first step of a section is exempt. If C
does not name the next function, the brackets say how it is reached:

    (slot NAME)      an earlier step calls a member `NAME`, which the code sets to the function, or to one that leads to it
    (request NAME)   an earlier step sends the request TQI_NAME, and the function takes its message
    (event: TEXT)    the loop, the kernel or another process comes first; some code in the tree has to name the function

Paths and names of ours (tq_, tqi_, tqd_) between backticks anywhere on the page have to exist.

Usage: check_tour.py [ROOT]
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from check_docs import blank

HOPS = 4

STEP = re.compile(
    r"(\d+)\. `([^`\s]+)` `([\w.]+)`(?: \((?:(slot|request) (\w+)|(event): [^()]+)\))?: \S"
)
ITEM = re.compile(r"\d+\. ")
QUOTED = re.compile(r"`([^`]+)`")
PATH = re.compile(r"[\w./-]+/[\w.-]+\.(?:c|h|py|proto|md|toml)")
OURS = re.compile(r"(?:tq|tqi|tqd)_\w+")

WORD = re.compile(r"[A-Za-z_]\w*")
MEMBER = re.compile(r"(?:->|\.)\s*(\w+)(?=\s*\()")
SKIPPED = re.compile(r"""/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
FUNCTION = re.compile(r"^(?!typedef\b)(\w[\w \t*]*?)\b(\w+)[ \t]*\(", re.MULTILINE)
TABLE = re.compile(r"^\w[\w \t*]*?\b(\w+)(?:\[[^\]\n]*\])*[ \t]*=\s*\{", re.MULTILINE)
ASSIGNED = re.compile(r"(?:->|\.)\s*(\w+)\s*=\s*&?(\w+)\s*[,;}\n]")
METHOD = re.compile(r'"(\w+)",\s*(?:\((?:[^()]|\([^()]*\))*\)\s*)*(\w+)\s*,')
REQUEST = re.compile(r"\bX\(\s*\d+,\s*(\w+),\s*\w+,\s*(\w+),")


@dataclass
class Definition:
    """A function or a table: the names it contains, and the members it calls."""

    file: str
    name: str
    shared: bool
    words: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)


@dataclass
class Step:
    """One step of the tour."""

    line: int
    file: str
    name: str
    how: str
    what: str


def closing(text: str, start: int) -> int:
    """Return where the bracket at `start` is closed, or the end of the text if it is not."""
    pairs = {"(": ")", "{": "}"}
    opened, closed = text[start], pairs[text[start]]
    depth = 0
    for match in re.finditer(f"[{re.escape(opened + closed)}]", text[start:]):
        depth += 1 if match.group() == opened else -1
        if depth == 0:
            return start + match.start()
    return len(text)


def read_c(file: str, text: str) -> Iterator[Definition]:
    """Return the functions and tables that a C file defines, not those that it only declares."""
    code = DIRECTIVE.sub(blank, SKIPPED.sub(blank, text))
    for match in FUNCTION.finditer(code):
        head_end = closing(code, match.end() - 1)
        body = re.compile(r"\s*\{").match(code, head_end + 1)
        if body:
            end = closing(code, body.end() - 1)
            shared = "static" not in match.group(1).split() or file.endswith(".h")
            yield definition(file, match.group(2), shared, code[match.start() : end])
    for match in TABLE.finditer(code):
        end = closing(code, match.end() - 1)
        shared = "static" not in match.group().split()
        yield definition(file, match.group(1), shared, code[match.end() : end])


def definition(file: str, name: str, shared: bool, code: str) -> Definition:
    """Parse a piece of C."""
    return Definition(file, name, shared, set(WORD.findall(code)), set(MEMBER.findall(code)))


def read_python(file: str, text: str) -> Iterator[Definition]:
    """Return the functions and methods (`Class.method`) that a Python file defines."""

    def walk(body: Iterable[ast.stmt], prefix: str) -> Iterator[Definition]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
                members = {item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute)}
                yield Definition(file, prefix + node.name, True, names | members, members)

    yield from walk(ast.parse(text, file).body, "")


class Tree:
    """The definitions in the sources, and the functions that members are set to."""

    def __init__(self, root: Path) -> None:
        self.files: dict[str, dict[str, list[Definition]]] = {}
        self.shared: dict[str, list[Definition]] = {}
        self.slots: dict[str, set[str]] = {}
        self.words: set[str] = set()
        for folder in ("src", "python/transferq", "include"):
            for path in sorted((root / folder).rglob("*.[chp]*")):
                if path.suffix in (".c", ".h", ".py") and not path.stem.endswith("_test"):
                    self._add(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
        methods = root / "src/wire/methods.h"
        table = methods.read_text(encoding="utf-8") if methods.exists() else ""
        self.requests = dict(REQUEST.findall(table.replace("\\\n", " ")))

    def _add(self, file: str, text: str) -> None:
        read = read_python if file.endswith(".py") else read_c
        names = self.files.setdefault(file, {})
        self.words |= set(WORD.findall(text))
        for found in read(file, text):
            names.setdefault(found.name, []).append(found)
            if found.shared:
                self.shared.setdefault(found.name.rpartition(".")[2], []).append(found)
        if not file.endswith(".py"):
            for pattern in (ASSIGNED, METHOD):
                for slot, name in pattern.findall(text):
                    self.slots.setdefault(slot, set()).add(name)

    def _named(self, file: str, word: str) -> list[Definition]:
        """Return what a word in a file may refer to; definitions in the file itself come first."""
        own = self.files[file]
        here = [
            found
            for name, all_of_it in own.items()
            if name.rpartition(".")[2] == word
            for found in all_of_it
        ]
        same = file.endswith(".py")
        return here or [
            found for found in self.shared.get(word, []) if found.file.endswith(".py") == same
        ]

    def reach(self, start: Iterable[Definition], hops: int = HOPS) -> list[Definition]:
        """Return the definitions reachable from these, including themselves."""
        seen: dict[tuple[str, str], list[Definition]] = {}
        edge = list(start)
        for hop in range(hops + 1):
            following: list[Definition] = []
            for found in edge:
                key = (found.file, found.name)
                if key in seen:
                    continue
                seen[key] = self.files[found.file][found.name]
                if hop < hops:
                    for one in seen[key]:
                        for word in one.words:
                            following += self._named(one.file, word)
            edge = following
        return [found for group in seen.values() for found in group]

    def is_named(self, step: Step) -> bool:
        """Tell whether anything but the function itself names it."""
        word = step.name.rpartition(".")[2]
        return any(
            word in found.words
            for names in self.files.values()
            for name, group in names.items()
            for found in group
            if (found.file, name) != (step.file, step.name)
        )


def check_way(tree: Tree, step: Step, before: list[Definition]) -> str | None:
    """Describe what is wrong with how a step is reached from the steps before it."""
    goal = tree.files[step.file][step.name]
    if step.how == "event":
        return None if tree.is_named(step) else "nothing names it"
    led = tree.reach(before)
    if step.how == "slot":
        if not any(step.what in found.members for found in led):
            return f"no step before it calls a member {step.what}"
        names = tree.slots.get(step.what, set())
        held = [
            found
            for file in tree.files
            for name in names
            for found in tree.files[file].get(name, [])
        ]
        if not any(found in goal for found in tree.reach(held)):
            return f"nothing that a member {step.what} is set to leads to it"
    elif step.how == "request":
        message = tree.requests.get(step.what)
        if message is None:
            return f"src/wire/methods.h has no request {step.what}"
        if not any(f"TQI_{step.what}" in found.words for found in led):
            return f"no step before it sends TQI_{step.what}"
        if not any(f"Tq__{message}" in found.words for found in goal):
            return f"it does not take a Tq__{message}"
    elif not any(found in goal for found in led):
        return f"no step before it leads to it in {HOPS} calls; say how it is reached"
    return None


def check_steps(tree: Tree, steps: list[Step]) -> Iterator[str]:
    """Check the steps of one section."""
    before: list[Definition] = []
    for step in steps:
        where = f"docs/tour.md:{step.line}: {step.file} {step.name}"
        if step.file not in tree.files:
            yield f"{where}: there is no such file"
        elif step.name not in tree.files[step.file]:
            yield f"{where}: the file does not define it"
        else:
            wrong = check_way(tree, step, before) if before or step.how else None
            if wrong:
                yield f"{where}: {wrong}"
            before += tree.files[step.file][step.name]


def check_names(root: Path, tree: Tree, number: int, line: str) -> Iterator[str]:
    """Check the paths and names between backticks."""
    for quoted in QUOTED.findall(line):
        if PATH.fullmatch(quoted) and not (root / quoted).is_file():
            yield f"docs/tour.md:{number}: there is no file {quoted}"
        for name in OURS.findall(quoted):
            if name not in tree.words:
                yield f"docs/tour.md:{number}: nothing is called {name}"


def check_page(root: Path) -> tuple[int, list[str]]:
    """Check the page; return the number of steps, and the problems."""
    tree = Tree(root)
    sections: list[list[Step]] = [[]]
    problems: list[str] = []
    lines = (root / "docs/tour.md").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        problems += check_names(root, tree, number, line)
        step = STEP.match(line)
        if line.startswith("#"):
            sections.append([])
        elif step:
            here = sections[-1]
            if int(step[1]) != len(here) + 1:
                problems.append(f"docs/tour.md:{number}: step {step[1]} is the {len(here) + 1}.")
            here.append(Step(number, step[2], step[3], step[4] or step[6] or "", step[5] or ""))
        elif ITEM.match(line):
            problems.append(f"docs/tour.md:{number}: this step is not of the form of steps")
    for steps in sections:
        problems += check_steps(tree, steps)
    count = sum(map(len, sections))
    if count == 0:
        problems.append("docs/tour.md: there are no steps")
    return count, problems


def main() -> int:
    """Check the tour; 1 if a step does not match the code."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    count, problems = check_page(root)
    for problem in problems:
        print(problem)
    print(f"check_tour: {count} steps, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
