"""The lint that guards a protocol version: what it accepts and what it rejects."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROTO, METHODS, FRAME = "protocol/tq.proto", "src/wire/methods.h", "src/wire/frame.h"


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs it on a copy of the tree's protocol with one text replaced."""

    def run(file: str = PROTO, old: str = "", new: str = "", *options: str) -> tuple[int, str]:
        for name in (PROTO, METHODS, FRAME):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
        shutil.copytree(
            ROOT / "protocol/versions", tmp_path / "protocol/versions", dirs_exist_ok=True
        )
        text = (tmp_path / file).read_text()
        assert old in text
        (tmp_path / file).write_text(text.replace(old, new, 1))
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools/check_protocol.py"), *options, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_tree_is_fine(check: Callable[..., tuple[int, str]]) -> None:
    code, told = check()
    assert code == 0, told
    assert "0 problems" in told


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (PROTO, "message Ack {\n", "message Ack {\n  uint64 added = 9;\n"),
        (PROTO, "message Empty {}", "message Empty {}\nmessage Added { repeated string name = 1; }"),
        (PROTO, "uint64 below = 1;", "uint64 renamed = 1;"),
        (PROTO, "  uint64 below = 1;", "  reserved 1;"),
        (METHODS, "X(16, PUBLISH", "X(63, ADDED, added, Publish, publish_reply, PublishReply, KEEP) X(16, PUBLISH"),
    ],
)  # fmt: skip
def test_additions_pass(
    check: Callable[..., tuple[int, str]], file: str, old: str, new: str
) -> None:
    code, told = check(file, old, new)
    assert code == 0, told


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (PROTO, "uint64 below = 1;", "", "Ack 1: 'uint64 below' is gone; reserve its number"),
        (PROTO, "uint64 below = 1;", "uint64 below = 7;", "Ack 1: 'uint64 below' is gone"),
        (PROTO, "uint64 below = 1;", "uint32 below = 1;", "Ack 1: was 'uint64 below', is 'uint32 below'"),
        (PROTO, "repeated uint64 waiting", "uint64 waiting", "Ack 2: was 'repeated uint64 waiting'"),
        (METHODS, "X(16, PUBLISH", "X(63, PUBLISH", "request 16: 'PUBLISH Publish -> PublishReply keep' is gone"),
        (METHODS, "publish_reply, PublishReply, KEEP", "publish_reply, PublishReply, AGAIN", "request 16: was"),
        (PROTO, "message Ack {\n", "message Ack {\n  reserved 2;\n", "Ack 2: 'repeated uint64 waiting' takes a reserved"),
        (FRAME, "TQI_PROTOCOL_VERSION ", "TQI_PROTOCOL_VERSION 9", "no protocol/versions/9"),
    ],
)  # fmt: skip
def test_what_an_older_peer_would_misread_does_not(
    check: Callable[..., tuple[int, str]], file: str, old: str, new: str, says: str
) -> None:
    code, told = check(file, old, new)
    assert code == 1, told
    assert says in told


def test_a_raised_version_gets_a_list_of_its_own(check: Callable[..., tuple[int, str]]) -> None:
    # The existing number comes after it.
    assert check(FRAME, "TQI_PROTOCOL_VERSION ", "TQI_PROTOCOL_VERSION 9", "--keep")[0] == 0
    code, told = check(FRAME, "TQI_PROTOCOL_VERSION ", "TQI_PROTOCOL_VERSION 9")
    assert code == 0, told
