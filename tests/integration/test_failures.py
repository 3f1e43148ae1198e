"""Parts that die: units, the controller, clients; and what is guaranteed then, on real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.daemons import System
from support.waiting import wait_event

SMALL = ["backend.SimpleStorage.total_storage_size=64MiB"]


def script(system: System, body: str) -> subprocess.Popen[str]:
    """Another process with a client of the system; it prints `ready` when it has reached its point."""
    head = f"""
    import os, signal, sys
    sys.path.insert(0, {str(Path(__file__).parents[1])!r})
    import numpy as np
    import transferq
    from support.waiting import wait_until, wait_waiting
    client = transferq.TransferQueueClient("victim", transferq.ControllerInfo(os.environ["TQ_ADDRESS"], os.environ["TQ_TOKEN_FILE"]))
    def stop_here():
        print("ready", flush=True)
        signal.pause()
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body)],
        env=system.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_when_ready(process: subprocess.Popen[str]) -> None:
    """SIGKILL, once it has printed `ready`."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    process.stdout.close()


def test_killed_claimer_blocks_nobody(running: System) -> None:
    """A claim that waits when its process is killed takes nothing; the next one gets the samples."""
    client = running.client()
    victim = script(
        running,
        """
        import threading
        threading.Thread(target=lambda: client.get_meta(["x"], 2, "p", task_name="t"), daemon=True).start()
        wait_waiting(client)
        stop_here()
        """,
    )
    kill_when_ready(victim)
    wait_event(client, lambda event: event["kind"] == "died" and event["session"] == "victim")
    client.put({"x": np.arange(2)}, partition_id="p")
    assert client.get_meta(["x"], 2, "p", task_name="t", timeout=10).size == 2


def test_killed_writer_leaves_no_memory(running: System) -> None:
    """Blocks that were reserved and written, but never published, are freed after their process has died."""
    client = running.client()
    first = client.put({"x": np.arange(4)}, partition_id="p")
    for _ in range(5):
        victim = script(
            running,
            """
            big = {"x": np.ones((64, 65536), dtype=np.float32)}
            os.set_blocking(1, True)
            import threading
            def put():
                while True:
                    client.put(big, partition_id="q")
                    client.clear_partition("q")
            threading.Thread(target=put, daemon=True).start()
            wait_until("the partition", client.get_partition_list, lambda names: "q" in names)
            stop_here()
            """,
        )
        kill_when_ready(victim)
    client.clear_partition("q")
    client.clear_samples(first)
    # The whole store is free again: a put of nearly all of it succeeds.
    rest = {"x": np.zeros((1, 14 << 20), dtype=np.float32)}
    client.put(rest, partition_id="r")
    assert client.get_partition_list() == ["p", "r"]


def test_full_store_waits_for_room(running: System) -> None:
    """A put of new samples without room waits; later stages continue meanwhile, and a clear lets it continue."""
    client = running.client()
    small = client.put({"y": np.arange(4)}, partition_id="small")
    big = {"x": np.zeros((1, 10 << 20), dtype=np.float32)}
    first = client.put(big, partition_id="p")
    second: list[transferq.BatchMeta] = []
    thread = threading.Thread(target=lambda: second.append(client.put(big, partition_id="p")))
    thread.start()
    running.client("other").put({"z": np.arange(4)}, metadata=small)
    client.clear_samples(first)
    thread.join(30)
    assert not thread.is_alive()
    assert second[0].size == 1


def test_full_store_fails_at_the_deadline(running: System) -> None:
    """After the deadline the put fails with the right error, and leaves nothing."""
    client = running.client(client={"timeout": 1.0})
    big = {"x": np.zeros((1, 10 << 20), dtype=np.float32)}
    client.put(big, partition_id="p")
    with pytest.raises(transferq.errors.StorageFullError, match="bytes"):
        client.put(big, partition_id="q")
    assert client.get_partition_list() == ["p"]
    with pytest.raises(transferq.errors.StorageFullError):
        client.put({"x": np.zeros((1, 100 << 20), dtype=np.float32)}, partition_id="q")


@pytest.mark.slow
def test_unit_killed_and_replaced(system: System) -> None:
    """Reads from a dead unit fail within their deadline; when it comes back empty, its cells are reported lost by name;
    written again they are whole."""
    system.start(role="controller")
    unit = system.join("--listen", "tcp:127.0.0.1:0", name="left", settings=SMALL)
    client = system.client(client={"timeout": 2.0})
    meta = client.put({"x": np.arange(6).reshape(3, 2)}, partition_id="p")
    unit.kill()
    start = time.monotonic()
    with pytest.raises(
        (
            transferq.errors.UnreachableError,
            transferq.errors.TimedOutError,
            transferq.errors.LostError,
        )
    ):
        client.get_data(meta)
    assert time.monotonic() - start < 10
    system.join("--listen", "tcp:127.0.0.1:0", name="left", settings=SMALL)
    lost = wait_event(client, lambda event: event["kind"] == "lost")
    assert lost["partition"] == "p"
    assert lost["samples"] == 3
    (partition,) = system.status()["partitions"]
    assert partition["lost"] == [0, 1, 2]
    with pytest.raises(transferq.errors.LostError, match="x"):
        client.get_data(meta)
    client.put({"x": np.arange(6).reshape(3, 2) + 1}, metadata=meta)
    assert [list(row) for row in client.get_data(meta)["x"]] == [[1, 2], [3, 4], [5, 6]]
    assert system.status()["partitions"][0]["lost"] == []


def test_a_read_of_a_dead_unit_asks_with_pauses(system: System) -> None:
    """Until the unit counts as lost its reader retries, but not at full speed: with pauses of 10 ms up to 0.5 s."""
    system.start("--listen", "tcp:127.0.0.1:0", role="controller")
    system.address = next(one for one in system.address.split(",") if one.startswith("tcp:"))
    unit = system.join(name="dead", settings=SMALL)  # over TCP its death is not noticed at once
    client = system.client(client={"timeout": 2.0})
    meta = client.put({"x": np.arange(6).reshape(3, 2)}, partition_id="p")
    unit.kill()
    before = system.status()["requests"]
    with pytest.raises((transferq.errors.UnreachableError, transferq.errors.TimedOutError)):
        client.get_data(meta)
    assert system.status()["requests"] - before < 60


@pytest.mark.slow
def test_controller_restarted(system: System) -> None:
    """Calls fail within their deadline while it is down, and work again when it is back; old metadata is stale."""
    first = system.start("--listen", f"unix:{system.folder}/c.sock", role="controller")
    token = (system.runtime / "token").read_text()
    kept = system.folder / "token"
    kept.write_text(token)
    system.token_file = str(kept)
    address = f"unix:{system.folder}/c.sock"
    client = system.client(address=address, client={"timeout": 2.0})
    assert client.get_partition_list() == []
    reserved = client.get_meta(["x"], 2, "p", mode="insert")
    first.kill()
    with pytest.raises(
        (transferq.errors.UnreachableError, transferq.errors.TimedOutError), match=r"c\.sock"
    ):
        client.get_partition_list()
    system.start("--listen", address, "--token-file", str(kept), role="controller")
    assert client.get_partition_list() == []
    system.address = address
    system.join("--listen", "tcp:127.0.0.1:0", name="left", settings=SMALL)
    with pytest.raises(transferq.errors.StaleError):
        client.put({"x": np.arange(2)}, metadata=reserved)
    client.put({"x": np.arange(2)}, partition_id="p")
    assert client.get_meta(["x"], 2, "p", task_name="t").size == 2


def test_stopped_client_holds_up_nobody(running: System) -> None:
    """A client stopped (SIGSTOP) in the middle of its work does not slow the others down."""
    victim = script(
        running,
        """
        client.put({"x": np.arange(8)}, partition_id="v")
        stop_here()
        """,
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == "ready\n"
    victim.send_signal(signal.SIGSTOP)
    client = running.client()
    for _ in range(50):
        client.put({"x": np.arange(8)}, partition_id="p")
    assert client.get_meta(["x"], 400, "p", task_name="t", timeout=10).size == 400
    victim.kill()
    victim.wait()
    victim.stdout.close()
