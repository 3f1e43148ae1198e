"""Unsafe settings that still work are reported once, with the remedy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemons import Daemon, System, executable

SMALL = "backend.SimpleStorage.total_storage_size=16MiB"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A place for a system."""
    made = System(tmp_path)
    yield made
    made.close()


def token(path: Path, text: str, mode: int) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


TWICE = """
import transferq, os
for _ in range(2):
    info = transferq.ControllerInfo(os.environ["TQ_ADDRESS"], os.environ["TQ_TOKEN_FILE"])
    transferq.TransferQueueClient("x", info).close()
"""


@pytest.mark.parametrize("text", ["short", "a token of 16 b."])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604])
def test_a_token_that_others_can_have(system: System, tmp_path: Path, text: str, mode: int) -> None:
    """The daemon, `tq` and Python warn once per process that the token is short, and that its file is open to others."""
    path = token(tmp_path / "token", text, mode)
    daemon = system.start("--token-file", str(path), settings=[SMALL])
    system.token_file = str(path)
    said = [daemon.log.read_text()]
    for command in ([executable("tq"), "ls"], [sys.executable, "-c", TWICE]):
        done = subprocess.run(
            command, env=system.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
    for log in said:
        assert log.count(f"the token in '{path}' has 5 bytes; fewer than 16 can be guessed") == (
            len(text) < 16
        )
        assert log.count("openssl rand -hex 32") == (len(text) < 16)
        readable = f"token file '{path}' can be read by other users (mode {mode:04o}): chmod 600 it"
        assert log.count(readable) == (mode != 0o600)


def test_a_token_that_is_made_gives_no_warning(system: System) -> None:
    """A daemon's own token is safe."""
    daemon = system.start("--listen", "tcp:127.0.0.1:0", settings=[SMALL])
    assert " warn " not in daemon.log.read_text()


def test_a_listener_beyond_this_machine(system: System, tmp_path: Path) -> None:
    """One line, however many endpoints there are."""
    path = token(tmp_path / "token", "a secret of some length", 0o600)
    controller = Daemon(
        "all-in-one",
        *("--listen", "tcp:0.0.0.0:0", "--listen", "tcp:[::]:0", "--token-file", str(path)),
        *("--set", SMALL),
        log=tmp_path / "log",
    )
    system.daemons.append(controller)
    assert controller.answer == "ready"
    log = (tmp_path / "log").read_text()
    assert log.count("neither encrypted nor signed") == 1
    assert "listens on tcp:0.0.0.0:0, beyond this machine" in log
    assert "docs/security.md" in log


def test_a_listener_on_a_network_that_is_trusted(system: System) -> None:
    """A user who sets this has read the warning."""
    daemon = system.start(
        "--listen", "tcp:0.0.0.0:0", settings=[SMALL, "net.trusted=true"], role="all-in-one"
    )
    assert "encrypted" not in daemon.log.read_text()
