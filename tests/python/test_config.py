"""The configuration, without a system."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.daemons import executable
from transferq import GRPOGroupNSampler, SequentialSampler, config
from transferq._impl.config_keys import TABLE
from transferq.errors import ConfigError
from transferq.samplers import BaseSampler, Picked


def test_defaults_are_complete_and_separate() -> None:
    first = config.defaults()
    first["client"]["timeout"] = 1
    assert config.defaults()["client"]["timeout"] == 60
    assert first.backend.SimpleStorage.num_data_storage_units == 2
    with pytest.raises(AttributeError, match="no 'nothing'"):
        _ = first.nothing


def test_map_file_and_omegaconf_are_the_same(tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    given = {"controller": {"polling_mode": True}, "client": {"timeout": 2.5}}
    path = tmp_path / "conf.yaml"
    path.write_text("controller: {polling_mode: true}\nclient: {timeout: 2.5}\n")
    assert config.read(given) == given
    assert config.read(str(path)) == config.read(path) == given
    assert config.read(omegaconf.OmegaConf.create(given)) == given
    assert config.read(None) == {}


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"client": {"timeout": "soon"}}, "client.timeout: expected a number of seconds"),
        ({"client": {"timeout": 0}}, "client.timeout"),
        ({"client": 5}, "client: expected a map, got 5"),
        (
            {"controller": {"polling_mode": "yes"}},
            "controller.polling_mode: expected true or false, got 'yes'",
        ),
        ({"controller": {"sampler": 3}}, "controller.sampler"),
        ({"backend": {"SimpleStorage": {"num_data_storage_units": 0}}}, "num_data_storage_units"),
        ({"backend": {"SimpleStorage": {"total_storage_size": "much"}}}, "total_storage_size"),
        (
            {"backend": {"SimpleStorage": {"ssd_offload": {"enabled": True}}}},
            "SSD offload is not supported",
        ),
        ({"metrics": {"enabled": "often"}}, "metrics.enabled: expected true or false"),
        ({"metrics": {"port": 70000}}, "metrics.port: expected a number from 0 to 65535"),
        ({"metrics": {"max_partitions": -1}}, "metrics.max_partitions"),
        ({"ray": {"actor": "yes"}}, "ray.actor: expected true, false or null"),
        ([1], "must be a map"),
    ],
)
def test_bad_values_name_the_key(conf: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.read(conf)


def test_bad_files_name_the_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    for path in (bad, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError, match=path.name):
            config.read(path)


def test_programs_with_keys_of_their_own_are_warned_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that import the package transfer_queue; refusals in other programs are tested in tests/field."""
    monkeypatch.setattr(config._Host, "keys_of_its_own", True)
    monkeypatch.setattr(config, "_warned", set())
    caplog.set_level(logging.WARNING, "transferq")
    for _ in range(2):
        config.read(
            {
                "enable": True,
                "blue": 1,
                "backend": {"Nowhere": {}, "MooncakeStore": {"protocl": "rdma", "hard_pin": True}},
            }
        )
    assert sorted(caplog.messages) == [
        "configuration: unknown key 'backend.MooncakeStore.protocl' is ignored, did you mean 'protocol'?",
        "configuration: unknown key 'backend.Nowhere' is ignored; backend may have MooncakeStore, RayStore, Redis, "
        "SimpleStorage, Yuanrong, storage_backend",
        "configuration: unknown key 'blue' is ignored; the configuration may have address, backend, client, "
        "controller, limits, log, metrics, net, ray, serialization, storage, token_file",
    ]


def test_known_keys_of_backends_are_taken() -> None:
    config.read({"backend": {"RayStore": {"module": "mine", "device": "cpu"}, "MooncakeStore": {}}})
    config.read({"backend": {"Mine": {"module": "mine", "anything": 1}}})


