"""Attacks by another user in a shared temporary directory: links, directories and files where ours are looked up.

Creating another user's directories needs root; without root, the tests that need them are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemons import Daemon, executable

SMALL = ("--set=backend.SimpleStorage.total_storage_size=16MiB",)

OTHER = 65534
"""A different user."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of another user")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A temporary directory writable by all users; without the sticky bit, so that the kernel protects nothing in it."""
    with tempfile.TemporaryDirectory(prefix="tq-") as path:
        Path(path).chmod(0o777)
        yield Path(path)


def base_of(shared: Path) -> Path:
    """Where this user's systems are looked up."""
    return shared / f"ctq-{os.geteuid()}"


def run(shared: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program that looks for a system there."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XDG_RUNTIME_DIR", "TQ_ADDRESS", "TQ_TOKEN_FILE", "TQ_SYSTEM")
    }
    return subprocess.run(
        command,
        env={**environment, "TMPDIR": str(shared)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start(directory: Path, log: Path, shared: Path | None = None) -> Daemon:
    """A daemon with this runtime directory."""
    with pytest.MonkeyPatch.context() as patch:
        if shared is not None:
            patch.delenv("XDG_RUNTIME_DIR", raising=False)
            patch.setenv("TMPDIR", str(shared))
        return Daemon("all-in-one", "--runtime-dir", str(directory), *SMALL, log=log)


def plant(directory: Path) -> socket.socket:
    """Create a system's directory whose handle refers to a socket of the attacker."""
    directory.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "controller.sock"))
    listener.listen()
    listener.setblocking(False)
    (directory / "token").write_text("the attacker's own token\n")
    handle = {
        "address": f"unix:{directory}/controller.sock",
        "token_file": str(directory / "token"),
        "pid": os.getpid(),
        "owner_pid": 0,
        "name": "default",
        "user": "",
        "created": 0.0,
        "version": "0.2.0",
    }
    (directory / "handle.json").write_text(json.dumps(handle))
    return listener


def attach() -> tuple[str, ...]:
    """The two ways to attach."""
    return (sys.executable, "-c", "import transferq; transferq.init(attach=True)")


def assert_refused(done: subprocess.CompletedProcess[str], path: Path) -> None:
    """The program ended with an error that names the directory and the remedy."""
    assert done.returncode == 1, done.stderr
    assert str(path) in done.stderr
    assert "set XDG_RUNTIME_DIR or TMPDIR" in done.stderr


def test_a_link_in_the_place_of_the_base_is_not_followed(shared: Path) -> None:
    """`ctq-UID -> .` makes the shared directory itself the user's own; anyone can write its content."""
    base_of(shared).symlink_to(".")
    listener = plant(shared / "default")
    with listener:
        for command in ((executable("tq"), "ls"), attach()):
            done = run(shared, *command)
            assert_refused(done, base_of(shared))
            assert "is a symbolic link" in done.stderr
            with pytest.raises(BlockingIOError):  # there was no connection
                listener.accept()


def test_nothing_is_started_behind_a_link(shared: Path) -> None:
    """Nor is a new system started behind another user's link."""
    (shared / "elsewhere").mkdir(mode=0o700)
    base_of(shared).symlink_to("elsewhere")
    for command in (
        (executable("tq"), "serve", *SMALL),
        (sys.executable, "-c", "import transferq; transferq.init()"),
    ):
        assert_refused(run(shared, *command), base_of(shared))
        assert list((shared / "elsewhere").iterdir()) == []


def test_a_link_in_the_place_of_a_system_is_not_followed(shared: Path) -> None:
    """A system's directory is checked like its parent."""
    base_of(shared).mkdir(mode=0o700)
    listener = plant(shared / "real")
    (base_of(shared) / "default").symlink_to(shared / "real")
    with listener:
        for command in ((executable("tq"), "ls"), attach()):
            done = run(shared, *command)
            assert done.returncode == 1
            assert f"{base_of(shared)}/default is a symbolic link" in done.stderr
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("name", ["../default", ".", "..", "a/b"])
def test_a_name_of_a_system_is_no_path(shared: Path, name: str) -> None:
    """TQ_SYSTEM cannot refer to a directory outside the directory of systems."""
    base_of(shared).mkdir(mode=0o700)
    with plant(shared / "default"):
        done = run(shared, "/usr/bin/env", f"TQ_SYSTEM={name}", executable("tq"), "ls")
    assert done.returncode == 1
    assert "is no name of a system" in done.stderr


