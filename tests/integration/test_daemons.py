"""tqd as users run it: roles, joining over TCP, clean ends, refusals."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.addresses import free_ports
from support.daemons import Daemon, System, executable, wait_exit
from transferq.errors import UnreachableError

SMALL = ["backend.SimpleStorage.total_storage_size=64MiB"]


def test_units_join_over_tcp(system: System) -> None:
    """A controller here, storage units there, clients that share no memory with them: data goes through the stream."""
    system.start("--listen", "tcp:127.0.0.1:0", role="controller")
    for name in ("left", "right"):
        system.join("--listen", "tcp:127.0.0.1:0", name=name, settings=SMALL)
    client = system.client()
    rows = np.arange(300_000, dtype=np.float32).reshape(3, 100_000)
    put = client.put({"x": rows, "n": np.arange(3)}, partition_id="p")
    data = client.get_data(put)
    assert np.array_equal(np.stack(list(data["x"])), rows)
    names = {owner["name"] for owner in system.status()["storage"]}
    assert names == {"left-0", "left-1", "right-0", "right-1"}


@pytest.mark.slow
def test_a_unit_says_at_once_whom_it_waits_for_and_then_rarely(system: System) -> None:
    """Nothing listens at the address it joins; once something does, it joins."""
    address = f"tcp:127.0.0.1:{free_ports(1)[0]}"
    token = system.folder / "secret"
    token.write_text("0123456789abcdef")
    arguments = [
        *("--join", address, "--token-file", str(token), "--listen", "tcp:127.0.0.1:0"),
        *("--set", SMALL[0], "--set", "backend.SimpleStorage.num_data_storage_units=1"),
    ]
    begin = time.monotonic()
    unit = subprocess.Popen(
        [executable("tqd"), "storage", *arguments], stderr=subprocess.PIPE, text=True
    )
    try:
        assert unit.stderr is not None
        said: dict[str, float] = {}
        for line in unit.stderr:
            if address in line:
                said[line] = time.monotonic() - begin
            if "registering failed" in line:
                break
        lines = list(said)
        assert len(lines) == 3
        assert f"storage units wait for the controller at {address}" in lines[0]
        assert f"still waiting for {address} after " in lines[1]
        assert "nobody has listened there for " in lines[2]
        assert said[lines[1]] - said[lines[0]] < 5
        system.start(f"--token-file={token}", "--listen", address, role="controller")
        assert any(f"have joined {address}" in line for line in unit.stderr)
    finally:
        unit.terminate()
        unit.communicate(timeout=30)
    assert unit.returncode == 0


def test_long_texts_over_tcp(system: System) -> None:
    """Texts outside this machine's memory cannot be decoded in place: they are copied first."""
    system.start("--listen", "tcp:127.0.0.1:0", role="controller")
    system.join("--listen", "tcp:127.0.0.1:0", name="unit", settings=SMALL)
    client = system.client()
    texts = [f"{row:08d}" * 2000 for row in range(40)]
    put = client.put({"t": texts}, partition_id="p")
    assert list(client.get_data(put)["t"]) == texts
    (piece,) = put._pieces
    (column,) = client._core.get(piece, leave_values=True).result().columns
    assert bytes(memoryview(column[9])).count(texts[7].encode()) == 1


def test_units_cannot_share_an_endpoint(system: System) -> None:
    """A fixed endpoint belongs to one unit: several units are refused by name, unless each gets its own number."""
    system.start("--listen", "tcp:127.0.0.1:0", role="controller")
    join = ("--join", system.address, "--token-file", system.token_file, "--set", SMALL[0])
    shared = f"unix:{system.folder}/unit.sock"
    log = system.folder / "shared.log"
    refused = Daemon("storage", *join, "--listen", shared, log=log)
    assert refused.process.wait(30) == 1
    assert "2 storage units cannot all listen at" in refused.answer
    assert "%d" in refused.answer
    system.join("--listen", f"unix:{system.folder}/unit-%d.sock", name="both", settings=SMALL)
    assert {owner["name"] for owner in system.status()["storage"]} == {"both-0", "both-1"}


