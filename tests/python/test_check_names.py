"""The lint of names: retired ones, files that are called something else, types defined twice, and prefixes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Of the lint, not of the queue: left out of make test-quick.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent

FILES = {
    "src/base/buf.h": """/*
 * buf.h - bytes; buf.c has the rest.
 */
#ifndef TQI_BASE_BUF_H
#define TQI_BASE_BUF_H
#define TQI_BUF_MAX 16
typedef struct tqi_buf tqi_buf;
struct tqi_buf {
    int size;
};
int tqi_buf_grow(tqi_buf *buf);
static inline int tqi_buf_size(const tqi_buf *buf)
{
    return buf->size;
}
#endif
""",
    "src/base/buf.c": """/*
 * buf.c - see buf.h.
 */
#include "buf.h"
int tqi_buf_grow(tqi_buf *buf)
{
    return ++buf->size;
}
""",
    "src/net/conn.c": """/* conn.c - a connection. */
typedef int (*tqi_net_read_fn)(void);
int tqi_net_conn_open(void);
int tqi_net_conn_open(void)
{
    return 0;
}
static int conn_close(void)
{
    return 0;
}
""",
    "src/client/get.c": "/* get.c - reads. */\n",
    "docs/design.md": """# Design

## 2. Words

| word | meaning | in code |
| --- | --- | --- |
| buffer | bytes | `tqi_buf`, `src/base`, `base/buf.c` |

## 3. More
""",
    "docs/page.md": "The table is in `src/base/buf.c`.\n",
}

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs it on a small tree, compiled, with one text replaced."""

    def run(file: str = "", old: str = "", new: str = "") -> tuple[int, str]:
        entries = []
        for name, text in FILES.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name == file:
                assert old in text
                text = text.replace(old, new)
            path.write_text(text)
            if name.endswith(".c"):
                output = name.replace("/", "_") + ".o"
                subprocess.run(
                    ["cc", "-c", "-w", "-o", tmp_path / output, path],
                    check=True,
                )
                entries.append({"directory": str(tmp_path), "file": name, "output": output})
        (tmp_path / "compile_commands.json").write_text(json.dumps(entries))
        return lint(tmp_path, tmp_path)

    return run


def lint(build: Path, root: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/check_names.py"), str(build), str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_names_with_one_meaning_pass(check: Check) -> None:
    code, text = check()
    assert code == 0, text
    assert "0 problems" in text


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("src/base/buf.c", "see buf.h.", "a tqi_meta_row", "'tqi_meta_row' is retired: tqi_table"),
        ("src/base/buf.c", "see buf.h.", "calls tqi_m_sum", "'tqi_m_sum' is retired: tqi_t_"),
        ("src/base/buf.c", "see buf.h.", "of a tqi_plain", "'tqi_plain' is retired"),
        ("src/base/buf.c", "see buf.h.", "thin blocks", "'thin' is retired: sparse"),
        ("src/client/get.c", "reads", "unview it", "'unview' is retired: borrow, give back"),
        ("src/base/buf.c", "see buf.h.", "sends LEASE_BLOCKS", "'LEASE_BLOCKS' is retired: grant"),
        ("docs/page.md", "The table is in", "tq_meta_rele frees; see", "'tq_meta_rele' is retired"),
        ("docs/page.md", "The table is in", "tq_get_keys reads; see", "is retired: tq_get_by_key"),
        ("docs/page.md", "The table is in", "tq_get_as reads; see", "is retired: tq_get"),
        ("docs/page.md", "The table is in", "tq_meta_fields counts; see", "is retired: ..._count"),
        ("docs/page.md", "The table is in", "`limits.leases` bounds; see", "is retired: limits.grants"),
        ("src/base/buf.c", "see buf.h.", "`import ctq`", "'import ctq' is retired"),
        ("docs/page.md", "The table", "Faster than the peer; it", "is retired: upstream"),
        ("docs/page.md", "base/buf.c", "base/buffer.c", "page.md:1: there is no file src/base/buffer.c"),
        ("src/base/buf.c", "see buf.h", "see buffer.h", "buf.c:2: there is no file buffer.h"),
        ("src/base/buf.c", "* buf.c -", "* tx.c -", "buf.c:1: its head calls it tx.c"),
        ("src/net/conn.c", "typedef int (*tqi_net_read_fn)(void);", "struct tqi_buf { int n; };", "tqi_buf is also a type in"),
        ("src/net/conn.c", "tqi_net_conn_open", "tqi_conn_open", "tqi_conn_open does not begin with tqi_net_"),
        ("src/net/conn.c", "static int conn_close", "int conn_close", "conn_close does not begin with tqi_net_"),
        ("src/net/conn.c", "tqi_net_read_fn", "tqi_read_fn", "tqi_read_fn does not begin with tqi_net_"),
        ("src/base/buf.h", "TQI_BUF_MAX", "TQI_NET_MAX", "TQI_NET_MAX does not begin with tqi_"),
        ("src/base/buf.h", "tqi_buf_size", "buf_size", "buf_size does not begin with tqi_"),
        ("docs/design.md", "`tqi_buf`", "`tqi_bytes`", "the glossary names tqi_bytes"),
        ("docs/design.md", "`src/base`", "`src/floor`", "the glossary names src/floor"),
        ("src/base/buf.h", "TQI_BASE_BUF_H", "TQI_BUF_H", "its guard is not TQI_BASE_BUF_H"),
    ],
)  # fmt: skip
def test_names_with_another_meaning_are_refused(
    check: Check, file: str, old: str, new: str, said: str
) -> None:
    code, text = check(file, old, new)
    assert code == 1, text
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("src/base/buf.c", "see buf.h.", "within tqi_metric_set, nothing thinner"),
        ("src/base/buf.c", "see buf.h.", "the build makes config_keys.h"),
        ("docs/page.md", "The table is in", "An older peer sees $XDG_RUNTIME_DIR/ctq, `ctq-UID`;"),
        ("src/net/conn.c", "typedef int (*tqi_net_read_fn)(void);", "struct tqi_buf;"),
        ("src/net/conn.c", "int tqi_net_conn_open", "int tq_conn_open"),
    ],
)  # fmt: skip
def test_what_only_looks_like_one_passes(check: Check, file: str, old: str, new: str) -> None:
    code, text = check(file, old, new)
    assert code == 0, text
