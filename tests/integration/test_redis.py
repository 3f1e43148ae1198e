"""Data in Redis: a system whose config names a server, or a cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.addresses import free_ports
from support.daemons import Daemon, System
from support.redis_servers import RedisCluster, RedisServer
from support.runtime import own_runtime
from support.waiting import wait_until
from transferq.errors import AuthenticationError, UnreachableError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One server."""
    made = RedisServer(tmp_path / "redis", free_ports(1)[0])
    yield made
    made.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """A cluster of three nodes."""
    made = RedisCluster(tmp_path)
    yield made
    made.stop()


def start(system: System, section: str) -> None:
    """Start a system on a Redis backend."""
    system.start(
        settings=["backend.storage_backend=Redis", f"backend.Redis={{{section}}}"],
    )


def numbers(rows: int, size: int, base: int) -> dict[str, np.ndarray]:
    """Columns whose values show where they belong."""
    return {
        "x": np.arange(rows * size, dtype=np.int64).reshape(rows, size) + base,
        "y": np.arange(rows, dtype=np.float32) + base,
    }


def check(
    client: transferq.TransferQueueClient, meta: transferq.BatchMeta, rows: int, base: int
) -> None:
    """The data read equals the output of `numbers`."""
    got = client.get_data(meta)
    expected = numbers(rows, np.asarray(got["x"][0]).shape[0], base)
    assert np.array_equal(np.stack([np.asarray(row) for row in got["x"]]), expected["x"])
    assert np.array_equal(np.asarray(got["y"]), expected["y"])


def test_one_server(system: System, server: RedisServer) -> None:
    """Put, read by another client, claim, clear: nothing is left in the server."""
    start(system, f'url: "{server.url}"')
    writer, reader = system.client("writer"), system.client("reader")
    meta = writer.put(numbers(64, 500, 7), partition_id="p")
    check(reader, meta, 64, 7)
    claimed = reader.get_meta(["x", "y"], 16, "p", task_name="t")
    check(reader, claimed, 16, 7)
    assert server.values() > 0
    writer.clear_partition("p")
    wait_until("the values to be removed", server.values, lambda left: left == 0)


@pytest.mark.slow
def test_a_cluster_takes_all_nodes(system: System, cluster: RedisCluster) -> None:
    """Values are spread over the nodes, read back, and removed from all of them."""
    start(system, f'url: "{cluster.url}", cluster: true')
    client = system.client()
    metas = [client.put(numbers(8, 300, base), partition_id="p") for base in range(60)]
    assert all(size > 5 for size in cluster.sizes())
    for base, meta in enumerate(metas):
        check(client, meta, 8, base)
    client.clear_partition("p")
    wait_until("the values to be removed", cluster.sizes, lambda left: sum(left) == 0)


@pytest.mark.slow
def test_slots_move_under_traffic(system: System, cluster: RedisCluster) -> None:
    """Slots move from one node to another while samples are put and read: none is lost."""
    start(system, f'url: "{cluster.url}", cluster: true')
    client, other = system.client("one"), system.client("two")
    metas = [client.put(numbers(4, 200, base), partition_id="p") for base in range(40)]
    moved = threading.Event()

    def traffic(on: transferq.TransferQueueClient, first: int) -> int:
        base = first
        while not moved.is_set():
            check(on, on.put(numbers(4, 200, base), partition_id=f"q{first}"), 4, base)
            check(on, metas[base % len(metas)], 4, base % len(metas))
            base += 1
        return base - first

    with ThreadPoolExecutor() as pool:
        rounds = [pool.submit(traffic, client, 1000), pool.submit(traffic, other, 5000)]
        try:
            cluster.reshard(1000)
        finally:
            moved.set()
        assert all(each.result() > 0 for each in rounds)
    for base, meta in enumerate(metas):
        check(client, meta, 4, base)


def refused(folder: Path, section: str) -> str:
    """The output of a daemon that does not start on a Redis backend."""
    daemon = Daemon(
        "all-in-one",
        *("--runtime-dir", str(folder / "run"), "--set", "backend.storage_backend=Redis"),
        *("--set", f"backend.Redis={{{section}}}"),
        log=folder / "tqd.log",
    )
    assert daemon.process.wait(60) == 1
    assert not (folder / "run").exists()
    return daemon.answer


def test_a_server_that_is_no_cluster(tmp_path: Path, server: RedisServer) -> None:
    """`cluster: true` on a single server is refused at once, with the reason."""
    answer = refused(tmp_path, f'url: "{server.url}", cluster: true')
    assert "error: backend.Redis.cluster: the server is no cluster" in answer


