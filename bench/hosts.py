"""Across nodes: two hosts as two network namespaces joined by a veth, a system on one and its client on the other.

Right before, the same bytes cross the same veth as a raw stream (raw.py).  The two hosts share this machine's cores, so
processor time used by one side is not available to the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.processes import cpu_seconds
from bench.subjects import ROOT, Subject
from bench.workloads import FIELDS, UNITS, WIDTH, WORKLOADS
from tests.support.daemons import Daemon
from tests.support.pods import Host, Hosts, read_line

PORT = 7000


def measure(rounds: int, scale: float, tick: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of put and get by round, for the queue and for the raw stream; or the reason why there are none."""
    if rounds == 0:
        return {"skipped": "it was not asked for", "rounds": []}
    with tempfile.TemporaryDirectory(prefix="tq-bench-") as folder, ExitStack() as stack:
        try:
            hosts = Hosts(Path(folder))
        except AssertionError as error:
            for _ in range(rounds):
                tick("hosts")
            return {"skipped": str(error), "rounds": []}
        stack.callback(hosts.close)
        size = WORKLOADS["simple"].rows(scale) * FIELDS * WIDTH * 4
        raw = stack.enter_context(_raw(hosts, size))
        daemon, client = stack.enter_context(_system(hosts, folder))
        for _ in range(UNITS):  # units take turns; warms each, and checks the data
            client.ask("batch", workload="simple", scale=scale, check=True)
        found = []
        for _ in range(rounds):
            streams = {step: raw(step) for step in ("put", "get")}
            before = cpu_seconds(daemon.pid)
            batch = client.ask("batch", workload="simple", scale=scale, check=False)
            assert batch["bytes"] == size
            used = cpu_seconds(daemon.pid) - before
            # Every byte goes in and comes out.
            found.append({"raw": streams, "transferq": batch, "daemon": used / (2 * size / 1e9)})
            tick("hosts")
        return {"rounds": found}


@contextmanager
def _system(hosts: Hosts, folder: str) -> Iterator[tuple[Daemon, Subject]]:
    """A system on the first host, with a client on the second."""
    with tempfile.TemporaryDirectory(prefix="tq-bench-") as own:
        token = Path(own) / "token"
        token.write_text(os.urandom(16).hex() + "\n")
        address = f"tcp:{hosts.first.address}:{PORT}"
        daemon = Daemon(
            "all-in-one",
            f"--runtime-dir={folder}/tq",
            f"--token-file={token}",
            f"--listen={address}",
            f"--set=backend.SimpleStorage.num_data_storage_units={UNITS}",
            log=Path(own) / "log",
            before=hosts.first.enter(),
        )
        try:
            assert daemon.answer == "ready", f"{daemon}: {daemon.log.read_text()}"
            with Subject(
                "transferq",
                ".venv",
                "transferq",
                before=hosts.second.enter(),
                TQ_ADDRESS=address,
                TQ_TOKEN_FILE=str(token),
            ) as client:
                client.ask("attach")
                yield daemon, client
                client.ask("close")
        finally:
            daemon.stop()


@contextmanager
def _raw(hosts: Hosts, size: int) -> Iterator[Callable[[str], float]]:
    """A raw stream between the hosts: yields a function that returns the seconds of a `put` or a `get`."""
    with _end("serve", hosts.first, hosts.first.address, size) as server:
        assert server.stdout is not None
        port = read_line(server.stdout, "the raw stream's port")
        with _end("ask", hosts.second, hosts.first.address, size) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            source, answers = client.stdin, client.stdout

            def ask(line: str) -> float:
                source.write(f"{line}\n")
                source.flush()
                return float(read_line(answers, f"raw {line}")) if line != port else 0.0

            ask(port)
            for step in ("put", "get"):
                ask(step)  # warm
            yield ask


@contextmanager
def _end(what: str, host: Host, address: str, size: int) -> Iterator[subprocess.Popen[str]]:
    """One end of a raw stream."""
    process = subprocess.Popen(
        [*host.enter(), sys.executable, str(ROOT / "bench" / "raw.py"), what, address, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate()
