"""Names of the package transfer_queue that verl uses, and whether they exist: names.py [--json FILE]

Reads every file of the installed verl: imports of the package and of its modules, attributes of the module
under the names it is imported by, and the keyword arguments in calls of these.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.metadata
import inspect
import json
import sys
from pathlib import Path
from typing import Any

PACKAGE = "transfer_queue"


def folder() -> Path:
    """The installed package verl."""
    found = importlib.metadata.distribution("verl").locate_file("verl")
    return Path(str(found))


def stock_configuration() -> Path:
    """verl's own configuration of the queue."""
    return folder() / "trainer" / "config" / "transfer_queue" / "transfer_queue.yaml"


class Uses(ast.NodeVisitor):
    """The names used in one file: each as a dotted path starting at the package, with keywords of its calls."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}
        self.objects: dict[str, str] = {}
        self.found: dict[str, set[str]] = {}

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            if name.name.partition(".")[0] == PACKAGE:
                self.found.setdefault(name.name, set())
                self.modules[name.asname or PACKAGE] = name.name if name.asname else PACKAGE

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0 and (node.module or "").partition(".")[0] == PACKAGE:
            for name in node.names:
                path = f"{node.module}.{name.name}"
                self.found.setdefault(path, set())
                self.objects[name.asname or name.name] = path

    def path_of(self, node: ast.AST) -> str | None:
        """The dotted path that an expression refers to."""
        if isinstance(node, ast.Name):
            return self.modules.get(node.id) or self.objects.get(node.id)
        if isinstance(node, ast.Attribute):
            holder = self.path_of(node.value)
            return f"{holder}.{node.attr}" if holder else None
        return None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self.path_of(node)
        if path is not None:
            self.found.setdefault(path, set())
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        path = self.path_of(node.func)
        if path is not None:
            keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
            self.found.setdefault(path, set()).update(keywords)
        self.generic_visit(node)


def uses() -> dict[str, set[str]]:
    """Everything that verl uses, with the keywords of calls."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder().rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if PACKAGE not in text:
            continue
        tree = ast.parse(text, str(path))
        seen = Uses()
        # Imports may be inside functions, below their first use in the file.
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                seen.visit(node)
        seen.visit(tree)
        for name, keywords in seen.found.items():
            found.setdefault(name, set()).update(keywords)
    return found


def resolve(path: str) -> Any:
    """The object at a dotted path; AttributeError or ImportError if there is none."""
    parts = path.split(".")
    thing: Any = importlib.import_module(parts[0])
    for place, name in enumerate(parts[1:], 2):
        try:
            thing = getattr(thing, name)
        except AttributeError:
            thing = importlib.import_module(".".join(parts[:place]))
    return thing


def problem(path: str, keywords: set[str]) -> str | None:
    """Describe what is missing for a name."""
    try:
        thing = resolve(path)
    except (AttributeError, ImportError) as error:
        return f"{path}: {error}"
    if keywords and callable(thing):
        parameters = inspect.signature(thing).parameters
        unknown = keywords - set(parameters)
        if unknown:
            return f"{path}: takes no {sorted(unknown)}"
    return None


def main() -> int:
    """Count; returns 1 if anything is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write what passed and failed to this file")
    args = parser.parse_args()
    used = uses()
    problems = [found for name, words in sorted(used.items()) if (found := problem(name, words))]
    for found in problems:
        print(f"verl: {found}")
    version = importlib.metadata.version("verl")
    print(f"verl {version}: names used {len(used)}, names we have {len(used) - len(problems)}")
    if args.json:
        passed = len(used) - len(problems)
        args.json.write_text(json.dumps({"passed": passed, "failures": problems}))
    return 1 if problems or not used else 0


if __name__ == "__main__":
    sys.exit(main())