def test_samplers_become_names() -> None:
    read = config.read({"controller": {"sampler": GRPOGroupNSampler(n_samples_per_prompt=4)}})
    assert read["controller"] == {
        "sampler": "GRPOGroupNSampler",
        "sampling_config": {"n_samples_per_prompt": 4},
    }
    assert (
        config.read({"controller": {"sampler": SequentialSampler}}).controller.sampler
        == "SequentialSampler"
    )
    with pytest.raises(ValueError, match="must be positive, got 0"):
        GRPOGroupNSampler(0)

    class Mine(BaseSampler):
        def sample(self, *args: object, **kwargs: object) -> Picked:
            return [], []

    name = config.read({"controller": {"sampler": Mine()}})["controller"]["sampler"]
    assert name == f"{__name__}:{Mine.__qualname__}"


def test_settings_for_the_daemon() -> None:
    settings = config.settings(
        config.read(
            {
                "controller": {"sampling_config": {"n": 1}, "zmq_info": None},
                "backend": {
                    "storage_backend": "Mine",
                    "SimpleStorage": {"total_storage_size": "8GiB", "num_data_storage_units": 3},
                    "Mine": {"path": "/x"},
                },
                "address": "unix:/y",
            }
        )
    )
    assert sorted(settings) == [
        'backend.Mine={"path": "/x"}',
        "backend.SimpleStorage.num_data_storage_units=3",
        'backend.SimpleStorage.total_storage_size="8GiB"',
        'backend.storage_backend="Mine"',
        'controller.sampling_config={"n": 1}',
    ]


def daemon_keys() -> dict[str, str]:
    """Keys of the daemon's configuration, with their defaults."""
    lines = subprocess.run(
        [executable("tqd"), "--help-config"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return {line.split()[0]: line.split()[2] for line in lines}


def test_defaults_are_those_of_the_daemon() -> None:
    """Without a configuration, `tqd` and `init()` start the same system."""
    daemon = daemon_keys()
    mine = config.defaults()
    compared = 0
    for path in TABLE:
        value: Any = mine
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if path in daemon and isinstance(value, (str, int)):
            assert yaml.safe_load(daemon[path]) == value, path
            compared += 1
    assert compared >= 10


def test_every_key_of_the_daemon_is_known_and_described() -> None:
    """`init()` accepts each of them, and config.yaml contains each, if only as a comment in a backend's section."""
    text = Path(config.__file__).with_name("config.yaml").read_text("utf-8")
    for path in daemon_keys():
        name = path.rpartition(".")[2]
        if name == "*" or path == "controller.first_counters":  # for tests
            continue
        assert path in TABLE, path
        assert re.search(rf"^ +(#   )?{name}: ", text, re.MULTILINE), path


def test_the_defaults_can_be_given(caplog: pytest.LogCaptureFixture) -> None:
    """config.yaml is a valid configuration: users begin with a copy of it."""
    assert config.read(Path(config.__file__).with_name("config.yaml")) == config.defaults()
    assert caplog.text == ""


def test_a_count_of_samples_limits_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def limit(size: int) -> list[str]:
        given = config.read({"backend": {"SimpleStorage": {"total_storage_size": size}}})
        return [setting for setting in config.settings(given) if "total" in setting]

    assert limit(100000) == []
    assert limit(1 << 30) == [f"backend.SimpleStorage.total_storage_size={1 << 30}"]
    assert "count of samples" in caplog.text


def test_an_omegaconf_comes_back_as_one() -> None:
    """The result of init() can be used like its argument."""
    omegaconf = pytest.importorskip("omegaconf")
    final = config.merge(config.defaults(), {"controller": {"zmq_info": object()}})
    assert config.as_given({"a": 1}, final) is final
    made = config.as_given(omegaconf.OmegaConf.create({}), final)
    assert isinstance(made, omegaconf.DictConfig)
    assert made.backend.storage_backend == "SimpleStorage"
    assert omegaconf.OmegaConf.select(made, "client.timeout") == final["client"]["timeout"]
    assert made.controller.zmq_info is final["controller"]["zmq_info"]
