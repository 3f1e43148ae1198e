"""Where daemons listen and which addresses they advertise: addresses, interfaces, port ranges, IPv6."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.addresses import free_range, own_address
from support.daemons import Daemon, System, executable

SMALL = ["backend.SimpleStorage.total_storage_size=64MiB"]
ONE_UNIT = [*SMALL, "backend.SimpleStorage.num_data_storage_units=1"]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables set by the user who runs the tests must not affect them."""
    for name in ("TQ_INTERFACE", "TQ_BIND", "TQ_ADVERTISE_HOST", "TQ_PORT_RANGE"):
        monkeypatch.delenv(name, raising=False)


def tcp(addresses: str) -> list[str]:
    """The tcp endpoints of a list."""
    return [one for one in addresses.split(",") if one.startswith("tcp:")]


def unit_endpoints(system: System) -> dict[str, str]:
    """The storage units' advertised endpoints, from the daemons' logs."""
    found = {}
    for log in system.folder.glob("*.log"):
        for line in log.read_text().splitlines():
            if ": registered, serving " in line:
                name, _, endpoints = line.partition(" unit: ")[2].partition(
                    ": registered, serving "
                )
                found[name] = endpoints
    return found


def check_data(client: transferq.TransferQueueClient, partition: str = "p") -> None:
    """A put and a get, with a check of the data."""
    rows = np.arange(40_000, dtype=np.float32).reshape(4, 10_000)
    batch = client.put({"x": rows}, partition_id=partition)
    assert np.array_equal(np.stack(list(client.get_data(batch)["x"])), rows)
    client.clear_partition(partition)


def test_ipv6(system: System) -> None:
    """Controller, units, metrics and clients on IPv6; no unix socket but the controller's own."""
    system.start("--listen", "tcp:[::1]:0", role="controller", settings=["metrics.enabled=true"])
    (address,) = tcp(system.address)
    assert address.startswith("tcp:[::1]:")
    system.address = address
    system.join("--listen", "tcp:[::1]:0", name="six", settings=SMALL)
    assert all(one.startswith("tcp:[::1]:") for one in unit_endpoints(system).values())
    check_data(system.client())
    assert system.client("again").system_config["metrics"]["endpoint"].startswith("[::1]:")
    assert {one["name"] for one in system.status()["storage"]} == {"six-0", "six-1"}


def test_all_ports_are_of_the_range(system: System) -> None:
    """Every tcp endpoint without a configured port takes one of the range; the first that finds none left is an error."""
    first, last = free_range(4)
    system.start(
        settings=[
            *SMALL,
            "net.bind=127.0.0.1",
            f"net.port_range={first}-{last}",
            "metrics.enabled=true",
        ]
    )
    endpoints = [*tcp(system.address), *map(tcp, unit_endpoints(system).values())]
    (controller,) = tcp(system.address)
    units = [one for endpoint in unit_endpoints(system).values() for one in tcp(endpoint)]
    metrics = system.client().system_config["metrics"]["endpoint"]
    ports = {int(one.rpartition(":")[2]) for one in [controller, *units, metrics]}
    assert ports == set(range(first, last + 1)), endpoints
    refused = Daemon(
        "controller",
        "--token-file",
        system.token_file,
        "--set",
        "net.bind=127.0.0.1",
        "--set",
        f"net.port_range={first}-{last}",
        log=system.folder / "refused.txt",
    )
    assert refused.process.wait(30) == 1
    assert (
        f"tcp:127.0.0.1:{first}-{last}: every port of this range is in use, and it has 4"
        in refused.answer
    )


