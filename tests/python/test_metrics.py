"""get_metrics_endpoint() and its metrics: the names of TransferQueue's, and values after known calls."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import transferq
from transferq.errors import ConfigError

ROOT = Path(__file__).parents[2]

PEER = {
    "tq_controller_request_duration_seconds": ("histogram", ["op_type"]),
    "tq_controller_request": ("counter", ["op_type"]),
    "tq_controller_request_errors": ("counter", ["op_type"]),
    "tq_controller_request_samples": ("counter", ["op_type"]),
    "tq_controller_uptime_seconds": ("gauge", []),
    "tq_controller_memory_rss_bytes": ("gauge", []),
    "tq_partitions_total": ("gauge", []),
    "tq_partition_samples_total": ("gauge", ["partition_id"]),
    "tq_partition_production_progress": ("gauge", ["partition_id", "task_name"]),
    "tq_partition_consumption_progress": ("gauge", ["partition_id", "task_name"]),
    "tq_global_index_allocated_total": ("gauge", []),
    "tq_global_index_reusable_total": ("gauge", []),
    "tq_storage_capacity_total": ("gauge", None),
    "tq_storage_active_keys_total": ("gauge", ["storage_unit_id"]),
    "tq_storage_utilization_ratio": ("gauge", ["storage_unit_id"]),
    "tq_storage_memory_rss_bytes": ("gauge", ["storage_unit_id"]),
    "tq_storage_ssd_offload_enabled": ("gauge", ["storage_unit_id"]),
    "tq_storage_ssd_active_values": ("gauge", ["storage_unit_id"]),
    "tq_storage_ssd_active_bytes": ("gauge", ["storage_unit_id"]),
    "tq_storage_ssd_fallback_values_total": ("gauge", ["storage_unit_id"]),
    "tq_storage_requests_arrived": ("gauge", ["storage_unit_id"]),
    "tq_storage_arrivals_by_op": ("gauge", ["storage_unit_id", "op_type"]),
    "tq_storage_accept_queue_backlog": ("gauge", None),
    "tq_storage_accept_queue_peak": ("gauge", None),
    "tq_storage_accept_queue_peak_utilization_ratio": ("gauge", None),
    "tq_storage_socket_drops": ("gauge", None),
    "tq_storage_listen_overflows": ("gauge", None),
    "tq_storage_listen_other_drops": ("gauge", None),
    "tq_storage_request_ops": ("gauge", ["storage_unit_id", "op_type"]),
    "tq_storage_request_latency_avg": ("gauge", ["storage_unit_id", "op_type"]),
    "tq_storage_request_latency_p50": ("gauge", ["storage_unit_id", "op_type"]),
    "tq_storage_request_latency_p99": ("gauge", ["storage_unit_id", "op_type"]),
}
"""Families of transferqueue 0.1.11, their types and labels; None: announced, without a series here."""


class Scrape:
    """One answer of /metrics."""

    def __init__(self, endpoint: str) -> None:
        with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=20) as answer:
            self.type = answer.headers["Content-Type"]
            self.families = {
                family.name: family
                for family in text_string_to_metric_families(answer.read().decode())
            }
        self.samples: dict[str, list[Any]] = {}
        for family in self.families.values():
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append(sample)

    def value(self, name: str, **labels: str) -> float:
        """The value of one series."""
        (sample,) = [s for s in self.samples[name] if labels.items() <= s.labels.items()]
        return float(sample.value)


@pytest.fixture(scope="module")
def endpoint(runtime_dir: Path) -> Iterator[str]:
    """A system with metrics; yields their address."""
    transferq.init(
        {
            "backend": {"SimpleStorage": {"total_storage_size": "64MiB"}},
            "client": {"timeout": 20},
            "metrics": {"enabled": True},
        }
    )
    found = transferq.get_metrics_endpoint()
    assert found is not None
    yield found
    transferq.close()


def fill(partition: str) -> None:
    """Six samples with two fields, four of them claimed, one cleared, and a claim that is refused."""
    client = transferq.get_client()
    client.put(
        {"prompt": np.zeros((6, 4), np.float32), "text": [f"row {i}" for i in range(6)]},
        partition_id=partition,
    )
    client.get_meta(["prompt"], 4, partition, task_name=f"{partition}-train")
    cleared = client.get_meta(["prompt"], 1, partition, mode="force_fetch", task_name="any")
    client.clear_samples(cleared.select_samples([0]))
    with pytest.raises(ValueError):
        client.get_meta(["prompt"], -1, partition, task_name=f"{partition}-train")


def test_the_peers_names_types_and_labels(endpoint: str) -> None:
    assert re.fullmatch(r"127\.0\.0\.1:\d+", endpoint)
    fill("peer")
    scrape = Scrape(endpoint)
    assert scrape.type == "text/plain; version=0.0.4; charset=utf-8"
    for name, (kind, labels) in PEER.items():
        family = scrape.families[name]
        assert family.type == kind, name
        if labels is None:
            assert family.samples == [], name
            continue
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(labels), sample


def test_values_after_known_calls(endpoint: str) -> None:
    before = Scrape(endpoint)
    fill("known")
    after = Scrape(endpoint)

    def grown(name: str, **labels: str) -> float:
        series = [s for s in before.samples[name] if labels.items() <= s.labels.items()]
        return after.value(name, **labels) - (float(series[0].value) if series else 0)

    assert after.value("tq_partition_samples_total", partition_id="known") == 5
    progress = {"partition_id": "known", "task_name": "known-train"}
    assert after.value("tq_partition_production_progress", **progress) == 1
    assert after.value("tq_partition_consumption_progress", **progress) == pytest.approx(3 / 5)
    assert after.value("tq_task_ready_samples", task="known-train") == 2
    assert after.value("tq_task_samples_total", task="known-train") == 4
    assert after.value("tq_task_bytes_total", task="known-train") == 4 * 16
    assert after.value("tq_task_claim_wait_seconds_count", task="known-train") == 1
    assert grown("tq_field_cells_total", field="prompt") == 6
    assert grown("tq_field_bytes_total", field="prompt") == 6 * 16
    assert grown("tq_field_cells_total", field="text") == 6
    assert grown("tq_controller_request_total", op_type="NOTIFY_DATA_UPDATE") == 1
    assert grown("tq_controller_request_samples_total", op_type="NOTIFY_DATA_UPDATE") == 6
    assert grown("tq_controller_request_samples_total", op_type="CLEAR_META") == 1
    assert grown("tq_controller_request_errors_total", op_type="GET_META") == 0
    assert after.value("tq_global_index_reusable_total") >= 1
    assert after.value("tq_sessions", state="connected") >= 2
    assert after.value("tq_controller_memory_rss_bytes") > 1 << 20
    assert 0 < after.value("tq_owner_capacity_bytes", owner="unit-0") <= 64 << 20


def test_histograms_are_cumulative(endpoint: str) -> None:
    fill("histogram")
    scrape = Scrape(endpoint)
    name = "tq_controller_request_duration_seconds"
    buckets = [
        s for s in scrape.samples[name + "_bucket"] if s.labels["op_type"] == "NOTIFY_DATA_UPDATE"
    ]
    bounds = [float(s.labels["le"]) for s in buckets]
    counts = [s.value for s in buckets]
    assert bounds == sorted(bounds) and bounds[-1] == float("inf")
    assert counts == sorted(counts)
    assert counts[-1] == scrape.value(name + "_count", op_type="NOTIFY_DATA_UPDATE")
    assert scrape.value(name + "_sum", op_type="NOTIFY_DATA_UPDATE") > 0


def test_names_of_any_text(endpoint: str) -> None:
    name = 'a"b\\c d {é} 数据'
    transferq.kv_put("k", name, fields={"x": np.float32(1)})
    assert Scrape(endpoint).value("tq_partition_samples_total", partition_id=name) == 1
    transferq.get_client().clear_partition(name)
    assert all(
        s.labels["partition_id"] != name
        for s in Scrape(endpoint).samples["tq_partition_samples_total"]
    )


def test_attached_processes_find_it(endpoint: str) -> None:
    code = "import transferq; transferq.init(attach=True); print(transferq.get_metrics_endpoint()); transferq.close()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == endpoint
    assert transferq.init()["metrics"]["endpoint"] == endpoint


def test_the_dashboard_asks_for_what_is_served(endpoint: str) -> None:
    """A system at work has every metric and every label in the dashboard's expressions."""
    fill("dashboard")
    samples = Scrape(endpoint).samples
    dashboard = json.loads((ROOT / "docs/grafana/transfer-queue.json").read_text())
    targets = [t for panel in dashboard["panels"] for t in panel.get("targets", [])]
    variables = [
        v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"
    ]
    expressions = [t["expr"] for t in targets] + variables
    assert len(targets) >= 12
    for expression in expressions:
        names = set(re.findall(r"\btq_\w+", expression))
        assert names, expression
        assert names <= samples.keys(), expression
        served = {"le"}.union(*(s.labels.keys() for name in names for s in samples[name]))
        asked = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression))
        for group in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression):
            asked |= {label.strip() for label in group.split(",")}
        asked |= set(re.findall(r"label_values\([^,]*,\s*(\w+)\)", expression))
        assert asked <= served | {"job", "instance"}, expression
    for target in targets:
        served = {"le", "job", "instance"}.union(
            *(s.labels.keys() for n in re.findall(r"\btq_\w+", target["expr"]) for s in samples[n])
        )
        shown = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
        assert shown <= served, target


