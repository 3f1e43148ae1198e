"""Systems in containers: process 1, meaningless process numbers, read-only folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemons import Daemon, System, executable, wait_exit

SETTINGS = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]
UNSHARE = ["unshare", "--user", "--mount", "--fork", "--kill-child"]
CONTAINER = [*UNSHARE, "--map-current-user", "--pid", "--mount-proc"]
"""Starts a program as process 1 of new namespaces, which end with this process."""
AS_ROOT = [*UNSHARE, "--map-root-user", "sh", "-c"]
"""Starts a script as root of a mount namespace."""

WORKER = """
import sys
sys.modules["torch"] = None  # it takes seconds to import, and is not needed for this
import numpy as np
import transferq

conf = transferq.init(attach=True)
batch = transferq.get_client().put({"x": np.arange(8).reshape(4, 2)}, partition_id="p")
print(np.stack(list(transferq.get_client().get_data(batch)["x"])).tolist())
transferq.close()
"""


@pytest.fixture
def system(system: System) -> Iterator[System]:
    """A system whose daemons may be in containers, where SIGTERM from outside has no effect: they are killed in the end."""
    yield system
    for client in system.clients:
        client.close()
    for daemon in system.daemons:
        if daemon.process.poll() is None:
            daemon.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a short name: unix socket paths are limited, and systems are nested deep in it."""
    with tempfile.TemporaryDirectory(prefix="tq-") as made:
        yield Path(made)


def bare_environment(folder: Path, **more: str) -> dict[str, str]:
    """Without HOME and runtime directory, as in a container."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    return {"PATH": path, "TMPDIR": str(folder), "TQ_LOG": "info", **more}


def attach(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A process of this machine that looks for a system in this temporary folder, and uses it."""
    return subprocess.run(
        [sys.executable, "-c", WORKER],
        env=bare_environment(folder, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def first_process(daemon: Daemon) -> int:
    """The number outside the container of its process 1."""
    path = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
    (child,) = path.read_text().split()
    return int(child)


def test_process_1_ends_and_leaves_nothing(system: System) -> None:
    """SIGTERM, which the kernel does not deliver to a process 1 without a handler, ends it cleanly."""
    daemon = system.start(settings=SETTINGS, before=CONTAINER)
    assert json.loads((system.runtime / "handle.json").read_text())["pid"] == 1
    os.kill(first_process(daemon), signal.SIGTERM)
    assert daemon.process.wait(30) == 0
    assert not system.runtime.exists()


def test_process_1_comes_back(system: System) -> None:
    """After SIGKILL the next daemon has the number in the handle, and takes the folder over nevertheless."""
    daemon = system.start(settings=SETTINGS, before=CONTAINER)
    inside = first_process(daemon)
    os.kill(inside, signal.SIGKILL)
    daemon.process.wait(30)
    wait_exit(inside)
    assert (system.runtime / "handle.json").exists()
    system.start(settings=SETTINGS, before=CONTAINER)
    assert system.status()["partitions"] == []


def test_a_folder_is_shared_by_containers(system: System, folder: Path) -> None:
    """A process that shares a folder with a container finds its system, although the handle's pid is another process."""
    system.runtime = folder / f"ctq-{os.geteuid()}" / "default"
    system.runtime.parent.mkdir(mode=0o700)
    system.start(settings=SETTINGS, before=CONTAINER)
    done = attach(folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert "over the stream, not by shared memory: " in done.stderr
    assert "it runs in another pid namespace, where its end is not seen" in done.stderr
    second = Daemon(
        "all-in-one", "--runtime-dir", str(system.runtime), log=system.folder / "second.log"
    )
    assert second.process.wait(30) == 1
    assert "belongs to a running system" in second.answer


def test_the_handle_has_the_token_that_was_given(system: System, folder: Path) -> None:
    """A system with the user's own secret is found and attached to through its handle."""
    (folder / "token").write_text("a secret\n")
    system.runtime = folder / f"ctq-{os.geteuid()}" / "default"
    system.runtime.parent.mkdir(mode=0o700)
    system.start("--token-file", str(folder / "token"), settings=SETTINGS)
    handle = json.loads((system.runtime / "handle.json").read_text())
    assert Path(handle["token_file"]).read_text() == "a secret\n"
    done = attach(folder)
    assert done.returncode == 0, done.stderr


def test_a_runtime_directory_of_somebody_else(system: System, folder: Path) -> None:
    """A nonexistent XDG_RUNTIME_DIR is ignored."""
    system.runtime = folder / f"ctq-{os.geteuid()}" / "default"
    system.runtime.parent.mkdir(mode=0o700)
    system.start(settings=SETTINGS)
    done = attach(folder, XDG_RUNTIME_DIR=f"{folder}/none")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", ["init", "serve"])
def test_nothing_can_be_written(tmp_path: Path, program: str) -> None:
    """Without a folder to write to, the error names it; init() says what to set."""
    command = {
        "init": [sys.executable, "-c", "import transferq; transferq.init()"],
        "serve": [executable("tq"), "serve"],
    }[program]
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    done = subprocess.run(
        [*AS_ROOT, script, str(tmp_path), *command],
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"{tmp_path}/ctq-0: Read-only file system" in done.stderr
    assert program == "serve" or "set XDG_RUNTIME_DIR or TMPDIR" in done.stderr


def test_only_tcp_needs_no_folder(tmp_path: Path) -> None:
    """A daemon with a token and endpoints writes nothing at all: a read-only root is enough."""
    token = tmp_path / "token"
    token.write_text("a secret")
    script = 'mount -o remount,bind,ro / && mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    daemon = Daemon(
        "all-in-one",
        "--listen=tcp:127.0.0.1:0",
        f"--token-file={token}",
        *(f"--set={one}" for one in SETTINGS),
        log=tmp_path / "log",
        before=[*AS_ROOT, script, str(tmp_path)],
    )
    try:
        assert daemon.answer == "ready", (tmp_path / "log").read_text()
        line = next(
            one for one in (tmp_path / "log").read_text().splitlines() if " serves at " in one
        )
        done = attach(tmp_path, TQ_ADDRESS=line.split(" serves at ")[1], TQ_TOKEN_FILE=str(token))
        assert done.returncode == 0, done.stderr
        assert "over the stream, not by shared memory: it has no unix socket" in done.stderr
    finally:
        os.kill(first_process(daemon), signal.SIGTERM)
        daemon.process.wait(30)
