"""auto_init: the daemon starts the server of its storage backend, and stops it again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferq
from support.addresses import free_ports
from support.daemons import Daemon, System, executable, wait_exit
from support.redis_servers import redis_cli
from support.runtime import own_runtime
from transferq.errors import ConfigError, StorageFullError, TransferQueueError

BOTH = ["Redis", pytest.param("MooncakeStore", marks=pytest.mark.slow)]

READER = """
import transferq, numpy as np
transferq.init(attach=True)
got = transferq.kv_batch_get(["k"], "p")
assert np.array_equal(np.asarray(got["x"][0]), np.arange(5000))
transferq.close()
"""


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A runtime directory for the test, which must be empty in the end."""
    with own_runtime() as alone:
        yield alone
        transferq.close()
        assert list(alone.iterdir()) == []


def section(backend: str, **more: object) -> dict[str, Any]:
    """A configuration that selects a backend with its own server."""
    size = {"global_segment_size": "64MiB"} if backend == "MooncakeStore" else {}
    return {"storage_backend": backend, backend: {"auto_init": True, **size, **more}}


def children(pid: int) -> dict[str, int]:
    """Children of a process, by name."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {Path(f"/proc/{child}/comm").read_text().strip(): int(child) for child in listed}


def servers_of(backend: str, pid: int) -> list[int]:
    """The processes of the backend, children of the daemon."""
    names = {"Redis": ["redis-server"], "MooncakeStore": ["mooncake_client", "mooncake_master"]}
    found = children(pid)
    assert sorted(found) == names[backend]
    return list(found.values())


def put_and_get() -> None:
    """Data is put here and read in another process."""
    transferq.kv_put("k", "p", {"x": np.arange(5000)}, {"step": 1})
    subprocess.run([sys.executable, "-c", READER], check=True, timeout=120)
    transferq.kv_clear(["k"], "p")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BOTH)
def test_init_and_close(runtime: Path, backend: str) -> None:
    """Two processes share data; after close() there is no process and no file of it."""
    config = transferq.init({"backend": section(backend)})
    assert config.backend[backend].auto_init is True
    handle = transferq._impl.system.find("default")
    assert handle is not None
    servers = servers_of(backend, handle.pid)
    put_and_get()
    transferq.close()
    for server in servers:
        wait_exit(server, 0)
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("backend", BOTH)
def test_the_daemon_is_killed(system: System, backend: str) -> None:
    """SIGKILL of the daemon ends the servers too; a new one starts in the same directory."""
    settings = [f"backend.storage_backend={backend}", f"backend.{backend}.auto_init=true"]
    daemon = system.start(settings=settings)
    servers = servers_of(backend, daemon.pid)
    daemon.kill()
    for server in servers:
        wait_exit(server)
    again = system.start(settings=settings)
    servers = servers_of(backend, again.pid)
    assert again.terminate() == 0
    for server in servers:
        wait_exit(server, 0)
    assert not system.runtime.exists()


def test_the_server_is_killed(system: System) -> None:
    """Calls name the server that cannot be reached, and the daemon logs that its server has ended."""
    daemon = system.start(
        settings=["backend.storage_backend=Redis", "backend.Redis.auto_init=true"]
    )
    client = system.client(client={"timeout": 5})
    client.put({"x": np.arange(4)}, partition_id="p")
    (server,) = servers_of("Redis", daemon.pid)
    os.kill(server, signal.SIGKILL)
    wait_exit(server)
    with pytest.raises(TransferQueueError, match=r"redis\.sock"):
        client.put({"x": np.arange(4)}, partition_id="p")
    log = daemon.log.read_text()
    assert f"(process {server}) has ended: signal 9" in log
    assert "what was stored in Redis is lost" in log
    assert daemon.terminate() == 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", BOTH)
def test_serve(runtime: Path, tmp_path: Path, backend: str) -> None:
    """`tq serve -c` does the same as init()."""
    config = tmp_path / "conf.yaml"
    config.write_text(
        f"backend:\n  storage_backend: {backend}\n  {backend}:\n    auto_init: true\n"
    )
    read, write = os.pipe()
    serving = subprocess.Popen(
        [executable("tq"), "serve", "-c", str(config), "--ready-fd", str(write)], pass_fds=[write]
    )
    os.close(write)
    with os.fdopen(read) as ready:
        assert ready.read() == "ready\n"
    transferq.init(attach=True)
    put_and_get()
    transferq.close()
    servers = servers_of(backend, serving.pid)
    serving.terminate()
    assert serving.wait(20) == 0
    for server in servers:
        wait_exit(server, 0)


def test_a_server_that_others_reach_has_a_password(system: System) -> None:
    """If the controller listens on TCP, so does Redis, with a password that clients are given."""
    port, redis_port = free_ports(2)
    system.start(
        "--listen",
        f"tcp:127.0.0.1:{port}",
        role="controller",
        settings=[
            "backend.storage_backend=Redis",
            "backend.Redis.auto_init=true",
            f"net.port_range={redis_port}-{redis_port}",
        ],
    )
    client = system.client(address=f"tcp:127.0.0.1:{port}")
    meta = client.put({"x": np.arange(4)}, partition_id="p")
    assert np.array_equal(np.asarray(client.get_data(meta)["x"]), np.arange(4))
    assert redis_cli("-p", str(redis_port), "DBSIZE").startswith("NOAUTH")
    for path in system.runtime.iterdir():
        assert path.name in ("controller.sock", "handle.json", "token")


def test_a_full_server(system: System) -> None:
    """`memory` limits the server; a put that exceeds it waits, and fails."""
    system.start(
        settings=["backend.storage_backend=Redis", "backend.Redis={auto_init: true, memory: 8MiB}"]
    )
    client = system.client(client={"timeout": 1})
    with pytest.raises(StorageFullError):
        client.put({"x": np.zeros((16, 1 << 20), dtype=np.uint8)}, partition_id="p")
    client.put({"x": np.zeros((1, 1 << 20), dtype=np.uint8)}, partition_id="p")


def refused(tmp_path: Path, *settings: str, status: int = 1) -> str:
    """The output of a daemon that does not start."""
    options = [word for setting in settings for word in ("--set", setting)]
    daemon = Daemon(
        "all-in-one", "--runtime-dir", str(tmp_path / "run"), *options, log=tmp_path / "tqd.log"
    )
    assert daemon.process.wait(20) == status
    assert not (tmp_path / "run").exists()
    return daemon.answer


def refused_by(program: str, tmp_path: Path, setting: str, path: str) -> str:
    """The output of a daemon in another place that does not start."""
    done = subprocess.run(
        [program, "all-in-one", "--runtime-dir", str(tmp_path / "run"), "--set", setting],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


def test_what_excludes_each_other(tmp_path: Path) -> None:
    """A user's server and an automatically started one."""
    answer = refused(
        tmp_path,
        "backend.storage_backend=Redis",
        'backend.Redis={auto_init: true, url: "redis://localhost"}',
    )
    assert "give one of the two" in answer
    answer = refused(
        tmp_path, "backend.storage_backend=Redis", "backend.Redis={auto_init: true, cluster: true}"
    )
    assert "backend.Redis.cluster: auto_init starts a single server" in answer


