"""/metrics of real daemons: many scrapers, bad ones, many partitions, units elsewhere, `tq serve`."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.addresses import own_address
from support.daemons import System, executable

SMALL = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]
METRICS = [*SMALL, "metrics.enabled=true"]


def endpoint_of(system: System) -> str:
    """The address of its metrics."""
    endpoint: str = system.client("asks").system_config["metrics"]["endpoint"]
    return endpoint


def scrape(endpoint: str) -> str:
    """The text of /metrics."""
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every series with its value; parsing detects duplicate series."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = float(sample.value)
    return found


@pytest.fixture
def measured(system: System) -> str:
    """A system in one daemon that serves metrics; returns their address."""
    system.start(settings=METRICS)
    return endpoint_of(system)


def test_scrapes_while_the_system_works(system: System, measured: str) -> None:
    """Counters only grow and every text is complete, whatever else happens."""
    stop = threading.Event()
    texts: list[list[str]] = [[] for _ in range(4)]

    def watch(out: list[str]) -> None:
        while not stop.is_set():
            out.append(scrape(measured))

    def work(number: int) -> None:
        client = system.client(f"worker-{number}")
        for step in range(20):
            partition = f"step-{step}-{number}"
            client.put({"x": np.arange(8)}, partition_id=partition)
            client.get_meta(["x"], 4, partition, task_name="train")
            client.clear_partition(partition)

    watchers = [threading.Thread(target=watch, args=(out,)) for out in texts]
    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in watchers + workers:
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    for thread in watchers:
        thread.join()
    for out in texts:
        assert out
        counts = [
            values(text).get(("tq_task_samples_total", (("task", "train"),)), 0) for text in out
        ]
        assert counts == sorted(counts)
    last = values(scrape(measured))
    assert last["tq_task_samples_total", (("task", "train"),)] == 3 * 20 * 4
    assert last["tq_field_cells_total", (("field", "x"),)] == 3 * 20 * 8
    assert last["tq_partitions_total", ()] == 0


def test_bad_http_clients_do_no_harm(system: System, measured: str) -> None:
    """Half a request, garbage, readers that do not read: the daemon serves others and stops at once."""
    host, port = measured.split(":")
    with ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection((host, int(port)), timeout=20))

        for _ in range(20):
            connect().sendall(b"GET /metr")
        for _ in range(4):
            connect()  # never sends anything
        garbage = connect()
        garbage.sendall(os.urandom(100) + b"\r\n\r\n")
        unread = connect()
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        unread.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        gone = connect()
        gone.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        gone.close()
        client = system.client()
        client.put({"x": np.arange(4)}, partition_id="p")
        assert values(scrape(measured))["tq_samples", ()] == 4
        assert system.daemons[0].terminate() == 0


def test_connections_of_one_host_are_bounded(measured: str) -> None:
    """One host opening many connections does not exhaust the daemon: 64 are kept, and the oldest are closed for new ones."""
    host, port = measured.split(":")
    with ExitStack() as stack:
        many = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            for _ in range(80)
        ]
        for one in many[:16]:
            assert one.recv(1) == b""
        assert not select.select(many[16:], [], [], 0)[0]


@pytest.mark.slow
def test_ten_thousand_partitions(system: System, measured: str) -> None:
    """A scrape of many partitions stays small, and takes little of the controller's processor time."""
    client = system.client()
    for n in range(10_000):
        client.get_meta(["x"], 1, f"p{n}", mode="insert", task_name="t")
    before = system.daemons[0].seconds()
    text = scrape(measured)
    took = system.daemons[0].seconds() - before
    found = values(text)
    assert found["tq_partitions_total", ()] == 10_000
    assert found["tq_partitions_without_series", ()] == 10_000 - 256
    assert found["tq_samples", ()] == 10_000
    assert ("tq_partition_samples_total", (("partition_id", "p9999"),)) in found
    assert ("tq_partition_samples_total", (("partition_id", "p0"),)) not in found
    assert len(text) < 200_000
    assert took < 1


def test_units_elsewhere_report_their_requests(system: System) -> None:
    """Units in separate daemons, reached over TCP: their requests appear in the controller's metrics."""
    system.start("--listen", "tcp:127.0.0.1:0", "--set", "metrics.enabled=true", role="controller")
    system.join("--listen", "tcp:127.0.0.1:0", name="far", settings=SMALL)
    endpoint = endpoint_of(system)
    client = system.client()
    put = client.put({"x": np.arange(1000)}, partition_id="p")
    client.get_data(put)
    unit = ("storage_unit_id", "far-0")
    found = values(scrape(endpoint))
    # Growth is reported within 200 ms; that is tested where the unit's loop is accessible.
    for op in ("PUT_DATA", "GET_DATA", "CLEAR_DATA"):
        assert found["tq_storage_request_ops", (("op_type", op), unit)] >= 0
        assert found["tq_storage_request_latency_p99", (("op_type", op), unit)] >= 0
    assert found["tq_storage_active_keys_total", (unit,)] == 1
    assert found["tq_storage_memory_rss_bytes", (unit,)] > 1 << 20
    assert found["tq_owner_capacity_bytes", (("owner", "far-0"),)] == 64 << 20
    assert found["tq_owner_up", (("owner", "far-0"),)] == 1


def free_port() -> int:
    """A currently unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("listen", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("0.0.0.0", None)]
)
def test_where_it_listens(system: System, listen: str, shown: str | None) -> None:
    """A configured address and port; for the address of all interfaces, the log shows a reachable one."""
    port = free_port()
    system.start(settings=[*METRICS, f"metrics.port={port}", f"metrics.listen='{listen}'"])
    assert endpoint_of(system) == f"{shown or own_address() or '127.0.0.1'}:{port}"
    reached = "127.0.0.1" if shown is None else shown
    assert "tq_partitions_total 0\n" in scrape(f"{reached}:{port}")


@pytest.fixture
def serve(system: System) -> Iterator[subprocess.Popen[str]]:
    """`tq serve` with metrics."""
    process = subprocess.Popen(
        [executable("tq"), "serve", "--runtime-dir", str(system.runtime)]
        + [word for setting in METRICS for word in ("--set", setting)],
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def test_serve_says_where(serve: subprocess.Popen[str]) -> None:
    assert serve.stderr is not None
    line = next(line for line in serve.stderr if "metrics at http://" in line)
    endpoint = line.split("http://")[1].split("/")[0]
    assert "tq_partitions_total 0\n" in scrape(endpoint)


def test_off_by_default(running: System) -> None:
    assert "endpoint" not in running.client().system_config["metrics"]
