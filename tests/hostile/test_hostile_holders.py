"""What a broken or hostile client with the token can do to others; and a stranger with many sockets."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from holder import EINVAL, ESTALE, Holder, data, fields, memory, number
from limits import (
    ACK,
    CLAIM,
    LIST_PARTITIONS,
    PUBLISH,
    RESERVE,
    RESTORE_PART,
    SMALL,
    SNAPSHOT,
    SNAPSHOT_READ,
    force_fetch,
    name_of,
    reserve,
    wait_line,
)
from tensordict import TensorDict

import transferq
from support.daemons import System
from transferq._impl.calls import run

RESOLVE = 20
MIB = 1 << 20


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system for a test to start."""
    made = System(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many open files as the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def tcp_of(address: str) -> str:
    """The TCP endpoint in a list."""
    return next(one for one in address.split(",") if one.startswith("tcp:"))


@pytest.mark.usefixtures("many_descriptors")
def test_silent_connections_of_a_stranger_do_not_keep_a_client_out(system: System) -> None:
    # Descriptors for 2,000 connections, and three times that many sockets of a stranger.
    system.start(
        "--listen",
        "tcp:127.0.0.1:0",
        settings=SMALL,
        before=["prlimit", "--nofile=2000:2000"],
    )
    address = tcp_of(system.address)
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    with ExitStack() as strangers:
        for _ in range(6000):
            strangers.enter_context(socket.create_connection((host, int(port)), 10))
        # Faster than the time a silent connection has to greet: the server did not wait for any of the others to time out.
        with Holder(address, system.token_file, 5) as client:
            assert not client.call(LIST_PARTITIONS).failed


def test_decoding_does_not_blow_a_request_up(system: System) -> None:
    daemon = system.start(settings=SMALL)
    # 30 million empty tags: two bytes each on the wire, and without a budget 94 times that in memory.
    body = data(1, b"\x3a\x00" * 30_000_000)
    with Holder(system.address.split(",")[0], system.token_file) as holder:
        before = memory(daemon.pid)
        answer = holder.call(PUBLISH, body)
        taken = memory(daemon.pid, "VmHWM") - before
        print(f"a request of {len(body) / MIB:.0f} MiB took {taken / MIB:.0f} MiB at most")
        assert answer.code == EINVAL
        assert "would take more than" in answer.message
        assert taken < 10 * len(body) + 160 * MIB
        assert not holder.call(LIST_PARTITIONS).failed
    assert memory(daemon.pid) - before < 100 * MIB


def test_answers_that_are_not_read_stop_the_questions(system: System) -> None:
    daemon = system.start(settings=SMALL)
    address = system.address.split(",")[0]
    with Holder(address, system.token_file) as deaf, Holder(address, system.token_file) as other:
        for index in range(1000):
            assert not deaf.call(RESERVE, reserve(name_of(index), 1)).failed
        before = memory(daemon.pid)
        # Lists of a megabyte each, none of them read: up to 800, or until the server takes no more requests.
        deaf.raw.setblocking(False)
        sent = refused = 0
        while sent < 800 and refused < 20:
            try:
                deaf.send(LIST_PARTITIONS)
                sent += 1
            except BlockingIOError:
                refused += 1
            assert not other.call(RESOLVE, data(1, name_of(1))).failed
        taken = memory(daemon.pid, "VmHWM") - before
        print(f"{sent} lists of 1 MB that are not read took {taken / MIB:.0f} MiB at most")
        assert taken < 64 * MIB
        # All of them arrive once they are read.
        deaf.raw.settimeout(30)
        for _ in range(sent):
            assert len(deaf.receive().body) > 1_000_000
        assert not deaf.call(LIST_PARTITIONS).failed


def test_replies_that_are_not_acknowledged_are_bounded(system: System) -> None:
    daemon = system.start(settings=[*SMALL, "limits.kept_reply_bytes=64MiB"])
    with Holder(system.address.split(",")[0], system.token_file) as holder:
        assert not holder.call(RESERVE, reserve("p", 200_000)).failed
        before = memory(daemon.pid)
        answers = [holder.call(CLAIM, force_fetch("p")) for _ in range(200)]
        taken = memory(daemon.pid, "VmHWM") - before
        size = len(answers[0].body)
        print(
            f"200 replies of {size / MIB:.1f} MiB, not acknowledged, took {taken / MIB:.0f} MiB at most"
        )
        assert not answers[0].failed
        assert answers[-1].code == EINVAL
        assert "limits.kept_replies, limits.kept_reply_bytes" in answers[-1].message
        assert sum(not answer.failed for answer in answers) * size < 70 * MIB
        assert taken < 110 * MIB
        # A client that acknowledges can continue.
        holder.frame(ACK, 0, b"", holder.requests + 1)
        assert not holder.call(CLAIM, force_fetch("p")).failed


def test_a_snapshot_that_is_not_read_is_closed(system: System) -> None:
    system.start(settings=[*SMALL, "limits.snapshot_idle=300ms"])
    client = system.client("writer")
    with Holder(system.address.split(",")[0], system.token_file) as holder:
        opened = holder.call(SNAPSHOT)
        assert not opened.failed
        mark = fields(opened.body)[1][0]
        assert isinstance(mark, int)
        # Half of the unit is filled and cleared again and again: dead blocks are freed once the snapshot is closed.
        for turn in range(8):
            value = torch.full((1, 30 * MIB), turn, dtype=torch.uint8)
            client.put(TensorDict({"x": value}, batch_size=1), partition_id="p")
            client.clear_partition("p")
        answer = holder.call(SNAPSHOT_READ, number(1, mark))
        assert answer.code == ESTALE
        assert "limits.snapshot_idle" in answer.message


@pytest.mark.parametrize("name", [b"p\xff", b"p\n", b"\x1b[2J", b"p\xc2\x9b", b"\xed\xa0\x80"])
def test_a_name_that_is_no_text_is_refused(system: System, name: bytes) -> None:
    """The controller checks the names itself: a client that speaks the protocol need not be one of ours."""
    system.start(settings=SMALL)
    client = system.client("reader")
    with Holder(system.address.split(",")[0], system.token_file) as holder:
        assert holder.call(RESERVE, reserve(name, 1)).failed
        assert not holder.call(RESERVE, reserve("plain", 1)).failed
    assert [each["name"] for each in client.status()["partitions"]] == ["plain"]
    assert {each["partition"] for each in client.get_events()} <= {"", None, "plain"}


@pytest.mark.parametrize(
    ("idle", "error"),
    [
        pytest.param("5s", None, marks=pytest.mark.slow),
        ("300ms", transferq.errors.TransferQueueError),
    ],
)
def test_a_save_that_stands_still_keeps_its_snapshot(
    system: System, tmp_path: Path, idle: str, error: type[Exception] | None
) -> None:
    """Its storage hangs for longer than a snapshot may be idle: as long as it says so, nothing is freed."""
    daemon = system.start(role="controller", settings=[f"limits.snapshot_idle={idle}"])
    unit = system.join("--listen", "tcp:127.0.0.1:0", name="far", settings=SMALL)
    client = system.client("writer")
    # More than one read returns: if the snapshot were closed, reads after the first one would fail.
    for _ in range(4):
        client.put({"x": torch.zeros(1, 10 * MIB, dtype=torch.uint8)}, partition_id="p")
    with (
        Holder(system.address.split(",")[0], system.token_file) as holder,
        ThreadPoolExecutor(1) as pool,
    ):
        os.kill(unit.pid, signal.SIGSTOP)
        try:
            saved = pool.submit(lambda: run(client._save_checkpoint(str(tmp_path / "saved"))))
            seen, kinds = 0, set()
            while "save" not in kinds:
                events = client.get_events(seen, wait=True)
                seen, kinds = events[-1]["seq"], {each["kind"] for each in events}
            assert not holder.call(SNAPSHOT).failed
            # Meanwhile, a snapshot that no client keeps alive is closed.
            wait_line(daemon.log, "of 'holder' was not read for")
            if error is not None:
                # It may have been read after the other one was opened, and so be closed later.
                wait_line(daemon.log, "of 'writer' was not read for")
            client.clear_partition("p")
        finally:
            os.kill(unit.pid, signal.SIGCONT)
        if error is None:
            saved.result(60)
        else:
            with pytest.raises(error, match=r"limits\.snapshot_idle"):
                saved.result(60)


def test_parts_of_a_restore_are_bounded(system: System) -> None:
    daemon = system.start(settings=[*SMALL, "limits.restore_bytes=32MiB"])
    with Holder(system.address.split(",")[0], system.token_file) as holder:
        before = memory(daemon.pid)
        mark = 0
        answers = []
        for _ in range(100):
            answer = holder.call(RESTORE_PART, number(1, mark) + data(2, bytes(MIB)))
            answers.append(answer)
            if not answer.failed:
                mark = int(fields(answer.body)[1][0])
        taken = memory(daemon.pid, "VmHWM") - before
        print(f"100 parts of a restore of 1 MiB took {taken / MIB:.0f} MiB at most")
        assert sum(not answer.failed for answer in answers) == 32
        assert "limits.restore_bytes" in answers[-1].message
        assert taken < 64 * MIB