def test_the_environment_says_what_the_configuration_does_not(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TQ_INTERFACE, TQ_ADVERTISE_HOST and TQ_PORT_RANGE; the configuration takes precedence."""
    first, last = free_range(5)
    monkeypatch.setenv("TQ_INTERFACE", "lo")
    monkeypatch.setenv("TQ_ADVERTISE_HOST", "localhost")
    monkeypatch.setenv("TQ_PORT_RANGE", f"{first}-{last}")
    system.start(settings=[*ONE_UNIT, f"net.port_range={first}-{first + 1}"])
    assert tcp(system.address) == [f"tcp:localhost:{first}"]
    assert tcp(unit_endpoints(system)["unit-0"]) == [f"tcp:localhost:{first + 1}"]
    check_data(system.client(address=f"tcp:localhost:{first}"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["net.interface=tq-none"], "net.interface (TQ_INTERFACE): no address of a network"),
        (["net.port_range=20009-20000"], "net.port_range (TQ_PORT_RANGE): expected first-last"),
        (["net.port_range=many"], "net.port_range (TQ_PORT_RANGE): expected first-last"),
        (
            ["net.bind=127.0.0.1", "net.port_range=20000-20001"],
            "net.port_range (TQ_PORT_RANGE): 20000-20001 has 2 ports, and 3 are needed at 127.0.0.1: "
            "1 for the controller, 2 for storage units; give a longer range",
        ),
        (["net.bind=192.0.2.77"], "cannot listen on tcp:192.0.2.77:0"),
        *(
            ([f'net.advertise_host="{host}"'], "net.advertise_host (TQ_ADVERTISE_HOST): expected a")
            for host in ("other:7", "one,two", " ", "x" * 300)
        ),
    ],
)
def test_bad_settings(tmp_path: Path, settings: list[str], expected: str) -> None:
    """Invalid settings are refused by the name of their key, and nothing is left."""
    options = [word for setting in settings for word in ("--set", setting)]
    daemon = Daemon(
        "all-in-one", "--runtime-dir", str(tmp_path / "run"), *options, log=tmp_path / "log"
    )
    assert daemon.process.wait(30) == 1
    assert expected in daemon.answer
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("everything", ["0.0.0.0", "::"])
def test_all_addresses_are_given_away_as_one(system: System, everything: str) -> None:
    """A daemon that listens on all addresses advertises a usable one, which is the loopback's only without a network."""
    system.start(settings=[*ONE_UNIT, f"net.bind='{everything}'", "metrics.enabled=true"])
    (controller,) = tcp(system.address)
    (unit,) = tcp(unit_endpoints(system)["unit-0"])
    hosts = {one.removeprefix("tcp:").rpartition(":")[0] for one in (controller, unit)}
    hosts.add(system.client().system_config["metrics"]["endpoint"].rpartition(":")[0])
    assert len(hosts) == 1
    address = own_address()
    assert hosts == {address or "127.0.0.1"} or (everything == "::" and "[" in str(hosts))
    check_data(system.client(address=controller))


def test_loopback_stays_what_it_is(system: System) -> None:
    """A daemon bound to the loopback is reached there, and so are its units."""
    system.start("--listen", "tcp:127.0.0.1:0", settings=ONE_UNIT)
    assert tcp(system.address)[0].startswith("tcp:127.0.0.1:")
    assert tcp(unit_endpoints(system)["unit-0"])[0].startswith("tcp:127.0.0.1:")


def test_a_unit_listens_where_it_sees_the_controller(system: System) -> None:
    """A storage daemon that is given only the controller's address is reachable in the same way as the controller."""
    system.start("--listen", "tcp:127.0.0.1:0", role="controller")
    (system.address,) = tcp(system.address)
    system.join(name="plain", settings=ONE_UNIT)
    assert unit_endpoints(system)["plain-0"].startswith("tcp:127.0.0.1:")
    check_data(system.client())


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_unit_beside_its_controller_listens_by_the_address_that_it_joins(
    system: System, family: str
) -> None:
    """One machine, joined by its network address: workers on other machines reach the unit like the controller."""
    address = own_address(socket.AF_INET6 if family == "IPv6" else socket.AF_INET)
    if address is None:
        pytest.skip(f"this machine has no {family} address of its own")
    host = f"[{address}]" if ":" in address else address
    system.start("--listen", f"tcp:{host}:0", role="controller")
    (system.address,) = tcp(system.address)
    system.join(name="plain", settings=ONE_UNIT)
    assert unit_endpoints(system)["plain-0"].startswith(f"tcp:{host}:")
    assert "on this machine only" not in (system.folder / "plain.log").read_text()
    check_data(system.client())


def test_a_unit_that_joins_by_the_loopback_says_that_it_stays_there(system: System) -> None:
    """If a daemon on all addresses is joined through the loopback, the unit's log explains the consequences."""
    system.start("--listen", "tcp:0.0.0.0:0", role="controller")
    port = tcp(system.address)[0].rpartition(":")[2]
    system.address = f"tcp:127.0.0.1:{port}"
    system.join(name="plain", settings=ONE_UNIT)
    assert unit_endpoints(system)["plain-0"].startswith("tcp:127.0.0.1:")
    assert (
        f"storage units are reached from this machine only, since {system.address} is the "
        "loopback: for workers on other machines --join the controller's address in the network"
    ) in (system.folder / "plain.log").read_text()


def test_an_unknown_controller_is_named(tmp_path: Path) -> None:
    """An unknown name is an error at once, unless the configuration makes the lookup unnecessary."""
    (tmp_path / "token").write_text("secret")
    join = ("--join", "tcp:no-such-host.invalid:7000", "--token-file", str(tmp_path / "token"))
    daemon = Daemon("storage", *join, log=tmp_path / "log")
    assert daemon.process.wait(30) == 1
    assert "tcp:no-such-host.invalid:7000: look-up of the name" in daemon.answer
    assert "net.interface" in daemon.answer


def test_a_client_takes_the_endpoint_that_works(running: System, tmp_path: Path) -> None:
    """Of several endpoints: a missing one, one of another system, a port without a server, the right one."""
    other = System(tmp_path / "other")
    other.folder.mkdir()
    try:
        other.start(settings=SMALL)
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            address = (
                f"unix:{tmp_path}/none.sock,{other.address},tcp:127.0.0.1:{port},{running.address}"
            )
            check_data(running.client(address=address))
        assert running.client("seen").get_partition_list() == []
    finally:
        other.close()


def test_init_starts_a_system_for_others(tmp_path: Path) -> None:
    """init() with net.bind: its result works for a process that sees no file of this machine except the token."""
    first, last = free_range(6)
    code = f"""
import json, sys, transferq
conf = transferq.init({{
    "net": {{"bind": "127.0.0.1", "port_range": "{first}-{last}"}},
    "backend": {{"SimpleStorage": {{"total_storage_size": "64MiB"}}}},
}})
print(json.dumps([conf.address, conf.token_file]), flush=True)
sys.stdin.read()
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TQ_SYSTEM": "others"}
    for name in ("TQ_ADDRESS", "XDG_RUNTIME_DIR"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        address, token_file = json.loads(owner.stdout.readline())
        (controller,) = tcp(address)
        client = transferq.TransferQueueClient(
            "elsewhere", transferq.ControllerInfo(controller, token_file)
        )
        check_data(client)
        client.close()
        owner.stdin.close()
        assert owner.wait(30) == 0


def test_help_names_the_keys() -> None:
    """`tqd --help-config` lists all of them, with the environment variables."""
    text = subprocess.run(
        [executable("tqd"), "--help-config"], capture_output=True, text=True, check=True
    ).stdout
    for key, variable in {
        "net.interface": "TQ_INTERFACE",
        "net.bind": "TQ_BIND",
        "net.advertise_host": "TQ_ADVERTISE_HOST",
        "net.port_range": "TQ_PORT_RANGE",
    }.items():
        assert any(line.startswith(key) and variable in line for line in text.splitlines())
