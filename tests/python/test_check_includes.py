"""The lint that keeps the parts, and the layers inside a part, in one direction."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Of the lint, not of the queue: left out of make test-quick.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs it on a copy of the tree's C files with an #include added to one of them."""

    def run(file: str = "", header: str = "") -> tuple[int, str]:
        for folder in ("include", "src"):
            shutil.copytree(
                ROOT / folder,
                tmp_path / folder,
                dirs_exist_ok=True,
            )
        if file:
            path = tmp_path / file
            text = path.read_text() if path.exists() else ""
            path.parent.mkdir(exist_ok=True)
            path.write_text(text + f'\n#include "{header}"\n')
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools/check_includes.py"), str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_tree_is_fine(check: Callable[..., tuple[int, str]]) -> None:
    code, output = check()
    assert code == 0, output
    assert " 0 problems" in output


@pytest.mark.parametrize(
    ("file", "header"),
    [
        ("src/client/put/put.c", "client/op.h"),
        ("src/client/checkpoint/save.c", "client/get/get.h"),
        ("src/client/runtime.c", "client/data/data.h"),
        ("src/client/get/plan.c", "manager/manager.h"),
        ("src/net/call_test.c", "net/serving.h"),
        ("src/table/publish.c", "table/block.h"),
        ("src/controller/write.c", "controller/claims.h"),
        ("src/unit/unit.c", "unit/room.h"),
        ("src/manager/simple/stock.c", "manager/simple/simple.h"),
    ],
)
def test_lower_layers_may_be_included(
    check: Callable[..., tuple[int, str]], file: str, header: str
) -> None:
    code, output = check(file, header)
    assert code == 0, output


@pytest.mark.parametrize(
    ("file", "header", "named"),
    [
        ("src/net/call.c", "client/client.h", "net may not include client"),
        ("src/client/runtime.c", "client/get/get.h", "get/get.h is above it in client"),
        ("src/client/op.h", "client/runtime.h", "runtime.h is above it in client"),
        ("src/client/meta/wire.c", "client/op.h", "op.h is above it in client"),
        ("src/client/get/get.c", "client/put/put.h", "put/put.h is beside it in client"),
        ("src/client/calls/claim.c", "client/runtime.h", "runtime.h is beside it in client"),
        ("src/client/put/put.c", "client/checkpoint/files.h", "checkpoint/files.h is above it in client"),
        ("src/client/new/new.c", "client/client.h", "new/new.c belongs to no layer of client"),
        ("src/net/call.c", "net/serving.h", "serving.h is beside it in net"),
        ("src/net/server.c", "net/calling.h", "calling.h is beside it in net"),
        ("src/net/conn.c", "net/calling.h", "calling.h is above it in net"),
        ("src/net/waiters.c", "net/internal.h", "internal.h is beside it in net"),
        ("src/net/call.c", "net/testkit.h", "testkit.h is above it in net"),
        ("src/table/block.c", "table/publish_plan.h", "publish_plan.h is above it in table"),
        ("src/table/snapshot.c", "table/publish_plan.h", "publish_plan.h is beside it in table"),
        ("src/table/publish.c", "table/restore.h", "restore.h is above it in table"),
        ("src/table/restore.c", "table/test/testkit.h", "test/testkit.h is above it in table"),
        ("src/controller/owners.h", "controller/controller_state.h", "controller_state.h is above it in controller"),
        ("src/controller/queue.c", "controller/events.h", "events.h is beside it in controller"),
        ("src/controller/claims.h", "controller/owners.h", "owners.h is beside it in controller"),
        ("src/unit/memory.h", "unit/writers.h", "writers.h is above it in unit"),
        ("src/unit/tombs.c", "unit/unit.h", "unit.h is beside it in unit"),
        ("src/manager/simple/get.c", "manager/simple/put.h", "put.h is beside it in manager/simple"),
    ],
)  # fmt: skip
def test_wrong_includes_are_named(
    check: Callable[..., tuple[int, str]], file: str, header: str, named: str
) -> None:
    code, output = check(file, header)
    assert code == 1
    assert f"{file}:" in output
    assert named in output
    assert " 1 problems" in output