def test_without_metrics_there_is_no_endpoint(
    runtime_dir: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import transferq
print(transferq.get_metrics_endpoint())
transferq.init({"backend": {"SimpleStorage": {"total_storage_size": "8MiB"}}})
print(transferq.get_metrics_endpoint())
transferq.close()
"""
    monkeypatch.setenv("TQ_SYSTEM", "plain")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["None", "None"]


def test_a_port_in_use_is_named(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = endpoint.split(":")[1]
    code = f"""
import transferq
try:
    transferq.init({{"metrics": {{"enabled": True, "port": {port}}}}})
except transferq.errors.{ConfigError.__name__} as error:
    print(error)
"""
    monkeypatch.setenv("TQ_SYSTEM", "second")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"metrics.port: cannot listen on tcp:127.0.0.1:{port}" in done.stdout, done.stderr
    assert "in use" in done.stdout


def test_other_paths_and_methods(endpoint: str) -> None:
    def status(path: str, method: str = "GET", data: bytes | None = None) -> int:
        request = urllib.request.Request(f"http://{endpoint}{path}", method=method, data=data)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status("/") == 200
    assert status("/metrics?x=1") == 200
    assert status("/metrics", "HEAD") == 200
    assert status("/metrics/") == 404
    assert status("/favicon.ico") == 404
    assert status("/metrics", "POST", b"x" * 1000) == 405
    assert status("/metrics", "DELETE") == 405
