"""The size of the storage, and what is left in it when a system ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.addresses import free_ports
from support.cgroups import NoGroups, limited
from support.daemons import System
from support.mooncake_servers import MooncakeMaster
from support.redis_servers import RedisServer
from support.runtime import own_runtime
from transferq.storage.mooncake import MooncakeClient


def test_storage_is_sized_by_the_limit_of_the_control_group(system: System) -> None:
    """A quarter of the pod's limit, not of its host's memory; the log says how much, and of what."""
    with ExitStack() as stack:
        try:
            before = stack.enter_context(limited(512 << 20, f"tq-test-{os.getpid()}"))
        except NoGroups as error:
            pytest.skip(f"the kernel does not let this user make control groups: {error}")
        stack.callback(system.close)  # a group that contains a process cannot be removed
        system.start(before=before)
        owners = system.client().status()["owners"]
        log = (system.folder / "tqd.log").read_text()
    assert [owner["capacity_bytes"] for owner in owners] == [64 << 20, 64 << 20]
    assert "storage: 2 x 64.0 MiB (25 % of 512.0 MiB, the cgroup's limit)" in log


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A user's own server."""
    made = RedisServer(tmp_path / "redis", free_ports(1)[0])
    yield made
    made.stop()


def fill(system: System, server: RedisServer) -> transferq.TransferQueueClient:
    """Start a system on the server, and store 102 values."""
    system.start(
        settings=["backend.storage_backend=Redis", f'backend.Redis={{url: "{server.url}"}}']
    )
    client = system.client()
    for row in range(102):
        client.put({"x": np.full((1, 5000), row)}, partition_id="p")
    assert server.values() == 102
    return client


def test_a_clean_end_removes_what_was_stored_in_a_redis_of_the_users_own(
    system: System, server: RedisServer
) -> None:
    """SIGTERM while a client is attached: nothing is left in the server, and the log says so."""
    fill(system, server)
    assert system.daemons[0].terminate() == 0
    assert server.ask("KEYS", "*") == ""
    assert "removed 102 values of this system from Redis" in system.daemons[0].log.read_text()


def test_close_removes_what_was_stored_in_a_redis_of_the_users_own(server: RedisServer) -> None:
    """The owner's close() removes it too; another program's data there stays."""
    server.ask("SET", "mine", "1")
    with own_runtime():
        transferq.init({"backend": {"storage_backend": "Redis", "Redis": {"url": server.url}}})
        transferq.kv_batch_put([str(i) for i in range(50)], "p", {"x": np.zeros((50, 100))})
        assert server.values() > 1
        transferq.close()
    assert server.ask("KEYS", "*") == "mine"


def test_what_stays_in_a_store_is_named_in_the_log(system: System, server: RedisServer) -> None:
    """With the amount, if the store no longer answers."""
    fill(system, server)
    server.process.kill()
    server.process.wait()
    assert system.daemons[0].terminate() == 0
    log = system.daemons[0].log.read_text()
    assert "not all values of this system could be removed from Redis: 0 removed, there were" in log
    assert "there were 102 blocks with " in log


def test_data_that_a_checkpoint_refers_to_stays(
    system: System, server: RedisServer, tmp_path: Path
) -> None:
    """After a checkpoint without data, the next system that loads it reads the values from where they are."""
    client = fill(system, server)
    client.save_checkpoint(tmp_path / "ck", include_storage=False)
    client.close()
    assert system.daemons[0].terminate() == 0
    assert server.values() == 102
    assert "a checkpoint without data refers to them" in system.daemons[0].log.read_text()


# --- stores accessed only by clients --------------------------------------------------------------


@pytest.fixture
def master() -> Iterator[MooncakeMaster]:
    """A user's own Mooncake."""
    pytest.importorskip("mooncake")
    made = MooncakeMaster(64 << 20)
    yield made
    made.stop()


def mooncake(master: MooncakeMaster) -> dict[str, object]:
    """The section of a client that stores no data itself."""
    return {"master_server_address": master.address, "global_segment_size": 0}


def fill_mooncake(system: System, master: MooncakeMaster) -> transferq.TransferQueueClient:
    """Start a system on the master, and store 20 values, beside one of another program."""
    system.start(
        settings=[
            "backend.storage_backend=MooncakeStore",
            f"backend.MooncakeStore={json.dumps(mooncake(master))}",
        ]
    )
    client = system.client()
    for row in range(20):
        client.put({"x": np.full((1, 5000), row)}, partition_id="p")
    assert master.keys() == 20
    return client


@pytest.mark.slow
def test_a_clean_end_removes_what_was_stored_in_a_mooncake_of_the_users_own(
    system: System, master: MooncakeMaster
) -> None:
    """SIGTERM while a client is attached: the client removes the data, and learns that the system has ended."""
    client = fill_mooncake(system, master)
    assert system.daemons[0].terminate() == 0
    assert master.keys() == 0
    assert "the clients have removed 20 blocks" in system.daemons[0].log.read_text()
    with pytest.raises(transferq.SystemEndedError):
        client.get_partition_list()


@pytest.mark.slow
def test_close_removes_what_was_stored_in_a_mooncake_of_the_users_own(
    master: MooncakeMaster, capfd: pytest.CaptureFixture[str]
) -> None:
    """The owner's close() removes it too; another program's data there stays."""
    other = MooncakeClient(mooncake(master))
    text = np.frombuffer(b"mine", np.uint8)
    other.put_from(["tq/mine"], [[text.ctypes.data]], [[4]])
    try:
        with own_runtime():
            transferq.init(
                {"backend": {"storage_backend": "MooncakeStore", "MooncakeStore": mooncake(master)}}
            )
            transferq.kv_batch_put([str(i) for i in range(50)], "p", {"x": np.zeros((50, 100))})
            assert master.keys() > 1
            transferq.close()
        assert master.keys() == 1
        assert "stay in MooncakeStore" not in capfd.readouterr().err
    finally:
        other.close()


@pytest.mark.slow
def test_what_stays_in_a_store_without_clients_is_named_in_the_log(
    system: System, master: MooncakeMaster
) -> None:
    """The amount, and the keys."""
    client = fill_mooncake(system, master)
    epoch = client._core.epoch
    client.close()
    assert system.daemons[0].terminate() == 0
    assert master.keys() == 20
    log = system.daemons[0].log.read_text()
    assert "20 of 20 blocks with 800000 bytes of this system stay in MooncakeStore" in log
    assert f"under the keys tq/{epoch:016x}/" in log


@pytest.mark.slow
def test_data_in_a_mooncake_that_a_checkpoint_refers_to_stays(
    system: System, master: MooncakeMaster, tmp_path: Path
) -> None:
    """As in any store, with a client attached."""
    client = fill_mooncake(system, master)
    client.save_checkpoint(tmp_path / "ck", include_storage=False)
    assert system.daemons[0].terminate() == 0
    assert master.keys() == 20
    assert "a checkpoint without data refers to them" in system.daemons[0].log.read_text()


@pytest.mark.slow
def test_a_clean_end_waits_only_so_long_for_a_client_that_stands_still(
    system: System, master: MooncakeMaster
) -> None:
    """The client that removes the data may be stopped; the system still ends, and the log names what stays."""
    fill_mooncake(system, master).close()
    stopped = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import transferq, os, signal; transferq.init(); print('there', flush=True); signal.pause()",
        ],
        env=system.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "there\n"
        stopped.send_signal(signal.SIGSTOP)
        assert system.daemons[0].terminate() == 0
    finally:
        stopped.kill()
        stopped.wait()
    assert "20 of 20 blocks" in system.daemons[0].log.read_text()
