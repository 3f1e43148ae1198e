"""What the suite needs of an implementation.

A backend has its own system (controller and storage in separate processes) in a folder. `can` lists what the
suite may do to it:

    restart   its store can be killed, and comes back without its data
    pause     its store can be stopped and continued later
    fill      the size of its store can be set
    delay     a relay is in front of its store
    share     clients in other processes see its data
    collect   data left behind by a killed writer is removed
    atomic    a put of several fields is seen whole or not at all
    transport it stands for a transport of the same storage
    kv        its store is used through a client of the KV seam: one
              "in c", one in Python "by pointer" or one "by value"
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import transferq
from support.daemons import System
from support.waiting import wait_until

from .patterns import row

TESTS = Path(__file__).parents[1]
EXAMPLES = TESTS.parent / "examples" / "storage"


def built(*path: str) -> str:
    """A file of the build directory."""
    return str(Path(os.environ["TQ_TEST_BUILD"]).joinpath(*path))


class Reach(NamedTuple):
    """How another process reaches a system."""

    address: str
    token_file: str
    environment: dict[str, str]

    def client(self, name: str, timeout: float) -> transferq.TransferQueueClient:
        """A client in this process."""
        os.environ.update(self.environment)
        info = transferq.ControllerInfo(self.address, self.token_file)
        return transferq.TransferQueueClient(name, info, config={"client": {"timeout": timeout}})


class Backend:
    """A system whose data is in one kind of store."""

    title: ClassVar[str]
    type: ClassVar[str]
    can: ClassVar[frozenset[str]]
    is_process: ClassVar[bool] = True
    """Whether the store is a process that can be killed and restarted."""
    encodes: ClassVar[bool] = True
    """Whether the library encodes objects: a store of objects has its own encoding."""

    def __init__(self, folder: Path, room: int = 0, patience: int = 60) -> None:
        """Starts nothing yet; `room`: size of the store in bytes, 0 for enough.

        `patience`: seconds until a store that waits for a writer gives up on it.
        """
        self.folder = folder
        self.room = room
        self.patience = patience
        self.system = System(folder)

    def __str__(self) -> str:
        return self.title

    # --- what a backend defines -------------------------------------------------------------------

    def open_store(self) -> None:
        """Start the store."""

    def close_store(self) -> None:
        """End the store, whatever state it is in."""

    def section(self) -> dict[str, Any]:
        """The backend's section of the configuration."""
        return {}

    def register(self) -> None:
        """Import the module named by the section, as clients do."""
        importlib.import_module(self.section()["module"])

    def stored(self) -> int:
        """Amount of data in the store, in a unit of the backend; 0 if empty."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill the store (`restart`)."""
        raise NotImplementedError

    def restart(self) -> None:
        """Restart the store."""
        raise NotImplementedError

    def processes(self) -> list[int]:
        """Processes of the store (`pause`)."""
        return []

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that other processes need."""
        return {}

    # --- common to all backends -------------------------------------------------------------------

    def start(self) -> None:
        """Start store and system."""
        try:
            self.open_store()
            self.open_system()
        except BaseException:
            self.close()
            raise

    def open_system(self) -> None:
        """Start the controller, and the parts of the store that join it."""
        self.system.start(role="controller", settings=self.settings())

    def settings(self) -> list[str]:
        """Settings of the controller's daemon."""
        section = json.dumps(self.section())
        return [
            "controller.session_grace=1s",
            f"backend.storage_backend={self.type}",
            f"backend.{self.type}={section}",
        ]

    def close(self) -> None:
        """End everything."""
        self.resume()
        try:
            self.system.close()
        finally:
            self.close_store()

    @property
    def reach(self) -> Reach:
        """How to reach the system."""
        return Reach(self.system.address, self.system.token_file, self.environment)

    def client(self, name: str = "test", timeout: float = 30) -> transferq.TransferQueueClient:
        """A client in this process, closed with the backend."""
        made = self.reach.client(name, timeout)
        self.system.clients.append(made)
        return made

    def pause(self) -> None:
        """Stop the processes of the store."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the processes of the store."""
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)

    def wait_empty(self, client: transferq.TransferQueueClient) -> None:
        """Wait until the store is empty; each put makes the collector check again.

        Puts are seconds apart: a client reserves room in advance for small puts in quick succession, and returns it
        after a second without one.
        """
        again = 0.0

        def left() -> int:
            nonlocal again
            stored = self.stored()
            if stored > 0 and time.monotonic() >= again:
                client.clear_samples(client.put({"x": row(0, 1)[None]}, partition_id="wake"))
                client.clear_partition("wake")
                again = time.monotonic() + 3
            return stored

        # Data of a dead writer is removed after its deadline.
        wait_until(f"nothing to be left in {self}", left, lambda stored: stored == 0, 90)
