"""Check that everything public is documented.

C: each declaration in include/tq/*.h, each member of a public struct and each item of a public enum has a comment
directly above it or behind it on its last line; so has each public macro (a run of macros may share one).

Python: each module of transferq, and each class, function and method whose name does not begin with an underscore, has
a docstring; so has everything public in the extension, if it can be imported.

Pages: the rows of a table are lines of their own.

Usage: check_docs.py [ROOT]
"""

import ast
import importlib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = re.compile(
    r"""[A-Za-z_]\w*|0[xX][0-9a-fA-F]+\w*|\d[\w.]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\S"""
)
COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)
CPLUSPLUS = re.compile(r"^#[ \t]*ifdef __cplusplus\n.*?^#[ \t]*endif", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
DEFINE = re.compile(r"[ \t]*#[ \t]*define[ \t]+(\w+)")


def blank(match: re.Match[str]) -> str:
    """Replace everything but line ends by spaces."""
    return re.sub(r"[^\n]", " ", match.group())


@dataclass
class Token:
    """A word or sign of a header, with its line."""

    text: str
    line: int


@dataclass
class Header:
    """One public header, taken apart into declarations and comments."""

    name: str
    text: str
    comment_starts: set[int] = field(default_factory=set)
    comment_ends: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    declarations: int = 0

    def check(self) -> None:
        """Find everything undocumented."""
        code = self._take_comments(CPLUSPLUS.sub(blank, self.text))
        self._check_macros(code)
        code = DIRECTIVE.sub(blank, code)
        line = 1
        pos = 0
        tokens = []
        for match in TOKEN.finditer(code):
            line += code.count("\n", pos, match.start())
            pos = match.start()
            tokens.append(Token(match.group(), line))
        self._check_scope(tokens, ";", "")

    def _take_comments(self, text: str) -> str:
        def take(match: re.Match[str]) -> str:
            if match.group().startswith('"'):
                return match.group()
            first = text.count("\n", 0, match.start()) + 1
            self.comment_starts.add(first)
            before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
            if not before.strip():
                # A comment after one declaration does not document the next.
                self.comment_ends.add(first + match.group().count("\n"))
            return blank(match)

        return COMMENT.sub(take, text)

    def _require(self, first: int, last: int, what: str) -> None:
        self.declarations += 1
        if first - 1 not in self.comment_ends and last not in self.comment_starts:
            self.problems.append(f"{self.name}:{first}: no comment on {what}")

    def _check_macros(self, code: str) -> None:
        undefined = set(re.findall(r"^[ \t]*#[ \t]*undef[ \t]+(\w+)", code, re.MULTILINE))
        lines = code.split("\n")
        documented_until = -1
        for match in DIRECTIVE.finditer(code):
            define = DEFINE.match(match.group())
            if not define:
                continue
            name = define.group(1)
            first = code.count("\n", 0, match.start()) + 1
            last = first + match.group().count("\n")
            guard = name.endswith("_H") and lines[first - 2].lstrip().startswith("#ifndef")
            fallback = lines[first - 2].strip().startswith("#else")
            if guard or fallback or name in undefined:
                continue
            if documented_until == first - 1:
                documented_until = last
                continue
            self._require(first, last, f"macro {name}")
            documented_until = last

    def _check_scope(self, tokens: list[Token], separator: str, owner: str) -> None:
        """Check the declarations of one scope: a file, a struct's members or an enum's items."""
        start = 0
        while start < len(tokens):
            end, body = self._statement(tokens, start, separator)
            words = tokens[start:end]
            if words and not (len(words) == 1 and words[0].text in ";,"):
                self._check_statement(words, body, separator, owner)
            start = end

    @staticmethod
    def _statement(
        tokens: list[Token], start: int, separator: str
    ) -> tuple[int, tuple[int, int] | None]:
        """Return the end of the statement at `start`, and where its braces are."""
        depth = 0
        body = None
        opened = 0
        pos = start
        while pos < len(tokens):
            text = tokens[pos].text
            if text in "({[" and len(text) == 1:
                if text == "{" and depth == 0:
                    opened = pos
                depth += 1
            elif text in ")}]" and len(text) == 1:
                depth -= 1
                if text == "}" and depth == 0:
                    body = (opened - start, pos - start)
                    if opened > start and tokens[opened - 1].text == ")":
                        return pos + 1, body  # the body of an inline function
            elif text == separator and depth == 0:
                return pos + 1, body
            pos += 1
        return pos, body

    def _check_statement(
        self, words: list[Token], body: tuple[int, int] | None, separator: str, owner: str
    ) -> None:
        texts = [word.text for word in words]
        if separator == "," and len(texts) > 1 and texts[1] == "(":
            return  # an enum made from a table
        kind = next((text for text in texts[:3] if text in ("struct", "union", "enum")), "")
        self._require(words[0].line, words[-1].line, owner + self._name(texts, body))
        if body and kind:
            inner = words[body[0] + 1 : body[1]]
            name = next(
                (t for t in texts[: body[0]] if re.match(r"tq", t)), self._name(texts, body)
            )
            self._check_scope(inner, "," if kind == "enum" else ";", name + ".")

    @staticmethod
    def _name(texts: list[str], body: tuple[int, int] | None) -> str:
        """Guess what a declaration is called, for the message."""
        flat = texts if body is None else texts[: body[0]] + texts[body[1] + 1 :]
        pointer = re.search(r"\( \* (\w+) \)", " ".join(flat))
        if pointer:
            return pointer.group(1)
        if "(" in flat and "typedef" not in flat:
            flat = flat[: flat.index("(")]
        if "=" in flat:
            flat = flat[: flat.index("=")]
        if "[" in flat:
            flat = flat[: flat.index("[")]
        names = [text for text in flat if re.match(r"[A-Za-z_]", text)]
        return names[-1] if names else " ".join(texts)


def check_headers(root: Path) -> tuple[int, list[str]]:
    """Check all public headers; return the number of declarations and the problems."""
    problems = []
    count = 0
    for path in sorted((root / "include" / "tq").glob("*.h")):
        header = Header(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
        header.check()
        count += header.declarations
        problems += header.problems
    if count == 0:
        problems.append("include/tq: no declarations found")
    return count, problems


def broken_tables(root: Path) -> list[str]:
    """Return the lines of pages in which a table has run into one paragraph."""
    pages = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("tests/**/*.md")]
    problems = []
    for path in sorted(pages):
        fenced = False
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            fenced ^= line.lstrip().startswith("```")
            if (
                not fenced
                and re.search(r"\|\s*:?-{3,}", line)
                and not re.fullmatch(r"[\s|:-]+", line)
            ):
                problems.append(
                    f"{path.relative_to(root)}:{number}: the rows of a table on one line"
                )
    return problems


def is_exempt(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function's docstring is elsewhere: overloads, setters, overrides."""
    names = {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in node.decorator_list}
    return bool(names & {"overload", "setter", "deleter", "override"})


def check_scope(where: str, prefix: str, body: list[ast.stmt], problems: list[str]) -> int:
    """Check the classes, functions and methods of one body; return how many there are."""
    count = 0
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            count += check_scope(where, prefix, [*node.body, *node.orelse], problems)
            continue
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if node.name.startswith("_"):
            continue
        if not isinstance(node, ast.ClassDef) and is_exempt(node):
            continue
        count += 1
        if not ast.get_docstring(node):
            problems.append(f"{where}:{node.lineno}: no docstring on {prefix}{node.name}")
        if isinstance(node, ast.ClassDef):
            count += check_scope(where, f"{prefix}{node.name}.", node.body, problems)
    return count


def exported_names(package: Path) -> set[str]:
    """Return what the package's __init__.py lists in __all__."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                names |= {
                    item.value
                    for item in ast.walk(node.value)
                    if isinstance(item, ast.Constant) and isinstance(item.value, str)
                }
    return names


def check_modules(root: Path) -> tuple[int, list[str]]:
    """Check all Python files of the package; of a private module only what the package exports."""
    problems: list[str] = []
    count = 0
    package = root / "python" / "transferq"
    if not (package / "__init__.py").exists():
        return 0, ["python/transferq: no package found"]
    exported = exported_names(package)
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(root).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"), where)
        count += 1
        if not ast.get_docstring(tree):
            problems.append(f"{where}:1: no docstring on the module")
        body = tree.body
        if path.name.startswith("_") and path.name != "__init__.py":
            body = [node for node in body if getattr(node, "name", None) in exported]
        count += check_scope(where, "", body, problems)
    return count, problems


def check_stub(root: Path) -> tuple[int, list[str]]:
    """Check the extension's stub, which editors show; what an overload says counts for those below it."""
    path = root / "python" / "transferq" / "_core.pyi"
    where = path.relative_to(root).as_posix()
    if not path.exists():
        return 0, [f"{where}: no stub found"]
    tree = ast.parse(path.read_text(encoding="utf-8"), where)
    # Error classes are documented in docs/errors.md, one line each here.
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.ClassDef) and node.name.endswith("Error"))
    ]
    problems: list[str] = []
    return check_scope(where, "", body, problems), problems


def check_extension() -> tuple[int, list[str]]:
    """Check the public names of the installed extension and of its types."""
    try:
        core = importlib.import_module("transferq._core")
    except ImportError:
        return 0, []
    count = 0
    problems = []
    for name, value in sorted(vars(core).items()):
        if name.startswith("_") or not callable(value):
            continue
        count += 1
        if not value.__doc__:
            problems.append(f"transferq._core.{name}: no docstring")
        if not isinstance(value, type) or issubclass(value, BaseException):
            continue
        for member, slot in sorted(vars(value).items()):
            if member.startswith("_"):
                continue
            count += 1
            if not getattr(slot, "__doc__", None):
                problems.append(f"transferq._core.{name}.{member}: no docstring")
    return count, problems


def main() -> int:
    """Check everything; 1 if anything is undocumented."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    total = 0
    problems = []
    for count, found in (
        check_headers(root),
        check_modules(root),
        check_stub(root),
        check_extension(),
    ):
        total += count
        problems += found
    problems += broken_tables(root)
    for problem in problems:
        print(problem)
    print(f"check_docs: {total} public names, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
