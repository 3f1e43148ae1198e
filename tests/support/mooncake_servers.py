"""A real Mooncake master for tests, and processes that store its data."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from support.addresses import free_ports


def program(name: str) -> str:
    """A program of the package, next to this Python."""
    return str(Path(sys.executable).parent / name)


class MooncakeMaster:
    """One mooncake_master on 127.0.0.1, and segments that store the data of its clients."""

    def __init__(self, segment: int = 0, patience: int = 60) -> None:
        """Start the master, with one segment of this many bytes, and wait until it serves.

        `patience`: seconds after which a put or get that was begun is considered abandoned.
        """
        self.patience = patience
        self.ports = free_ports(2)
        self.address = f"127.0.0.1:{self.ports[0]}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start(segment)

    def start(self, segment: int) -> None:
        """Start the master, possibly again after `stop`."""
        rpc, metrics = self.ports
        self.processes = [
            subprocess.Popen(
                [
                    program("mooncake_master"),
                    "--rpc_address=127.0.0.1",
                    f"--rpc_port={rpc}",
                    "--metrics_host=127.0.0.1",
                    f"--metrics_port={metrics}",
                    "--enable_metric_reporting=false",
                    "--logtostderr=true",
                    "--minloglevel=2",
                    "--rpc_thread_num=2",
                    "--client_ttl=3",
                    f"--put_start_discard_timeout_sec={self.patience}",
                    f"--put_start_release_timeout_sec={self.patience + 1}",
                    f"--default_kv_lease_ttl={self.patience * 1000}",
                ]
            )
        ]
        _wait_for(self.processes[0], rpc)
        if segment:
            self.add_segment(segment)

    def add_segment(self, size: int) -> None:
        """Start a process that stores data, and wait until the master knows it."""
        (port,) = free_ports(1)
        process = subprocess.Popen(
            [
                program("mooncake_client"),
                "--host=127.0.0.1",
                f"--port={port}",
                f"--master_server_address={self.address}",
                "--metadata_server=P2PHANDSHAKE",
                f"--global_segment_size={size}",
                "--protocol=tcp",
                "--logtostderr=true",
                "--minloglevel=2",
            ]
        )
        self.processes.append(process)
        _wait_for(process, port)

    def keys(self) -> int:
        """Number of values known to the master."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[1]}/metrics") as page:
            lines = page.read().decode().splitlines()
        (count,) = [line.split()[-1] for line in lines if line.startswith("master_key_count")]
        return int(float(count))

    def kill(self) -> None:
        """End only the master."""
        self.processes[0].kill()
        self.processes[0].wait()

    def stop(self) -> None:
        """End the master and the segments."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    ended = os.pidfd_open(process.pid)
    try:
        while not _accepts(port):
            # There is no notification that it serves; meanwhile, wait for its possible end.
            assert not select.select([ended], [], [], 0.02)[0], f"{process.args} has ended"
            assert time.monotonic() < deadline, f"{process.args} does not serve"
    finally:
        os.close(ended)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        # From another address: a socket that connects to a free port of its own address may connect to itself.
        probe.bind(("127.0.0.2", 0))
        return probe.connect_ex(("127.0.0.1", port)) == 0
