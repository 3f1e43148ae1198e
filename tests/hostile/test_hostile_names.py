"""Names that would be terminal commands, or lines of a log: refused on input, and escaped in output."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferq
from support.daemons import Daemon, System, executable
from transferq.errors import NameLengthError

VALUE = np.arange(3)[None]

ODD = ["a\nb", "\x1b[2J", "tab\there", "\x7f", "csi\x9b2J", "a" * 20 + "\r"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("what", ["key", "field", "partition", "task", "group"])
def test_control_characters_are_refused_in_names(tq: Any, pid: str, what: str, name: str) -> None:
    """The error gives the name, escaped, and the place of the character; nothing is stored."""
    with pytest.raises(NameLengthError, match="has a control character at byte") as caught:
        if what == "task":
            tq.get_client().get_meta(["x"], 1, pid, "fetch", name, timeout=1)
        else:
            tq.kv_batch_put(
                [name if what == "key" else "k"],
                name if what == "partition" else pid,
                {name if what == "field" else "x": VALUE},
                groups=[name if what == "group" else "g"],
            )
    assert f"{what} name '" in str(caught.value)
    assert str(caught.value).isprintable()
    assert tq.kv_list() == {}


def test_names_of_every_script_are_taken(tq: Any, pid: str) -> None:
    """All printable text is a valid name."""
    for name in ("schlüssel", "ключ", "键", "🔑", "a b", "\u00a0", "a'\"\\%s"):
        tq.kv_put(name, pid, {name: VALUE[0]})
        assert name in tq.kv_list(pid)[pid]


def test_a_clients_name(tmp_path: Path) -> None:
    """The name of a session is listed and logged too."""
    system = System(tmp_path)
    system.start(settings=["backend.SimpleStorage.total_storage_size=16MiB"])
    try:
        with pytest.raises(NameLengthError, match=r"session name 'a.x0ab' has a control character"):
            system.client("a\nb")
        # A program may have any name; its default client name is escaped.
        odd = tmp_path / "tq\n2001-01-01T00:00:00.000Z error tqd: forged"
        odd.symlink_to(executable("tq"))
        done = subprocess.run(
            [odd, "ls"], env=system.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "\nforged" not in system.daemons[0].log.read_text()
    finally:
        system.close()


def test_a_systems_name(tmp_path: Path) -> None:
    """The name of a system is part of messages."""
    daemon = Daemon(
        "all-in-one", "--runtime-dir", str(tmp_path / "run"), "--name", "a\nb", log=tmp_path / "log"
    )
    assert daemon.answer.startswith("error: system name "), daemon
    assert daemon.process.wait(30) == 2
    assert "system name 'a\\x0ab' has a control character" in (tmp_path / "log").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQ_SYSTEM", "a\x1bb")
        with pytest.raises(NameLengthError, match=r"system name 'a.x1bb' has a control character"):
            transferq._impl.system.find(transferq._impl.system.system_name())
