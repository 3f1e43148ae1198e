"""The text that people read, taken out of the files of the tree: pages, comments, docstrings and help.

`passages(file, text)` yields one passage at a time: the text of a comment, a docstring or a paragraph, on one line, and
the line on which each of its characters lies. Code, strings that are not help, and what stands between backticks are
left out.
"""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

C_COMMENT = re.compile(
    r'/\*(.*?)\*/|//([^\n]*)|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL
)
C_DOC = re.compile(r'PyDoc_STRVAR\(\s*\w+,((?:\s*"(?:\\.|[^"\\\n])*")+)')
C_HELP = re.compile(
    r'\b\w*(?:help|usage|HELP|USAGE)\w*(?:\[\])?\s*=\s*(?:\{\s*)?((?:\s*"(?:\\.|[^"\\\n])*")+)'
)
C_STRING = re.compile(r'"((?:\\.|[^"\\\n])*)"')
CODE = re.compile(r"``[^`]*``|`[^`\n]*`|\"[^\"\n]{1,120}\"")
HELP = {"help", "description", "epilog", "metavar"}
HASH_FILES = {".build", ".txt", ".sh", ".yaml", ".yml", ".toml", ".supp"}
HASH_NAMES = {
    "Makefile",
    "meson_options.txt",
    ".clang-format",
    ".clang-tidy",
    ".gitignore",
    ".pre-commit-config.yaml",
}


@dataclass
class Passage:
    """A piece of text on one line; `lines` has the line of the file that each character comes from."""

    text: str
    lines: list[int]


def tracked(root: Path) -> list[str]:
    """Return the files of the tree, whether committed yet or not."""
    words = ["git", "ls-files", "-co", "--exclude-standard"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    names = done.stdout.splitlines() if done.returncode == 0 else []
    if not names:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
    return sorted(
        name for name in set(names) if (root / name).is_file() and not (root / name).is_symlink()
    )


def passage(pieces: list[tuple[int, str]]) -> Iterator[Passage]:
    """Yield the paragraphs of numbered lines; an empty line ends one."""
    text, lines = "", []
    for number, piece in [*pieces, (0, "")]:
        words = " ".join(piece.split())
        if words:
            text += (" " if text else "") + words
            lines += [number] * (len(text) - len(lines))
        elif text:
            yield Passage(
                CODE.sub(lambda match: "`" + "x" * (len(match.group()) - 2) + "`", text), lines
            )
            text, lines = "", []


def numbered(text: str, first: int) -> list[tuple[int, str]]:
    """Return the lines of a text with their numbers in the file."""
    return [(first + number, line) for number, line in enumerate(text.split("\n"))]


def read_markdown(text: str) -> Iterator[Passage]:
    """Yield the paragraphs, items and rows of a page, without its code."""
    pieces: list[tuple[int, str]] = []
    fenced = False
    for number, line in numbered(text, 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            pieces.append((number, ""))
        elif fenced or (line.startswith("    ") and not (pieces and pieces[-1][1].strip())):
            pieces.append((number, ""))
        else:
            if re.match(r"\s*([-*|#]|\d+\.) ?", line):
                pieces.append((number, ""))
            pieces.append((number, line))
    yield from passage(pieces)


def read_c(text: str) -> Iterator[Passage]:
    """Yield the comments, docstrings and help texts of a C file."""
    line = 1
    at = 0
    for match in C_COMMENT.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        body = match.group(1) if match.group(1) is not None else match.group(2)
        if body is not None:
            # The name of the file at its head is not a word of the sentence.
            pieces = [
                (number, re.sub(r"^\s*\*+ ?<?", "", part)) for number, part in numbered(body, line)
            ]
            yield from passage(pieces)
    for pattern in (C_DOC, C_HELP):
        for match in pattern.finditer(text):
            first = text.count("\n", 0, match.start(1)) + 1
            pieces = []
            for string in C_STRING.finditer(match.group(1)):
                number = first + match.group(1).count("\n", 0, string.start())
                for part in string.group(1).split("\\n"):
                    pieces.append((number, part))
                    if not part:
                        pieces.append((number, ""))
            yield from passage(pieces)


def read_python(text: str) -> Iterator[Passage]:
    """Yield the docstrings, comments and help texts of a Python file."""
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if comments and comments[-1][0] != line - 1:
                comments.append((0, ""))
            comments.append((line, token.string.lstrip("#")))
    yield from passage(comments)
    for node in ast.walk(ast.parse(text)):
        strings: list[ast.expr] = []
        if isinstance(node, ast.Expr):
            strings.append(node.value)
        elif isinstance(node, ast.Call):
            strings += [keyword.value for keyword in node.keywords if keyword.arg in HELP]
        for string in strings:
            if isinstance(string, ast.Constant) and isinstance(string.value, str):
                yield from passage(numbered(string.value, string.lineno))


def read_hashes(text: str, mark: str = "#") -> Iterator[Passage]:
    """Yield the comments of a file in which they begin with a sign."""
    pieces = []
    for number, line in numbered(text, 1):
        found = re.search(rf"(?:^|\s){re.escape(mark)}+\s?(.*)$", line)
        pieces.append((number, found.group(1) if found else ""))
    yield from passage(pieces)


def passages(name: str, text: str) -> Iterator[Passage]:
    """Yield the passages of a file; none for files of another kind."""
    path = Path(name)
    if path.suffix == ".md":
        yield from read_markdown(text)
    elif path.suffix in (".c", ".h"):
        yield from read_c(text)
    elif path.suffix in (".py", ".pyi"):
        yield from read_python(text)
    elif path.suffix == ".proto":
        yield from read_hashes(text, "//")
    elif name == "config/keys.toml":
        yield from passage(
            [(n, "" if not s.strip() else s) for n, s in numbered(text.replace('"', " "), 1)]
        )
    elif path.suffix in HASH_FILES or path.name in HASH_NAMES:
        yield from read_hashes(text)