def test_nobody_answers(tmp_path: Path) -> None:
    """A system on an unreachable store does not start, and names backend and address."""
    port = free_ports(1)[0]
    answer = refused(tmp_path, f'url: "redis://127.0.0.1:{port}"')
    expected = (
        f"backend.Redis: Redis at 127.0.0.1:{port} cannot be reached: Connection refused; check backend.Redis.url, "
        "and that it runs"
    )
    assert answer == f"error: {expected}"
    answer = refused(tmp_path, f'url: "unix://{tmp_path}/none"')
    assert f"backend.Redis: Redis at {tmp_path}/none cannot be reached" in answer
    with own_runtime(), pytest.raises(UnreachableError, match=re.escape(expected)):
        transferq.init(
            {
                "backend": {
                    "storage_backend": "Redis",
                    "Redis": {"url": f"redis://127.0.0.1:{port}"},
                }
            }
        )


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    """The daemon waits for it as long as configured."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        answer = refused(tmp_path, f'url: "redis://{place}", timeout: 0.5')
    assert f"backend.Redis: Redis at {place}: Redis did not answer in time" in answer


def test_a_missing_url_shows_what_it_looks_like(tmp_path: Path) -> None:
    answer = refused(tmp_path, "timeout: 5")
    assert re.search(r"backend\.Redis\.url: .* redis://HOST:PORT or unix:///PATH", answer)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    """`Redis: {host: ...}` is what users try first."""
    answer = refused(tmp_path, "host: 127.0.0.1")
    assert "backend.Redis.host: unknown key; known are url, " in answer


def redis_line(system: System) -> list[str]:
    """The store's line in `tq status`."""
    (line,) = [line for line in system.tq("status").splitlines() if line.startswith("Redis:")]
    return line.split()


def test_status_claims_nothing_about_the_server(system: System, server: RedisServer) -> None:
    """The server's fill level is not known here, nor, without a client, whether it is running."""
    start(system, f'url: "{server.url}"')
    client = system.client("writer")
    client.put(numbers(4, 8, 1), partition_id="p")
    assert redis_line(system)[1:] == ["Redis", "up", "1", "-", "-", "-"]
    client.close()
    assert redis_line(system)[1:] == ["Redis", "no", "client", "1", "-", "-", "-"]


def test_a_password_is_never_shown(system: System, server: RedisServer, tmp_path: Path) -> None:
    """A wrong password is an authentication error that does not repeat it."""
    wrong = f"redis://:wr0ng@127.0.0.1:{server.port}"
    start(system, f'url: "redis://127.0.0.1:{server.port}"')
    server.ask("CONFIG", "SET", "requirepass", "right")
    with pytest.raises(AuthenticationError, match=f"Redis at 127.0.0.1:{server.port}: it refused"):
        system.client()
    with own_runtime(), pytest.raises(AuthenticationError, match="user and password") as failed:
        transferq.init({"backend": {"storage_backend": "Redis", "Redis": {"url": wrong}}})
    assert "wr0ng" not in str(failed.value)
    assert "wr0ng" not in (tmp_path / "tqd.log").read_text()


