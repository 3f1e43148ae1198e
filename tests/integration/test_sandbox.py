"""Kernels and sandboxes that refuse system calls: there is an alternative, or a clear error, and the log says which."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.daemons import System, wait_exit

REFUSE = Path(__file__).parent.parent / "support" / "refuse.py"
SETTINGS = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]
PEER_PIDFD = 77
"""The option of getsockopt that returns a pidfd on newer kernels."""
POPULATE_WRITE = 23
"""Advice for madvise."""

pytestmark = pytest.mark.slow

BOTH = pytest.mark.parametrize("number", ["ENOSYS", "EPERM"])

WORKER = """
import sys
sys.modules["torch"] = None  # it takes seconds to import, and is not needed for this
import numpy as np
import transferq

client = transferq.TransferQueueClient("worker", transferq.ControllerInfo(*sys.argv[1:3]))
rows = np.arange(400_000, dtype=np.float32).reshape(4, 100_000)
batch = client.put({"x": rows, "n": np.arange(4)}, partition_id="p")
data = client.get_data(batch)
assert np.array_equal(np.stack(list(data["x"])), rows)
small = client.put({"m": np.arange(4)}, metadata=batch)
assert np.array_equal(np.stack(list(client.get_data(small)["m"])).ravel(), np.arange(4))
client.close()
"""


def sandbox(*calls: str) -> list[str]:
    """Prefix for a command that runs it in the sandbox."""
    return [sys.executable, str(REFUSE), *calls, "--"]


def work(system: System, *calls: str) -> str:
    """A worker in a separate sandbox puts and gets; returns its log."""
    done = subprocess.run(
        [*sandbox(*calls), sys.executable, "-c", WORKER, system.address, system.token_file],
        env={**os.environ, "TQ_LOG": "info"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    client = system.client()
    assert len(client.get_meta(["x", "n", "m"], 4, "p", task_name="t")) == 4
    client.clear_partition("p")
    return done.stderr


def log_of(system: System) -> str:
    """The daemon's log."""
    return (system.folder / "tqd.log").read_text()


def test_without_a_sandbox(running: System) -> None:
    """On one machine memory is shared, and the log says so."""
    assert "storage unit 'unit-0' is used by shared memory" in work(running)


@BOTH
def test_memfd_create(system: System, number: str) -> None:
    """A daemon without memfds shares no memory: all data goes over the stream, and both sides log why."""
    system.start(settings=SETTINGS, before=sandbox(f"memfd_create={number}"))
    reason = os.strerror(getattr(errno, number))
    assert (
        f"unit-0: memory cannot be shared here, all data goes over the stream: memfd_create: {reason}"
        in log_of(system)
    )
    said = work(system)
    assert "storage unit 'unit-0' is used over the stream, not by shared memory: " in said
    assert f"memfd_create: {reason}" in said


@BOTH
@pytest.mark.parametrize("whose", ["daemon", "both"])
def test_pidfd(system: System, number: str, whose: str) -> None:
    """A daemon that cannot watch its clients does not share writable memory with them."""
    calls = (f"getsockopt:{PEER_PIDFD}=ENOPROTOOPT", f"pidfd_open={number}")
    system.start(settings=SETTINGS, before=sandbox(*calls))
    said = work(system, *(calls if whose == "both" else ()))
    reason = os.strerror(getattr(errno, number))
    assert "storage unit 'unit-0' is used over the stream, not by shared memory: " in said
    assert f"its end cannot be watched, for there is no pidfd: {reason}" in said


@BOTH
def test_the_owner_is_watched_without_pidfd(system: System, number: str) -> None:
    """A daemon still ends with its owner, even if the owner is not reaped."""
    owner = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    daemon = system.start(
        "--parent-pid", str(owner.pid), settings=SETTINGS, before=sandbox(f"pidfd_open={number}")
    )
    assert "is looked at every" in log_of(system)
    owner.kill()  # and not waited for: it is a zombie
    wait_exit(daemon.pid)
    owner.wait()
    assert daemon.process.wait() == 0
    assert not system.runtime.exists()


def test_an_owner_that_is_gone(system: System) -> None:
    """Even without pidfd, a daemon whose owner is already gone says so."""
    owner = subprocess.Popen([sys.executable, "-c", ""])
    owner.wait()
    with pytest.raises(AssertionError, match=f"cannot watch parent process {owner.pid}"):
        system.start("--parent-pid", str(owner.pid), before=sandbox("pidfd_open=ENOSYS"))


@pytest.mark.parametrize("number", ["ENOSYS", "EPERM", "EINVAL"])
def test_madv_populate_write(system: System, number: str) -> None:
    """Warming works without it; memory is still shared."""
    system.start(settings=SETTINGS, before=sandbox(f"madvise:{POPULATE_WRITE}={number}"))
    assert "is used by shared memory" in work(system)


@BOTH
def test_all_that_only_saves_time(system: System, number: str) -> None:
    """No warming, no holes, no advice at all in daemon and client: data transfers still work."""
    calls = (f"madvise={number}", f"fallocate={number}")
    system.start(settings=SETTINGS, before=sandbox(*calls))
    said = work(system, *calls)
    # A client must be sure that its children cannot write, so it goes without the mapping.
    assert "is used over the stream, not by shared memory: MADV_DONTFORK" in said
    assert "is used by shared memory" in work(system)


def test_init_in_a_sandbox(tmp_path: Path) -> None:
    """init() in a process that is refused all of these calls: it starts a system, uses it and ends it."""
    code = """
import sys
sys.modules["torch"] = None
import numpy as np, transferq
transferq.init({"backend": {"SimpleStorage": {"total_storage_size": "64MiB"}}})
batch = transferq.get_client().put({"x": np.arange(8).reshape(4, 2)}, partition_id="p")
print(np.stack(list(transferq.get_client().get_data(batch)["x"])).tolist())
transferq.close()
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    for name in ("XDG_RUNTIME_DIR", "TQ_ADDRESS", "TQ_SYSTEM"):
        environment.pop(name, None)
    calls = [
        f"{call}=EPERM"
        for call in ("memfd_create", "pidfd_open", "fallocate", f"getsockopt:{PEER_PIDFD}")
    ]
    done = subprocess.run(
        [*sandbox(*calls), sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == np.arange(8).reshape(4, 2).tolist()
    assert list(tmp_path.iterdir()) == []
