"""How things end, and what the remaining processes learn of it: an owner that closes, a daemon or unit that is killed, a
system that is restarted under its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import transferq
from support.daemons import System, wait_exit
from support.runtime import own_runtime
from support.threads import in_thread
from support.waiting import wait_event, wait_until, wait_waiting

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = os.environ["TQ_TEST_BUILD"]
SMALL = ["backend.SimpleStorage.total_storage_size=64MiB"]

HEAD = f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(ROOT / "tests")!r})
import transferq
from support.waiting import wait_waiting
client = transferq.TransferQueueClient(sys.argv[1], transferq.ControllerInfo(os.environ["TQ_ADDRESS"], os.environ["TQ_TOKEN_FILE"]))
def say(*words):
    print(*words, flush=True)
"""


def other_process(system: System, name: str, body: str, **options: Any) -> subprocess.Popen[str]:
    """Another process with a client of this name."""
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + body, name],
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
    """A client that closes is reported as `leave`; one whose process is killed as `died`."""
    watcher = running.client("watcher")
    process = other_process(running, "worker", f"say('here'); {end}")
    process.communicate(timeout=60)
    ended = wait_event(
        watcher,
        lambda event: event["session"] == "worker" and event["kind"] not in ("join", "owner"),
    )
    assert ended["kind"] == kind


def test_events_tell_who_has_gone_silent(system: System) -> None:
    """A client from which nothing is heard for the grace time, over a connection that shows nothing of its process."""
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


# --- systems that end cleanly ---------------------------------------------------------------------


AT_ONCE = 4.0
"""Seconds: less than the five for which a call looks for a next run if the system did not announce its end."""


def ended_within(seconds: float, call: Callable[[], Any]) -> transferq.SystemEndedError:
    """The error of a call ended by the system's end, which must come within this time."""
    begin = time.monotonic()
    with pytest.raises(transferq.SystemEndedError) as caught:
        call()
    assert time.monotonic() - begin < seconds
    return caught.value