def test_init_by_config(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init` with the backend in its configuration, as users do it."""
    with tempfile.TemporaryDirectory(prefix="tq-") as alone:
        for name in ("TQ_ADDRESS", "TQ_TOKEN_FILE", "TQ_SYSTEM"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", alone)
        check_init(server)


def check_init(server: RedisServer) -> None:
    """Start, put, read, clear, end."""
    config = transferq.init(
        {"backend": {"storage_backend": "Redis", "Redis": {"url": server.url}}},
    )
    try:
        assert config.backend.storage_backend == "Redis"
        transferq.kv_put("k", "p", {"x": np.arange(5)}, {"step": 1})
        assert server.values() == 1
        got = transferq.kv_batch_get(["k"], "p")
        assert np.array_equal(np.asarray(got["x"][0]), np.arange(5))
        transferq.kv_clear(["k"], "p")
    finally:
        transferq.close()


OTHER = """
import sys
import numpy as np
import transferq
transferq.init({"backend": {"storage_backend": "Redis",
                      "Redis": {"url": sys.argv[1], "sweep_after": float(sys.argv[2])}}})
client = transferq.get_client()
meta = client.put({"x": np.arange(8).reshape(4, 2)}, partition_id="p")
print(f"{client._core.epoch:016x}", flush=True)
for line in sys.stdin:
    print(np.stack([np.asarray(row) for row in client.get_data(meta)["x"].unbind()]).sum(), flush=True)
"""


class Other:
    """A system in a separate process."""

    def __init__(self, folder: Path, url: str, sweep_after: float) -> None:
        """Start it and put a batch."""
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, url, str(sweep_after)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        )
        self.epoch = self.line()
        self.handle = folder / "ctq" / "default" / "handle.json"

    def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def sum(self) -> int:
        """The sum that it reads from its batch."""
        assert self.process.stdin is not None
        self.process.stdin.write("read\n")
        self.process.stdin.flush()
        return int(self.line())

    def kill(self) -> None:
        """Kill it, its daemon first, because the daemon would remove the values when it ends."""
        os.kill(json.loads(self.handle.read_text())["pid"], signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.mark.slow
def test_values_of_dead_systems_are_removed(
    system: System, server: RedisServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A killed system's values are removed by the next one, which spares those of live systems."""
    with tempfile.TemporaryDirectory(prefix="tq-") as short:
        dead, alive = (Other(Path(short) / name, server.url, 1.5) for name in ("dead", "alive"))
        try:
            foreign = f"tq/{1:016x}/1"
            server.ask("SET", foreign, "of a system without a keepalive")
            dead.kill()
            start(system, f'url: "{server.url}", sweep_after: 1.5')
            client = system.client()
            meta = client.put(numbers(8, 300, 3), partition_id="p")
            wait_until(
                "the dead system's keys to be removed",
                lambda: server.ask("KEYS", f"tq/{dead.epoch}/*"),
                lambda keys: not keys,
            )
            assert alive.sum() == 28
            check(client, meta, 8, 3)
            assert server.ask("EXISTS", foreign) == "1"
            assert f"of system {dead.epoch}" in capfd.readouterr().err
        finally:
            alive.kill()


@pytest.mark.slow
def test_values_of_dead_systems_are_removed_although_the_first_client_has_closed(
    system: System, server: RedisServer
) -> None:
    """One client looks for them; when it has ended, another one takes over."""
    start(system, f'url: "{server.url}", sweep_after: 1.5')
    first = system.client("first")
    system.client("second")
    first.close()
    dead = f"tq/{24:016x}"
    server.ask("SET", f"{dead}/kept", "1")
    server.ask("SET", f"{dead}/7", "a value")
    wait_until(
        "the dead system's keys to be removed",
        lambda: server.ask("KEYS", f"{dead}/*"),
        lambda keys: not keys,
    )


@pytest.mark.slow
def test_who_removes_much_keeps_its_own_lease(system: System, server: RedisServer) -> None:
    """Removing the data of dead systems may take longer than a keepalive lasts, which is renewed meanwhile."""
    fill = "for i = 1, ARGV[1] do redis.call('SET', ARGV[2] .. string.format('%016x', i) .. ARGV[3], '1') end"
    server.ask("EVAL", fill, "0", "300000", "others/", "")
    server.ask("EVAL", fill, "0", "24", "tq/", "/kept")
    start(system, f'url: "{server.url}", sweep_after: 4')
    client = system.client()
    client.put(numbers(8, 300, 3), partition_id="p")
    own = f"tq/{client._core.epoch:016x}"

    def kept() -> str:
        assert server.ask("EXISTS", f"{own}/lease") == "1"
        return server.ask("EXISTS", f"tq/{24:016x}/kept")

    wait_until("the dead systems' data to be removed", kept, lambda there: there == "0")


@pytest.mark.slow
def test_closing_while_the_server_stands_still(
    system: System, server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """It takes seconds, not half a minute, and reports what may be left."""
    start(system, f'url: "{server.url}"')
    client = system.client("one")
    client.put(numbers(8, 300, 1), partition_id="p")
    server.process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        client.clear_partition("p")
        client.get_partition_list()  # dead blocks are reported before the answer to this
        client.close()
        seconds = time.monotonic() - begun
    finally:
        server.process.send_signal(signal.SIGCONT)
    # A command has 4 s for its answer, and closing waits for 5 s, which may come first on a busy machine.
    said = capfd.readouterr().err
    reported = re.findall(
        r"closing: (\d+) dead block may be left in Redis:127\.0\.0\.1:\d+/0, ", said
    )
    abandoned = said.count("its storage has not ended its work 5 s after close")
    assert (reported, abandoned) == ((["1"], 0) if abandoned == 0 else ([], 1)), said
    assert 4 + abandoned <= seconds < 15
    # A client of the system removes them.
    system.client("two").put(numbers(1, 1, 1), partition_id="q")
    wait_until("the values to be removed", server.values, lambda left: left <= 1)


@pytest.mark.parametrize("seconds", ["0", "0.001", "1e300", ".nan"])
def test_when_to_sweep_is_checked(tmp_path: Path, server: RedisServer, seconds: str) -> None:
    """An invalid time, and one longer than any keepalive, are refused at once."""
    daemon = Daemon(
        "all-in-one",
        *("--runtime-dir", str(tmp_path / "run"), "--set", "backend.storage_backend=Redis"),
        *("--set", f'backend.Redis={{url: "{server.url}", sweep_after: {seconds}}}'),
        log=tmp_path / "tqd.log",
    )
    assert daemon.process.wait(60) == 2
    assert "--set:1: backend.Redis.sweep_after: " in (tmp_path / "tqd.log").read_text()
    assert not (tmp_path / "run").exists()
