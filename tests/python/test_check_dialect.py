"""tools/check_dialect.py: what it finds in C, and what it makes of it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("clang.cindex", reason="libclang reads C")

OTHERWISE = """\
#include <stddef.h>

#define EACH(list, x) for ((x) = (list); (x); (x) = (x)->next)

struct node {
    struct node *next;
    int code;
};

int count(struct node *list, int *code)
{
    struct node *node;
    int n = sizeof *node > 4;
    EACH (list, node) {
        n += node->code;
    }
    if (!list || (code && n)) {
        return list ? 1 : 0;
    }
    *code = n; /* a code */
    return n;
}
"""

DIALECT = """\
#include <stddef.h>

#define EACH(list, x) for ((x) = (list); (x); (x) = (x)->next)

struct node {
    struct node *next;
    int code;
};

int count(struct node *list, int *rc)
{
    struct node *node;
    int n = sizeof(*node) > 4;

    EACH (list, node) {
        n += node->code;
    }
    if (list == NULL || (rc != NULL && n)) {
        return list != NULL ? 1 : 0;
    }
    *rc = n; /* a code */
    return n;
}
"""


def tree(folder: Path, source: str) -> Path:
    """Make a tree with one file of C and a copy of the check."""
    (folder / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "check_dialect.py", folder / "tools")
    (folder / "one.c").write_text(source)
    build = folder / "out"
    build.mkdir()
    entry = {"directory": str(build), "file": "../one.c", "command": "cc -std=gnu11 -c ../one.c"}
    (build / "compile_commands.json").write_text(json.dumps([entry]))
    return folder


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the check on a tree."""
    command = [sys.executable, str(folder / "tools" / "check_dialect.py"), str(folder / "out")]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def test_what_is_said_otherwise_is_found(tmp_path: Path) -> None:
    """Every rule is broken once or more, and each place is named."""
    done = check(tree(tmp_path, OTHERWISE))
    assert done.returncode == 1, done.stderr
    assert sorted(set(done.stdout.splitlines())) == [
        "one.c:10: a status is called rc",
        "one.c:13: no blank line after the declarations of a function",
        "one.c:13: sizeof without ()",
        "one.c:17: ! of a pointer",
        "one.c:17: a pointer as a truth value",
        "one.c:17: a status is called rc",
        "one.c:18: a pointer as a truth value",
        "one.c:20: a status is called rc",
    ]


def test_it_is_mended_and_then_clean(tmp_path: Path) -> None:
    """Members, comments and the inside of macros stay as they are."""
    folder = tree(tmp_path, OTHERWISE)
    check(folder, "--fix")
    assert (folder / "one.c").read_text() == DIALECT
    done = check(folder)
    assert (done.returncode, done.stdout) == (0, "1 files follow the C dialect\n")


def test_a_file_that_does_not_compile_is_named(tmp_path: Path) -> None:
    """A syntax tree of half a file says nothing."""
    done = check(tree(tmp_path, "int one(void)\n{\n    return two;\n}\n"))
    assert done.returncode == 1
    assert "one.c:3:12: error: use of undeclared identifier 'two'" in done.stdout
