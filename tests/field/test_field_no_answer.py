"""Systems and units that do not answer: nobody listens at the address, or what listened there was killed or is stopped."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.daemons import System
from support.threads import in_thread
from support.waiting import wait_event, wait_waiting

SMALL = ["backend.SimpleStorage.total_storage_size=64MiB"]


def test_init_fails_at_once_for_a_host_that_does_not_exist(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    begin = time.monotonic()
    with pytest.raises(transferq.errors.UnreachableError, match=r"no-such-host\.invalid.*look-up"):
        transferq.TransferQueueClient(
            "c", transferq.ControllerInfo("tcp:no-such-host.invalid:1", str(token))
        )
    assert time.monotonic() - begin < 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_init_gives_up_soon_where_nobody_listens_on_this_machine(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp:127.0.0.1:{port}" if kind == "tcp" else f"unix:{tmp_path}/nobody"
    begin = time.monotonic()
    with pytest.raises(
        transferq.errors.UnreachableError, match=r"nobody has listened there for [56]\.\d s"
    ):
        transferq.TransferQueueClient("c", transferq.ControllerInfo(address, str(token)))
    assert 4 < time.monotonic() - begin < 10
    assert capfd.readouterr().err.count("still waiting") == 1


def test_a_shorter_timeout_of_the_client_is_kept(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    begin = time.monotonic()
    with pytest.raises(transferq.errors.UnreachableError, match=r"failed for [0-9.]+ s"):
        transferq.TransferQueueClient(
            "c",
            transferq.ControllerInfo(f"unix:{tmp_path}/nobody", str(token)),
            config={"client": {"timeout": 0.3}},
        )
    assert time.monotonic() - begin < 3


@pytest.mark.slow
def test_calls_give_up_soon_after_the_daemon_was_killed(running: System) -> None:
    """kill -9 gives no notice: a call waits a short time for a next run, later ones do not wait again."""
    client = running.client()
    waiting = in_thread(lambda: client.get_meta(["never"], 1, "p", task_name="t", timeout=60))
    wait_waiting(client)
    running.daemons[0].kill()
    begin = time.monotonic()
    assert isinstance(waiting.exception(timeout=30), transferq.errors.UnreachableError)
    assert time.monotonic() - begin < 10
    begin = time.monotonic()
    with pytest.raises(transferq.errors.UnreachableError, match="nobody has listened there"):
        client.put({"x": np.arange(2)}, partition_id="p")
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_unit_that_is_gone_holds_nobody_up(system: System, end: str) -> None:
    """Its data is lost at once, and puts go to another unit; one that ends cleanly reports that without a warning."""
    system.start(role="controller")
    one = [*SMALL, "backend.SimpleStorage.num_data_storage_units=1"]
    unit = system.join("--listen", f"unix:{system.folder}/a.sock", name="first", settings=one)
    client = system.client()
    meta = client.put({"x": np.arange(4)}, partition_id="p")
    client.get_data(meta)  # imports torch, if installed
    system.join("--listen", f"unix:{system.folder}/b.sock", name="second", settings=one)
    getattr(unit, end)()
    begin = time.monotonic()
    wait_event(client, lambda event: event["kind"] == "lost")
    with pytest.raises(transferq.errors.LostError):
        client.get_data(client.get_meta(["x"], 4, "p", mode="force_fetch"))
    kept = client.put({"x": np.arange(4)}, partition_id="p")
    assert client.get_data(kept)["x"].tolist() == [0, 1, 2, 3]
    assert time.monotonic() - begin < 5
    assert meta.size == 4


def test_a_put_finds_the_unit_that_replaced_a_stopped_one(system: System) -> None:
    """The only unit hangs and keeps its connection; another one joins while a put of a field waits for it."""
    system.start(role="controller")
    one = [*SMALL, "backend.SimpleStorage.num_data_storage_units=1"]
    unit = system.join("--listen", f"unix:{system.folder}/a.sock", name="first", settings=one)
    client = system.client(client={"timeout": 60})
    meta = client.put({"x": np.arange(4)}, partition_id="p")
    os.kill(unit.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(client.put, {"y": np.ones((4, 30_000))}, metadata=meta)
            begin = time.monotonic()
            system.join("--listen", f"unix:{system.folder}/b.sock", name="second", settings=one)
            done.result(30)
            assert time.monotonic() - begin < 15
        assert (
            client.get_data(client.get_meta(["y"], 4, "p", mode="force_fetch"))["y"].sum()
            == 120_000
        )
    finally:
        os.kill(unit.pid, signal.SIGCONT)