WAITING = """
def wait(client):
    client.get_meta(["never"], 1, "p", task_name="t", timeout=60)
thread = threading.Thread(target=lambda: say(caught(lambda: wait(client))))
def caught(call):
    begin = time.monotonic()
    try:
        call()
    except transferq.TransferQueueError as error:
        return f"{type(error).__name__} {time.monotonic() - begin:.1f} {error}"
    return "no error"

thread.start()
wait_waiting(client)
say("waits")
thread.join()
"""
"""Waits for a claim in a thread, reports that, and reports the outcome."""


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_daemon_that_ends_says_goodbye_and_calls_end_at_once(
    running: System, signal_number: signal.Signals
) -> None:
    """A waiting claim ends at once with the reason; later calls fail at once; nothing is printed."""
    process = other_process(
        running,
        "worker",
        WAITING
        + """
say(caught(lambda: client.get_partition_list()))
say(caught(lambda: client.put({"x": [1, 2]}, partition_id="p")))
""",
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    begin = time.monotonic()
    running.daemons[0].process.send_signal(signal_number)
    output, printed = process.communicate(timeout=60)
    assert time.monotonic() - begin < 5
    assert printed == ""
    lines = output.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("SystemEndedError ")
        assert signal_number.name in line
        assert "system 'default'" in line
        assert "init()" in line
    assert all(float(line.split()[1]) < 1 for line in lines[1:])
    assert running.daemons[0].process.wait(30) == 0


def test_an_end_in_order_ends_all_kinds_of_waiting_calls(running: System) -> None:
    """A claim, a put waiting for room and an asyncio claim end at once, all with an UnreachableError too."""
    client = running.client()
    big = {"x": np.zeros((1, 13 << 20), dtype=np.float32)}
    meta = client.put(big, partition_id="p")
    calls = [
        in_thread(lambda: client.get_meta(["y"], 1, "p", task_name="t")),
        in_thread(lambda: client.put(big, partition_id="q")),
        in_thread(
            lambda: asyncio.run(client.async_get_meta(["y"], 1, "p", task_name="u"))  # type: ignore[arg-type]
        ),
    ]
    wait_waiting(client, 2)
    assert not any(call.done() for call in calls)
    # The put was sent to the unit before these, so it is waiting there by now.
    assert client.get_data(meta)["x"].numel() == 13 << 20
    begin = time.monotonic()
    running.daemons[0].terminate()
    for call in calls:
        assert isinstance(call.exception(timeout=5), transferq.SystemEndedError), call
        assert isinstance(call.exception(), transferq.errors.UnreachableError)
    assert time.monotonic() - begin < 5
    ended_within(AT_ONCE, client.get_partition_list)


def test_a_forked_child_hears_of_the_end_that_its_parent_heard_of(running: System) -> None:
    client = running.client()
    running.daemons[0].terminate()
    ended_within(AT_ONCE, client.get_partition_list)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ended_within(AT_ONCE, client.get_partition_list)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_client_that_is_stopped_does_not_hold_up_the_end(running: System) -> None:
    """A stopped client (SIGSTOP) takes no notice; the daemon still ends, and the client learns of it when it continues."""
    process = other_process(
        running,
        "worker",
        WAITING,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    assert running.daemons[0].terminate() == 0
    assert time.monotonic() - begin < 5
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert output.startswith("SystemEndedError ")


CROWD = 8192
TOLD_WITHIN = 10.0
"""Seconds from the signal until the last client knows; the daemon allows 2 s for notices; two cores serve both sides."""


@pytest.mark.slow
def test_a_goodbye_reaches_thousands_of_clients(running: System) -> None:
    """Each of them waits for something, and each learns that the system has ended, not just that a connection broke."""
    with subprocess.Popen(
        [str(Path(BUILD) / "tests" / "field" / "field_crowd"), str(CROWD)],
        env=running.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as crowd:
        assert crowd.stdout is not None
        assert crowd.stdout.readline() == "open\n"
        begin = time.monotonic()
        running.daemons[0].process.send_signal(signal.SIGTERM)
        told = crowd.stdout.read()
        took = time.monotonic() - begin
        assert told == f"TQ_EENDED {CROWD}\n"
        assert took < TOLD_WITHIN
    assert crowd.returncode == 0
    assert running.daemons[0].process.wait(TOLD_WITHIN) == 0


# --- restarts by a supervisor -----------------------------------------------------------------------


def test_calls_wait_while_a_daemon_is_started_again(system: System) -> None:
    """SIGUSR1 announces that it comes back: nothing fails, and units and clients reconnect by themselves."""
    token = system.folder / "secret"
    token.write_text("0123456789abcdef")
    system.start(f"--token-file={token}", role="controller")
    system.join("--listen", "tcp:127.0.0.1:0", name="far", settings=SMALL)
    client = system.client()
    client.put({"x": np.arange(4)}, partition_id="p")
    waiting = in_thread(lambda: client.get_events(since=2**63 - 1, wait=True, timeout=60))
    system.daemons[0].process.send_signal(signal.SIGUSR1)
    assert system.daemons[0].process.wait(30) == 0
    assert not waiting.done()
    system.start(f"--token-file={token}", role="controller")

    # The call may reach the new controller after all events of its start; then it waits for the next one.
    def another() -> bool:
        system.client("another").close()
        return waiting.done()

    wait_until("the event of another client", another, seconds=30)
    assert waiting.result(timeout=0)
    put = in_thread(lambda: client.put({"x": np.arange(4)}, partition_id="p"))
    assert put.result(timeout=30).size == 4


def test_clients_and_units_find_the_next_run_after_an_end(system: System) -> None:
    """After SIGTERM calls fail; once another run serves at the address, with the same token, they work again."""
    token = system.folder / "secret"
    token.write_text("0123456789abcdef")
    system.start(f"--token-file={token}", role="controller")
    system.join("--listen", "tcp:127.0.0.1:0", name="far", settings=SMALL)
    client = system.client()
    client.put({"x": np.arange(4)}, partition_id="p")
    system.daemons[0].terminate()
    ended_within(AT_ONCE, client.get_partition_list)
    system.start(f"--token-file={token}", role="controller")
    assert client.get_partition_list() == []
    assert client.put({"x": np.arange(4)}, partition_id="p").size == 4


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_unit_reads_its_token_file_again(system: System, end: str) -> None:
    """The controller is restarted with a new secret in the same file: units join it, and new clients reach them."""
    token = system.folder / "secret"
    token.write_text("0123456789abcdef")
    system.token_file = str(token)
    system.start(f"--token-file={token}", role="controller")
    unit = system.join("--listen", "tcp:127.0.0.1:0", name="far", settings=SMALL)
    system.client("before").put({"x": np.arange(4)}, partition_id="p")
    getattr(system.daemons[0], end)()
    token.write_text("another secret of the next run")
    system.start(f"--token-file={token}", role="controller")
    client = system.client("after")
    meta = client.put({"x": np.arange(4)}, partition_id="p")
    assert client.get_data(meta)["x"].tolist() == [0, 1, 2, 3]
    assert f"token file '{token}' has another token now" in unit.log.read_text()


@pytest.mark.parametrize("zero_copy", [False, True])
def test_nothing_is_read_of_a_system_that_has_ended(system: System, zero_copy: bool) -> None:
    """Known metadata refers to memory that is still mapped; every call fails nevertheless."""
    system.start(settings=SMALL)
    client = system.client()
    meta = client.put({"x": np.arange(40_000)}, partition_id="p")
    assert len(client.get_data(meta, zero_copy=zero_copy)["x"]) == 40_000
    waiting = in_thread(lambda: client.get_events(since=2**63 - 1, wait=True, timeout=60))
    system.daemons[0].terminate()
    assert isinstance(waiting.exception(30), transferq.SystemEndedError)
    for call in (
        lambda: client.get_data(meta, zero_copy=zero_copy),
        lambda: client.get_data(meta.select_samples([3])),
        lambda: client.put({"y": np.arange(40_000)}, metadata=meta),
        lambda: client.put({"x": np.arange(4)}, partition_id="q"),
        lambda: client.clear_samples(meta),
    ):
        ended_within(AT_ONCE, call)


def test_stale_metadata_says_that_the_controller_was_restarted(system: System) -> None:
    token = system.folder / "secret"
    token.write_text("0123456789abcdef")
    system.start(f"--token-file={token}", settings=SMALL)
    client = system.client()
    meta = client.put({"x": np.arange(4)}, partition_id="p")
    system.daemons[0].terminate()
    system.start(f"--token-file={token}", settings=SMALL)
    year = time.strftime("%Y-")
    said = (
        rf"the controller was restarted at {year}[-0-9: ]+, and what was stored before that is gone"
    )
    for call in (
        lambda: client.put({"y": np.arange(4)}, metadata=meta),
        lambda: client.get_data(meta),
    ):
        with pytest.raises(transferq.errors.StaleError, match=said):
            call()


# --- another system with the same name ------------------------------------------------------------

OWNER = """
import os, sys
import transferq
transferq.init({"backend": {"SimpleStorage": {"total_storage_size": "64MiB", "num_data_storage_units": 1}},
          "controller": {"listen": os.environ.get("LISTEN") or None}})
print(transferq.get_client()._info.address, transferq.get_client()._info.token_file, flush=True)
sys.stdin.read()
transferq.close()
"""


class Owner:
    """A process that starts the system `default` of this runtime directory."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.address, self.token_file = self.process.stdout.readline().split()
        handle = transferq._impl.system.find("default")
        assert handle is not None
        self.daemon = handle.pid

    def close(self) -> str:
        """Close its system; returns the output of the process and its daemon."""
        printed = self.process.communicate(timeout=60)[1]
        assert self.process.returncode == 0
        return printed

    def kill(self) -> None:
        """Kill it and its daemon, with kill -9."""
        for pid in (self.daemon, self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=60)
        wait_exit(self.daemon)


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Leaves the system in the end; called with the environment by which this process finds it."""
    with own_runtime():

        def attach(**variables: str) -> None:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            transferq.init(attach=True)

        yield attach
        transferq.close()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["close", "kill"])
def test_init_attaches_to_the_next_system_of_the_name(
    attached: Callable[..., None], end: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker whose system was closed, or killed, learns that it ended; init() attaches to the next one."""
    first = Owner()
    attached()
    worker = transferq.get_client()
    transferq.kv_put("a", "p", {"x": torch.ones(2)})
    getattr(first, end)()
    if end == "close":
        said = ended_within(AT_ONCE, lambda: transferq.kv_put("b", "p", {"x": torch.ones(2)}))
        assert "system 'default'" in str(said)
        assert capfd.readouterr().err == ""
    second = Owner()
    for _ in range(5):
        said = ended_within(2, lambda: transferq.kv_put("b", "p", {"x": torch.ones(2)}))
        assert "another one of that name" in str(said)
        assert time.strftime(" since %Y-") in str(said)
        assert "init()" in str(said)
    transferq.init(attach=True)
    assert transferq.get_client() is not worker
    transferq.kv_put("b", "p", {"x": torch.ones(2)})
    assert transferq.kv_batch_get(["b"], "p")["x"][0].tolist() == [1.0, 1.0]
    assert transferq.init(attach=True)["address"] == second.address
    # Controller and unit reported it once each, not for each call.
    assert second.close().count("refused") <= 2
    err = capfd.readouterr().err
    assert err.count("\n") <= (6 if end == "kill" else 1), err


@pytest.mark.slow
def test_init_attaches_to_the_next_system_at_an_address(attached: Callable[..., None]) -> None:
    """The same for TQ_ADDRESS over TCP: the next system has the same address, and a different token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"tcp:127.0.0.1:{free.getsockname()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISTEN", listen)
        first = Owner()
        copy = Path(os.environ["XDG_RUNTIME_DIR"], "copied-token")
        copy.write_text(Path(first.token_file).read_text("ascii"), "ascii")
        attached(TQ_ADDRESS=listen, TQ_TOKEN_FILE=str(copy))
        transferq.kv_put("a", "p", {"x": torch.ones(2)})
        first.kill()
        patch.delenv("TQ_ADDRESS")
        second = Owner()
    said = ended_within(5, lambda: transferq.kv_put("b", "p", {"x": torch.ones(2)}))
    assert f"another one, with another token, answers at {listen}" in str(said)
    copy.write_text(Path(second.token_file).read_text("ascii"), "ascii")
    transferq.init(attach=True)
    transferq.kv_put("b", "p", {"x": torch.ones(2)})
    second.close()


@pytest.mark.slow
def test_init_starts_a_system_when_its_own_was_killed() -> None:
    """An owner whose daemon was killed has a new one after init()."""
    with own_runtime():
        conf = {"backend": {"SimpleStorage": {"total_storage_size": "64MiB"}}}
        transferq.init(conf)
        try:
            handle = transferq._impl.system.find("default")
            assert handle is not None
            os.kill(handle.pid, signal.SIGKILL)
            transferq.init(conf)
            transferq.kv_put("a", "p", {"x": torch.ones(2)})
            again = transferq._impl.system.find("default")
            assert again is not None
            assert again.pid != handle.pid
        finally:
            transferq.close()


@pytest.mark.slow
def test_a_dataset_ends_with_its_system(attached: Callable[..., None]) -> None:
    """An iterator waiting for a batch ends at once."""
    owner = Owner()
    attached()
    dataset = transferq.StreamingDataset(
        config=transferq.get_client().config,
        batch_size=4,
        micro_batch_size=4,
        data_fields=["x"],
        partition_id="p",
        task_name="t",
        dp_rank=0,
    )
    waiting = in_thread(lambda: next(iter(dataset)))
    wait_waiting(transferq.get_client())
    assert not waiting.done()
    owner.close()
    assert isinstance(waiting.exception(timeout=5), transferq.SystemEndedError)