def test_a_put_goes_to_the_node_that_it_is_made_on(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that share a machine are distinguished by their configured names, on both sides."""
    system.start(role="controller")
    for name in ("left", "right"):
        system.join(
            *("--listen", f"unix:{system.folder}/{name}-%d.sock", "--listen", "tcp:127.0.0.1:0"),
            name=name,
            settings=[*SMALL, f"storage.node={name}-node"],
        )
    for name in ("right", "left"):
        monkeypatch.setenv("TQ_NODE", f"{name}-node")
        client = system.client(name)
        batches = [client.put({"x": np.arange(3000)}, partition_id=f"{name}-{i}") for i in range(4)]
        blocks = {owner["name"]: owner["blocks"] for owner in client.status()["owners"]}
        assert {unit.split("-")[0] for unit in blocks if blocks[unit]} == {name}
        monkeypatch.setenv("TQ_NODE", "another")
        elsewhere = system.client("elsewhere")
        for batch in batches:
            assert list(elsewhere.get_data(batch)["x"]) == list(range(3000))
            elsewhere.clear_samples(batch)
        monkeypatch.delenv("TQ_NODE")


def test_tcp_only_controller(system: System) -> None:
    """A client may reach the controller over TCP alone."""
    system.start("--listen", "tcp:127.0.0.1:0", settings=SMALL)
    address = next(one for one in system.address.split(",") if one.startswith("tcp:"))
    assert not address.endswith(":0")
    client = system.client(address=address)
    client.put({"x": np.arange(4)}, partition_id="p")
    assert client.get_partition_list() == ["p"]


def test_sigterm_leaves_nothing(system: System) -> None:
    """SIGTERM ends a daemon with status 0, and removes its files."""
    daemon = system.start(settings=SMALL)
    assert (system.runtime / "handle.json").exists()
    assert daemon.terminate() == 0
    assert not system.runtime.exists()


def test_an_end_is_said_once_by_whom_it_is_news(system: System) -> None:
    """A daemon does not log its own system's end as an attached client would; one that joined it logs it, once per unit."""
    daemon = system.start("--listen", "tcp:127.0.0.1:0", settings=SMALL)
    tcp = next(one for one in system.address.split(",") if one.startswith("tcp:"))
    joined = subprocess.Popen(
        [
            *(executable("tqd"), "storage", "--join", tcp, "--token-file", system.token_file),
            *("--set", "storage.name=joined", "--set", SMALL[0]),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert joined.stderr is not None
        next(line for line in joined.stderr if "have joined" in line)
        assert daemon.terminate() == 0
        said: list[str] = []
        for line in joined.stderr:
            said.append(line)
            if sum("waits for the next run" in one for one in said) == 2:
                break
    finally:
        joined.terminate()
        joined.communicate(timeout=30)
    own = daemon.log.read_text().splitlines()
    ends = [line for line in own if re.search(r": ending|has ended", line)]
    assert [line.partition(" ")[2] for line in ends] == ["info tqd: SIGTERM: ending"]
    news = "system 'default', which this unit was attached to, has ended (SIGTERM)"
    assert sorted(
        line.partition(" ")[2]
        for line in said
        if line.endswith(f": {news}\n") and "waits" not in line
    ) == [f"info unit: joined-{number}: {news}\n" for number in range(2)]
    assert not [line for line in [*own, *said] if " client: " in line or "init()" in line]


def test_second_signal_changes_nothing(system: System) -> None:
    """An impatient second signal does not stop the daemon from cleaning up."""
    daemon = system.start(settings=SMALL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        daemon.process.send_signal(number)
    assert daemon.process.wait(30) == 0
    assert not system.runtime.exists()


@pytest.mark.parametrize("option", ["--parent-pid", "--owner-pid"])
def test_ends_with_its_owner(system: System, option: str) -> None:
    """A daemon with a parent ends when that process is killed, and removes its files; the former name still works."""
    owner = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    daemon = system.start(option, str(owner.pid), settings=SMALL)
    owner.kill()
    owner.wait()
    wait_exit(daemon.pid)
    assert daemon.process.wait() == 0
    assert not system.runtime.exists()


def test_directory_of_a_killed_daemon_is_taken_over(system: System) -> None:
    """Files left behind by a daemon killed with SIGKILL do not stop the next one."""
    system.start(settings=SMALL).kill()
    assert (system.runtime / "handle.json").exists()
    system.start(settings=SMALL)
    assert system.status()["partitions"] == []


def test_two_daemons_in_one_directory(running: System, tmp_path: Path) -> None:
    """The second one is refused and names the directory; the first one goes on."""
    second = Daemon(
        "all-in-one", "--runtime-dir", str(running.runtime), log=tmp_path / "second.log"
    )
    assert second.process.wait() == 1
    assert second.answer.startswith("error:")
    assert str(running.runtime) in second.answer
    assert running.status()["partitions"] == []


def test_a_daemon_that_cannot_write_its_token_leaves_nothing_behind(tmp_path: Path) -> None:
    """On a full disk the error says why it does not start, and the directory it made is removed."""

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    done = subprocess.run(
        [executable("tqd"), "all-in-one", "--runtime-dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=no_room,
        restore_signals=False,
    )
    assert done.returncode == 1
    assert str(tmp_path / "run" / "token") in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("controller:\n  samplr: x\n", 2, "unknown key 'controller.samplr'"),
        ("controller:\n  polling_mode: maybe\n", 2, "expected true or false, got 'maybe'"),
        (
            "log:\n  level: info\ncontroller:\n  events: 0\n",
            4,
            "controller.events: 0 is out of range",
        ),
        ("controller:\n  session_grace: soon\n", 2, "expected a time"),
        ("controller: [1\n", 2, "did not find expected"),
        ("backend:\n  SimpleStorage:\n    total_storage_size: 12 apples\n", 3, "expected a size"),
        ("- a\n", 1, "expected a mapping"),
    ],
)
def test_bad_configuration(tmp_path: Path, text: str, line: int, expected: str) -> None:
    """A bad key or value is refused with file and line; nothing is started."""
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    daemon = Daemon(
        "all-in-one",
        "--runtime-dir",
        str(tmp_path / "run"),
        "--config",
        str(path),
        log=tmp_path / "log",
    )
    assert daemon.process.wait() == 2
    assert f"{path}:{line}:" in (tmp_path / "log").read_text()
    assert expected in (tmp_path / "log").read_text()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["storage"], "--join"),
        (["controller"], "--token-file"),
        (["all-in-one", "--join", "tcp:127.0.0.1:1", "--runtime-dir", "x"], "--join"),
        (["waiter"], "unknown role 'waiter'"),
        ([], "no role given"),
    ],
)
def test_bad_command_line(args: list[str], expected: str) -> None:
    """A command line that makes no sense is refused with the reason."""
    done = subprocess.run(
        [executable("tqd"), *args], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert expected in done.stderr


def test_wrong_token(running: System, tmp_path: Path) -> None:
    """A client with another token is refused with the right error class; the system goes on."""
    wrong = tmp_path / "wrong"
    wrong.write_text("not the token\n")
    with pytest.raises(transferq.errors.AuthenticationError, match="controller"):
        transferq.TransferQueueClient("x", transferq.ControllerInfo(running.address, str(wrong)))
    with pytest.raises(transferq.errors.AuthenticationError, match="missing"):
        transferq.TransferQueueClient(
            "x", transferq.ControllerInfo(running.address, str(tmp_path / "missing"))
        )
    assert running.client().get_partition_list() == []


def test_a_unit_with_a_wrong_token_ends(system: System, tmp_path: Path) -> None:
    """It does not retry forever, and names the address that refused it."""
    system.start("--listen", "tcp:127.0.0.1:0", role="controller")
    wrong = tmp_path / "wrong"
    wrong.write_text("not the token\n")
    wrong.chmod(0o600)
    unit = Daemon(
        "storage",
        *("--join", system.address, "--token-file", str(wrong), "--set", "storage.name=late"),
        *("--listen", "tcp:127.0.0.1:0"),
        log=tmp_path / "unit.log",
    )
    assert unit.process.wait(30) == 1
    tcp = system.address.split(",")[-1]
    assert re.fullmatch(
        rf"error: storage unit late-\d: {re.escape(tcp)}: authentication failed: .*",
        unit.answer,
    )


@pytest.mark.slow
def test_whom_a_unit_waits_for(tmp_path: Path) -> None:
    """If there is no answer it logs that after a moment, with the reason, and joins a controller that comes late."""
    address = f"tcp:127.0.0.1:{free_ports(1)[0]}"
    token = tmp_path / "token"
    token.write_text("a secret of some length\n")
    token.chmod(0o600)
    unit = subprocess.Popen(
        [
            *(executable("tqd"), "storage", "--join", address, "--token-file", str(token)),
            *("--set", "backend.SimpleStorage.num_data_storage_units=1", "--set", SMALL[0]),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert unit.stderr is not None
    said = next(line for line in unit.stderr if " warn " in line)
    assert re.search(rf"still waiting for {re.escape(address)} after \d+ s: ", said)
    assert "Connection refused" in said
    controller = Daemon(
        "controller",
        *("--listen", address, "--token-file", str(token)),
        log=tmp_path / "controller.log",
    )
    try:
        assert controller.answer == "ready"
        assert any("storage units have joined" in line for line in unit.stderr)
    finally:
        unit.terminate()
        unit.communicate(timeout=30)
        controller.stop()


@pytest.mark.slow
def test_a_client_names_whom_it_could_not_reach(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error has the address and the last reason; before it, a waiting call logs what it waits for."""
    address = f"tcp:127.0.0.1:{free_ports(1)[0]}"
    info = transferq.ControllerInfo(address, token="a secret of some length")
    expected = f"^{address} cannot be reached: {address}: connect: Connection refused"
    with pytest.raises(UnreachableError, match=expected):
        transferq.TransferQueueClient("x", info, config={"client": {"timeout": 8}})
    assert capfd.readouterr().err.count(f"still waiting for {address}") == 1


GARBAGE = [
    b"GET / HTTP/1.1\r\n\r\n" + b"x" * 64,
    b"\0" * 4096,
    b"\xff" * 40,
    b"TQQ1" + b"\x02\x00" + b"\x02\x00" + b"\0" * 16 + b"\xff\xff\xff\xff" + b"\0" * 12,
    b"TQQ1"
    + b"\x02\x00"
    + b"\x10\x00"
    + b"\0" * 16
    + b"\x04\0\0\0"
    + b"\0" * 12
    + b"\xde\xad\xbe\xef",
]


@pytest.mark.parametrize("frame", GARBAGE)
@pytest.mark.parametrize("name", ["controller.sock", "unit-0.sock"])
def test_malformed_frame(running: System, name: str, frame: bytes) -> None:
    """The connection is closed; the daemon and all other connections stay."""
    client = running.client()
    client.put({"x": np.arange(4)}, partition_id="p")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(30)
        raw.connect(str(running.runtime / name))
        raw.sendall(frame)
        while raw.recv(4096):
            pass
    assert client.get_partition_list() == ["p"]
    assert len(client.get_data(client.get_meta(["x"], 4, "p", task_name="t"))["x"]) == 4


def test_another_protocol_version(running: System) -> None:
    """A client built for another version learns this from the first bytes it gets, and is refused."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(30)
        raw.connect(str(running.runtime / "controller.sock"))
        header = raw.recv(40, socket.MSG_WAITALL)
        assert header[:4] == b"TQQ1"
        version = int.from_bytes(header[4:6], "little")
        other = (version + 1).to_bytes(2, "little")
        raw.sendall(b"TQQ1" + other + b"\x02\x00" + b"\0" * 32)
        answer = b""
        while chunk := raw.recv(4096):
            answer += chunk
    assert str(version).encode() in answer
    assert str(version + 1).encode() in answer


def test_server_of_another_version(tmp_path: Path, running: System) -> None:
    """A client that meets a server of another version fails with that, and names both versions."""
    path = tmp_path / "future.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    process = os.fork()
    if process == 0:
        connection, _ = listener.accept()
        connection.sendall(b"TQQ1" + (77).to_bytes(2, "little") + b"\x01\x00" + b"\0" * 32)
        connection.recv(1)
        os._exit(0)
    listener.close()
    try:
        with pytest.raises(transferq.errors.ProtocolVersionError, match="77"):
            transferq.TransferQueueClient(
                "x", transferq.ControllerInfo(f"unix:{path}", running.token_file)
            )
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def test_command_line(running: System) -> None:
    """tq shows, reads and clears; --json everywhere; errors say what is wrong."""
    client = running.client("writer")
    client.put(
        {"x": np.arange(6).reshape(3, 2), "text": np.array(["a", "b", "c"], dtype=object)},
        partition_id="p",
    )
    client.get_meta(["x"], 2, "p", task_name="trainer")
    table = running.tq("status")
    for word in ("p", "x", "text", "int64", "trainer", "unit-0", "SimpleStorage", "writer"):
        assert word in table, table
    status = running.status()
    (partition,) = status["partitions"]
    assert partition["samples"] == 3
    assert partition["produced"]["x"]["produced"] == 3
    assert partition["consumed"] == {"trainer": 2}
    assert sum(owner["bytes"] for owner in status["storage"]) > 0
    assert sum(owner["capacity_bytes"] for owner in status["storage"]) == 64 << 20
    assert json.loads(running.tq("ls", "--json")) == ["p"]
    assert [row["index"] for row in json.loads(running.tq("ls", "p", "--json"))] == [0, 1, 2]
    rows = json.loads(running.tq("get", "p", "@1", "--json"))
    assert rows == [{"key": None, "index": 1, "fields": {"text": "b", "x": [2, 3]}}]
    assert "[2,3]" in running.tq("get", "p", "@1", "--field", "x")
    assert json.loads(running.tq("clear", "p", "@0", "--json")) == {"cleared": 1}
    assert running.tq("clear", "p", "--all") == "cleared 2 samples\n"
    kinds = [event["kind"] for event in json.loads(running.tq("events", "--json"))]
    assert [kind for kind in kinds if kind in ("put", "claim", "clear")] == [
        "put",
        "claim",
        "clear",
        "clear",
    ]
    assert "unknown partition" in running.tq("get", "nowhere", status=1).lower()
    assert "unknown command" in running.tq("frobnicate", status=2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "no command given"),
        (["frobnicate"], "unknown command"),
        (["status", "now"], "status takes no arguments"),
        (["ls", "p", "q"], "ls takes one partition at most"),
        (["get"], "which partition"),
        (["get", "p", "@x"], "'@x' is not an index"),
        (["get", "p", "@1", "key"], "by keys or by @index, not both"),
        (["clear", "p"], "name samples to clear"),
        (["clear", "p", "key", "--all"], "name samples to clear"),
        (["events", "p"], "events takes no arguments"),
        (["status", "--timeout", "soon"], "expected seconds"),
        (["status", "--colour"], "unrecognized option"),
        (["bench", "p"], "bench takes no arguments"),
        (["bench", "--workload", "none"], "there is no 'none'"),
        (["bench", "--rounds", "0"], "expected 1 to 1000, got '0'"),
        (["bench", "--callers", "many"], "expected 1 to 4096, got 'many'"),
        (["bench", "--scale", "-1"], "expected a factor"),
        (["serve", "storage"], "serve runs a whole system"),
        (["serve", "all-in-one", "--colour"], "unrecognized option"),
        (["serve", "--set", "nothing=1"], "unknown key 'nothing'"),
    ],
)
def test_wrong_command_lines(system: System, line: list[str], message: str) -> None:
    """Exit status 2 and an explanation, without connecting to a system."""
    done = subprocess.run(
        [executable("tq"), *line], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done
    assert message in done.stderr
    assert done.stdout == ""


def test_status_shows_tasks_by_themselves(running: System) -> None:
    """Fields and consumers are unrelated, so each has its own table."""
    client = running.client("writer")
    assert "TASK" not in running.tq("status")
    client.put({"x": np.arange(3), "y": np.arange(3)}, partition_id="p")
    client.get_meta(["x"], 2, "p", task_name="trainer")
    blocks = [block.split("\n") for block in running.tq("status").split("\n\n")]
    (tasks,) = [block for block in blocks if block[0].startswith("TASK")]
    assert [line.split() for line in tasks] == [
        ["TASK", "PARTITION", "CONSUMED", "SAMPLES"],
        ["trainer", "p", "2", "3"],
    ]
    (fields,) = [block for block in blocks if block[0].startswith("PARTITION")]
    assert fields[0].split() == [
        "PARTITION",
        "SAMPLES",
        "SIZE",
        "FIELD",
        "TYPE",
        "PRODUCED",
        "LOST",
    ]
    assert len(fields) == 3


def test_events_are_headed_and_without_our_own(running: System) -> None:
    """Each tq command joins and leaves; only --all shows that."""
    running.client("writer").put({"x": np.arange(3)}, partition_id="p")
    running.tq("status")
    head, *lines = running.tq("events").splitlines()
    assert head.split() == ["TIME", "KIND", "CLIENT", "PARTITION", "TASK", "SAMPLES", "SIZE"]
    assert [line.split()[1:3] for line in lines][-2:] == [["join", "writer"], ["put", "writer"]]
    assert all(head.index("KIND") == line.index(line.split()[1], 12) for line in lines)
    own = [event["session"] for event in json.loads(running.tq("events", "--json"))]
    assert "tq" not in own
    own = [event["session"] for event in json.loads(running.tq("events", "--all", "--json"))]
    assert own.count("tq") >= 2