def test_what_mooncake_cannot_be(tmp_path: Path) -> None:
    """Addresses that are invalid or taken, and an invalid protocol."""
    answer = refused(
        tmp_path,
        "backend.storage_backend=MooncakeStore",
        "backend.MooncakeStore={auto_init: true, master_server_address: nowhere}",
    )
    assert "expected HOST:PORT, got 'nowhere'" in answer
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = refused(
            tmp_path,
            "backend.storage_backend=MooncakeStore",
            f'backend.MooncakeStore={{auto_init: true, master_server_address: "localhost:{port}"}}',
        )
    assert f"localhost:{port} is not free for the master" in answer
    answer = refused(
        tmp_path, "backend.storage_backend=MooncakeStore", "backend.MooncakeStore.protocol=pigeon"
    )
    assert "backend.MooncakeStore.protocol: expected tcp or rdma, got 'pigeon'" in answer


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    """The error contains the server's last output."""
    (tmp_path / ("long" * 30)).mkdir()  # too long for the path of a socket
    answer = refused(
        tmp_path / ("long" * 30), "backend.storage_backend=Redis", "backend.Redis.auto_init=true"
    )
    assert "the Redis server of backend.Redis.auto_init did not start (exit status 1)" in answer
    assert "Failed opening Unix socket" in answer


