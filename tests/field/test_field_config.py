"""Configurations: misspelt keys, and keys of programs that pass their own configuration."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import transferq
from transferq import config
from transferq.errors import ConfigError


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"controler": {}}, "unknown key 'controler', did you mean 'controller'?"),
        (
            {"controller": {"samplr": "x"}},
            "unknown key 'controller.samplr', did you mean 'sampler'?",
        ),
        ({"timeout": 3}, "unknown key 'timeout', did you mean 'client.timeout'?"),
        ({"client": {"blue": 3}}, "unknown key 'client.blue'; client may have layout, "),
        ({"backend": {"SimpleStorag": {}}}, "did you mean 'SimpleStorage'?"),
        ({"backend": {"Nowhere": {}}}, "unknown key 'backend.Nowhere'; backend may have Moonc"),
        ({"backend": {"MooncakeStore": {"protocl": "tcp"}}}, "did you mean 'protocol'?"),
        ({"enable": True}, "'enable', which is for the program that hands it over: leave it out"),
    ],
)
def test_an_unknown_key_is_refused_with_what_was_meant(
    conf: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        transferq.init(conf)
    assert message in str(caught.value)


def test_an_unknown_key_of_a_file_is_refused_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("client:\n  timeout: 3\n\ncontroler:\n  sampler: GRPOGroupNSampler\n")
    with pytest.raises(ConfigError) as caught:
        transferq.init(path)
    assert str(caught.value).startswith(f"{path}:4: unknown key 'controler', did you mean")


def test_all_unknown_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'controller\.colour'.*'blue'"):
        config.read({"controller": {"colour": "red"}, "blue": 1})


@pytest.mark.parametrize("name", ["GRPOGroupNSampler", "SeqlenBalancedSampler"])
def test_a_sampler_of_groups_by_its_name_alone_warns(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_warned", set())
    caplog.set_level(logging.WARNING, "transferq")
    for said in (
        {"sampler": name, "sampling_config": {"n_samples_per_prompt": 1}},
        {"sampler": getattr(transferq, name)(4)},
        {"sampler": "SequentialSampler"},
    ):
        config.read({"controller": said})
    assert caplog.messages == []
    for _ in range(2):
        config.read({"controller": {"sampler": name}})
    [message] = caplog.messages
    assert f"{name} by its name makes groups of 1 sample" in message
    assert "n_samples_per_prompt" in message


def test_an_empty_section_of_a_backend_is_none() -> None:
    assert config.read({"backend": {"RayStore": None}}) == {"backend": {"RayStore": None}}
    assert config.settings(config.read({"backend": {"RayStore": None}})) == []
