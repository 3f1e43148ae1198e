"""Peers of different protocol versions: both sides report this at once, naming both versions and the older side."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.daemons import Daemon, System
from support.relay import Place, Relay
from support.waiting import wait_until
from transferq.errors import ProtocolVersionError

HEADER = 40
SMALL = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]
AT_ONCE = 5.0
"""Seconds; the deadlines of calls are far longer."""

other_version = pytest.mark.parametrize("step", [-1, 1], ids=["older", "newer"])


def receive(raw: socket.socket, size: int) -> bytes:
    """This many bytes, or fewer if the peer closes."""
    got = b""
    while len(got) < size and (chunk := raw.recv(size - len(got))):
        got += chunk
    return got


@contextmanager
def connected(place: Place) -> Iterator[tuple[socket.socket, int]]:
    """A bare connection to a server, and the protocol version of its greeting."""
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET
    with socket.socket(family) as raw:
        raw.settimeout(AT_ONCE)
        raw.connect(str(place) if isinstance(place, Path) else place)
        header = receive(raw, HEADER)
        assert header[:4] == b"TQQ1"
        receive(raw, int.from_bytes(header[24:28], "little"))
        yield raw, int.from_bytes(header[4:6], "little")


def log_says(log: Path, *words: str) -> bool:
    """Whether one line of a log has all of the words."""
    return any(all(word in line for word in words) for line in log.read_text().splitlines())


def versions(theirs: int, ours: int, them: str, us: str) -> list[str]:
    """What the message must contain."""
    older = them if theirs < ours else us
    return [f"{them} speaks version {theirs}", f"{us} version {ours}", f"{older} is older"]


TCP = "listen=tcp:127.0.0.1:0"


def start_apart(system: System, controller: list[str], unit: list[str]) -> None:
    """A controller and a storage unit, in separate daemons."""
    system.start(role="controller", settings=controller)
    folder = str(system.folder / "one")
    system.join("--runtime-dir", folder, name="one", settings=[*SMALL, *unit])


@pytest.fixture
def apart(system: System) -> System:
    """A controller and a storage unit, both at unix sockets and at TCP ports."""
    start_apart(system, ["controller." + TCP], ["storage." + TCP])
    return system


def place_of(system: System, server: str, transport: str) -> Place:
    """Where a server of the system listens."""
    if server == "controller":
        listed = system.address
    else:
        served = re.findall(r"registered, serving (\S+)", system.daemons[1].log.read_text())
        listed = served[0]
    found = [one for one in listed.split(",") if one.startswith(transport + ":")]
    assert found, listed
    if transport == "unix":
        return Path(found[0].removeprefix("unix:"))
    host, _, port = found[0].removeprefix("tcp:").rpartition(":")
    return (host, int(port))


@other_version
@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize("server", ["controller", "unit"])
def test_a_server_refuses_a_client_of_another_version(
    apart: System, server: str, transport: str, step: int
) -> None:
    log = apart.daemons[0 if server == "controller" else 1].log
    with connected(place_of(apart, server, transport)) as (raw, ours):
        expected = versions(ours + step, ours, "the client", "this server")
        version = (ours + step).to_bytes(2, "little")
        raw.sendall(b"TQQ1" + version + b"\x02\x00" + bytes(HEADER - 8))
        answer = receive(raw, 1 << 16).decode(errors="replace")  # to the end: the server closes
    for words in expected:
        assert words in answer
    assert log_says(log, *expected), log.read_text()
    # The server continues to serve others.
    apart.client().put({"x": np.arange(2)}, partition_id="p")


@other_version
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_client_refuses_a_controller_of_another_version(
    apart: System,
    tmp_path: Path,
    transport: str,
    step: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    target = place_of(apart, "controller", transport)
    with connected(target) as (_, ours):
        pass
    relay = Relay(tmp_path / "relay.sock" if transport == "unix" else ("127.0.0.1", 0), target)
    relay.version = ours + step
    expected = versions(ours + step, ours, "the server", "this client")
    address = f"unix:{relay.path}" if transport == "unix" else "tcp:{}:{}".format(*relay.address)
    try:
        start = time.monotonic()
        with pytest.raises(ProtocolVersionError) as raised:
            transferq.TransferQueueClient("x", transferq.ControllerInfo(address, apart.token_file))
        assert time.monotonic() - start < AT_ONCE
        for words in expected:
            assert words in str(raised.value)
        logged = capfd.readouterr().err
        for words in expected:
            assert words in logged
        # The server has noticed as well: from its side, the client has the other version.
        told = versions(ours + step, ours, "the client", "this server")
        log = apart.daemons[0].log
        wait_until(f"a line of the log with {told}", lambda: log_says(log, *told), seconds=AT_ONCE)
    finally:
        relay.close()


@other_version
def test_a_unit_refuses_a_controller_of_another_version(
    apart: System, tmp_path: Path, step: int
) -> None:
    target = place_of(apart, "controller", "unix")
    assert isinstance(target, Path)
    with connected(target) as (_, ours):
        pass
    relay = Relay(tmp_path / "relay.sock", target)
    relay.version = ours + step
    try:
        unit = Daemon(
            "storage",
            "--join",
            f"unix:{relay.path}",
            "--token-file",
            apart.token_file,
            "--runtime-dir",
            str(tmp_path / "two"),
            log=tmp_path / "two.log",
        )
        expected = versions(ours + step, ours, "the server", "this client")
        assert unit.process.wait(AT_ONCE) != 0
        for words in expected:
            assert words in unit.answer
        assert log_says(unit.log, *expected), unit.log.read_text()
        told = versions(ours + step, ours, "the client", "this server")
        log = apart.daemons[0].log
        wait_until(f"a line of the log with {told}", lambda: log_says(log, *told), seconds=AT_ONCE)
    finally:
        relay.close()


@other_version
def test_a_client_refuses_a_unit_of_another_version(system: System, step: int) -> None:
    start_apart(system, [], [])
    before = system.client()
    before.put({"x": np.arange(3)}, partition_id="p")
    place = place_of(system, "unit", "unix")
    assert isinstance(place, Path)
    with connected(place) as (_, ours):
        pass
    moved = place.with_suffix(".moved")
    place.rename(moved)
    relay = Relay(place, moved)
    relay.version = ours + step
    expected = versions(ours + step, ours, "the server", "this client")
    try:
        client = system.client("late")
        start = time.monotonic()
        with pytest.raises(ProtocolVersionError) as raised:
            client.put({"x": np.arange(3)}, partition_id="p")
        assert time.monotonic() - start < AT_ONCE
        for words in ["one", *expected]:
            assert words in str(raised.value)
        told = versions(ours + step, ours, "the client", "this server")
        log = system.daemons[1].log
        wait_until(f"a line of the log with {told}", lambda: log_says(log, *told), seconds=AT_ONCE)
    finally:
        relay.close()
        moved.rename(place)