@as_root
@pytest.mark.parametrize("who", ["base", "system"])
def test_a_directory_of_another_user_is_not_used(shared: Path, who: str) -> None:
    """Its creator can read the token in it, and change what its handle refers to."""
    base = base_of(shared)
    base.mkdir(mode=0o700)
    (base / "default").mkdir(mode=0o700)
    path = base if who == "base" else base / "default"
    os.chown(path, OTHER, OTHER)
    for command in (
        (executable("tq"), "ls"),
        (executable("tq"), "serve", *SMALL),
        attach(),
        (sys.executable, "-c", "import transferq; transferq.init()"),
    ):
        done = run(shared, *command)
        assert done.returncode == 1, (command, done.stderr)
        assert f"{path} belongs to another user (uid {OTHER}, this one is 0)" in done.stderr
    assert [entry.name for entry in base.rglob("*")] == ["default"]


def test_a_directory_that_is_open_to_others_is_not_used(shared: Path) -> None:
    """A mode that lets others in is reported, with the remedy."""
    base_of(shared).mkdir()
    base_of(shared).chmod(0o755)
    for command in ((executable("tq"), "ls"), (executable("tq"), "serve", *SMALL), attach()):
        done = run(shared, *command)
        assert_refused(done, base_of(shared))
        assert "(mode 0755) and is not used: it must have mode 0700; " in done.stderr
        assert f"chmod 700 {base_of(shared)}" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_directory_that_is_swapped_for_a_link(
    shared: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """When it ends, a daemon, or the next one, removes its files where it made them, and nothing behind a link."""
    victim = shared / "victim"
    (victim / "default").mkdir(parents=True, mode=0o700)
    victim.chmod(0o700)
    for name in ("token", "handle.json", "controller.sock", "unit-0.sock", "thesis.tex"):
        (victim / "default" / name).write_text("precious")
    daemon = start(base_of(shared) / "default", tmp_path / "log", shared)
    assert daemon.answer == "ready", daemon.log.read_text()
    base_of(shared).rename(shared / "moved")
    base_of(shared).symlink_to(victim)
    daemon.process.send_signal(how)
    daemon.process.wait(30)
    if how == signal.SIGKILL:
        assert_refused(run(shared, executable("tq"), "serve", *SMALL), base_of(shared))
    else:
        assert list((shared / "moved" / "default").iterdir()) == []
    assert {path.read_text() for path in (victim / "default").iterdir()} == {"precious"}
    assert len(list((victim / "default").iterdir())) == 5


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    """A daemon removes only what daemons make: when it ends, and what a killed one left."""
    run_dir = tmp_path / "run"
    start(run_dir, tmp_path / "first").kill()
    left = {path.name for path in run_dir.iterdir()}
    assert {"handle.json", "token", "controller.sock", "unit-0.sock", "unit-1.sock"} <= left
    for name in ("unit-7.sock", "token.new-00ff", "secret"):
        (run_dir / name).touch()
    for name in ("notes", "unit-x.sock", "token.new-notes", "handle.json.old"):
        (run_dir / name).write_text("mine")
    second = start(run_dir, tmp_path / "second")
    assert second.answer == "ready"
    now = {path.name for path in run_dir.iterdir()}
    assert second.terminate() == 0
    assert not now & {"unit-7.sock", "token.new-00ff", "secret"}
    assert {path.name for path in run_dir.iterdir()} == {
        "notes",
        "unit-x.sock",
        "token.new-notes",
        "handle.json.old",
    }
    assert f"cannot remove {run_dir}: Directory not empty" in (tmp_path / "second").read_text()


def test_a_handle_that_is_a_fifo_is_not_waited_for(shared: Path) -> None:
    """Anything but a regular file is refused at once."""
    (base_of(shared) / "default").mkdir(parents=True, mode=0o700)
    base_of(shared).chmod(0o700)
    os.mkfifo(base_of(shared) / "default" / "handle.json", 0o600)
    done = run(shared, executable("tq"), "ls")
    assert done.returncode == 1
    assert "handle.json is not a file" in done.stderr
    assert run(shared, *attach()).returncode == 1
