"""How things end, and what those who are left hear of it: an owner that closes, a daemon or unit that is killed, a
system that is started again under its name.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from support.daemons import System
from support.waiting import wait_event

HEAD = """
import os, signal, sys, threading, time
import ctq
client = ctq.TransferQueueClient(sys.argv[1], ctq.ControllerInfo(os.environ["TQ_ADDRESS"], os.environ["TQ_TOKEN_FILE"]))
def say(*words):
    print(*words, flush=True)
"""


def other_process(system: System, name: str, body: str, **options: Any) -> subprocess.Popen[str]:
    """Another process with a client of that name."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HEAD) + textwrap.dedent(body), name],
        env=system.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    ("end", "kind"),
    [("client.close()", "leave"), ("os.kill(os.getpid(), signal.SIGKILL)", "died")],
)
def test_events_tell_a_goodbye_from_a_death(running: System, end: str, kind: str) -> None:
    """A client that closes leaves; one whose process is killed has died."""
    watcher = running.client("watcher")
    process = other_process(running, "worker", f"say('here'); {end}")
    process.communicate(timeout=60)
    ended = wait_event(
        watcher,
        lambda event: event["session"] == "worker" and event["kind"] not in ("join", "owner"),
    )
    assert ended["kind"] == kind


def test_events_tell_who_has_gone_silent(system: System) -> None:
    """A client that is not heard of for the grace time, over a connection that says nothing of its process."""
    system.start(
        "--set=controller.listen=tcp:127.0.0.1:0",
        "--set=controller.session_grace=0.2",
        "--set=storage.listen=tcp:127.0.0.1:0",
        settings=["backend.SimpleStorage.total_storage_size=64MiB"],
    )
    watcher = system.client("watcher")
    system.address = next(at for at in system.address.split(",") if at.startswith("tcp:"))
    process = other_process(system, "worker", "say('here'); os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    ended = wait_event(
        watcher, lambda event: event["session"] == "worker" and event["kind"] != "join"
    )
    assert ended["kind"] == "silent"