def test_any_name_of_a_directory_is_only_a_name() -> None:
    """Special characters in it do not become part of the server's configuration."""
    with tempfile.TemporaryDirectory(prefix="tq-") as short:
        folder = Path(short) / 'a "b\nport 6379\nunknown \\x'
        folder.mkdir()
        system = System(folder)
        try:
            system.start(settings=["backend.storage_backend=Redis", "backend.Redis.auto_init=true"])
            client = system.client()
            client.put({"x": np.arange(4)}, partition_id="p")
            assert redis_cli("-s", str(system.runtime / "redis.sock"), "PING") == "PONG"
        finally:
            system.close()


def test_more_memory_than_there_is(tmp_path: Path) -> None:
    """A percentage is of the machine's memory."""
    for key in ("Redis.memory", "SimpleStorage.total_storage_size"):
        answer = refused(tmp_path, f"backend.{key}=999%", status=2)
        assert f"backend.{key}: 999% is more than the machine's memory" in answer


@pytest.mark.slow
def test_one_of_two_servers_ends_early(tmp_path: Path) -> None:
    """If the first server dies while the second one starts, neither is left running, and the error says so."""
    alone = shutil.copy(executable("tqd"), tmp_path / "tqd")
    impatient = tmp_path / "mooncake_client"  # the one next to tqd is used
    impatient.write_text(
        "#!/bin/sh\n"
        "for child in $(cat /proc/$PPID/task/$PPID/children); do\n"
        '    test "$child" = $$ || kill -9 "$child"\n'
        "done\n"
        f"echo $$ >{tmp_path}/pid\n"
        "exec sleep 100\n"
    )
    impatient.chmod(0o755)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    done = refused_by(alone, tmp_path, "backend.storage_backend=MooncakeStore", path=path)
    assert "a server of backend.MooncakeStore.auto_init has ended (signal 9) while" in done
    wait_exit(int((tmp_path / "pid").read_text()), 0)


def test_redis_is_not_installed(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """init() names the package to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"redis-server is neither .* install the system package"):
        transferq.init({"backend": section("Redis")})


def test_programs_without_python_say_where_a_backend_is(system: System) -> None:
    """`tq` cannot read backends that only the Python package supports."""
    system.start(
        settings=[
            "backend.storage_backend=MooncakeStore",
            "backend.MooncakeStore={auto_init: false}",
        ]
    )
    said = system.tq("get", "p", "k", status=1)
    assert "'MooncakeStore': it is for processes in Python: the package transferq brings it" in said


def test_mooncake_is_not_installed(tmp_path: Path) -> None:
    """The daemon names the extra to install."""
    alone = shutil.copy(executable("tqd"), tmp_path / "tqd")
    done = refused_by(alone, tmp_path, "backend.storage_backend=MooncakeStore", path="/nowhere")
    assert (
        "mooncake_master is neither beside tqd nor on PATH: install the extra 'mooncake' of transferq (see the README)"
        in done
    )


def test_a_value_that_is_none_is_an_error_of_the_configuration(runtime: Path) -> None:
    """The daemon names the key, after the option that set it."""
    with pytest.raises(ConfigError, match=r"backend\.Redis\.auto_init: expected true or false"):
        transferq.init({"backend": section("Redis", auto_init="maybe")})
