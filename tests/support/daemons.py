"""Real daemons for tests: started, waited for (never by sleeping), killed and cleaned up."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transferq

READY_SECONDS = 30.0


def executable(name: str) -> str:
    """Path of `tq` or `tqd`: next to this Python, else on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def wait_exit(pid: int, seconds: float = READY_SECONDS) -> None:
    """Waits until a process, which need not be our child, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = select.select([descriptor], [], [], seconds)
        assert readable, f"process {pid} still runs after {seconds} s"
    finally:
        os.close(descriptor)


class Daemon:
    """One tqd process."""

    def __init__(self, role: str, *args: str, log: Path, before: Sequence[str] = ()) -> None:
        """Starts the daemon and waits until it serves; `args`: its command line; `before`: a program that starts it."""
        self.log = log
        read, write = os.pipe()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*before, executable("tqd"), role, "--ready-fd", str(write), *args],
                pass_fds=[write],
                stdout=output,
                stderr=output,
            )
        os.close(write)
        with os.fdopen(read, "r") as pipe:
            readable, _, _ = select.select([pipe], [], [], READY_SECONDS)
            self.answer = pipe.readline().strip() if readable else "no answer"

    def __repr__(self) -> str:
        return f"Daemon(pid={self.process.pid}, answer={self.answer!r})"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def stored(self) -> int:
        """Bytes of memory used by its storage units."""
        seen = {}
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            if "memfd:tq-" in os.readlink(entry):
                about = entry.stat()
                seen[about.st_ino] = about.st_blocks * 512
        return sum(seen.values())

    def seconds(self) -> float:
        """Seconds of processor time used by its threads so far."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def terminate(self) -> int:
        """Sends SIGTERM, then returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(READY_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(READY_SECONDS)

    def stop(self) -> None:
        """Ends the daemon if it is still running."""
        if self.process.poll() is None:
            self.terminate()


class System:
    """A system in a folder: everything in one daemon, or the controller and the units in separate daemons."""

    def __init__(self, folder: Path) -> None:
        """Starts nothing yet."""
        self.folder = folder
        self.runtime = folder / "run"
        self.daemons: list[Daemon] = []
        self.clients: list[transferq.TransferQueueClient] = []
        self.address = ""
        self.token_file = str(self.runtime / "token")

    def start(
        self,
        *args: str,
        role: str = "all-in-one",
        settings: Sequence[str] = (),
        before: Sequence[str] = (),
    ) -> Daemon:
        """Starts the controller's daemon."""
        options = [word for setting in settings for word in ("--set", setting)]
        daemon = Daemon(
            role,
            "--runtime-dir",
            str(self.runtime),
            *options,
            *args,
            log=self.folder / "tqd.log",
            before=before,
        )
        self.daemons.append(daemon)
        assert daemon.answer == "ready", f"{daemon}: {daemon.log.read_text()}"
        self.address = json.loads((self.runtime / "handle.json").read_text())["address"]
        return daemon

    def join(
        self, *args: str, name: str, settings: Sequence[str] = (), before: Sequence[str] = ()
    ) -> Daemon:
        """Starts a storage daemon that joins the controller; `before` as for a Daemon."""
        options = [word for setting in settings for word in ("--set", setting)]
        daemon = Daemon(
            "storage",
            "--join",
            self.address,
            "--token-file",
            self.token_file,
            "--set",
            f"storage.name={name}",
            *options,
            *args,
            log=self.folder / f"{name}.log",
            before=before,
        )
        self.daemons.append(daemon)
        assert daemon.answer == "ready", f"{daemon}: {daemon.log.read_text()}"
        return daemon

    def client(
        self, name: str = "test", address: str | None = None, **config: Any
    ) -> transferq.TransferQueueClient:
        """A new client."""
        info = transferq.ControllerInfo(address or self.address, self.token_file)
        client = transferq.TransferQueueClient(name, info, config=config)
        self.clients.append(client)
        return client

    def environment(self) -> dict[str, str]:
        """Environment for other processes of this system."""
        return {**os.environ, "TQ_ADDRESS": self.address, "TQ_TOKEN_FILE": self.token_file}

    def tq(self, *args: str, status: int = 0) -> str:
        """Runs the command line on this system; checks the exit status, returns the output."""
        done = subprocess.run(
            [executable("tq"), *args],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, (
            f"tq {args}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout if status == 0 else done.stderr

    def status(self) -> dict[str, Any]:
        """The output of `tq status --json`."""
        status: dict[str, Any] = json.loads(self.tq("status", "--json"))
        return status

    def close(self) -> None:
        """Closes clients, then stops daemons."""
        for client in self.clients:
            client.close()
        for daemon in reversed(self.daemons):
            daemon.stop()
