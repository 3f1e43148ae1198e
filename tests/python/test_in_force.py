"""Which requested settings have an effect in a running system, and how the others are reported."""

from __future__ import annotations

from typing import Any

import pytest

from transferq._core import memory_limit
from transferq._impl.in_force import differences, in_force, without_effect
from transferq.config import defaults

SYSTEM: dict[str, Any] = {
    "controller": {"sampler": "SequentialSampler", "session_grace": 10.0, "polling_mode": False},
    "backend": {
        "storage_backend": "SimpleStorage",
        "SimpleStorage": {"total_storage_size": 1 << 30, "num_data_storage_units": 2},
    },
    "net": {"bind": "10.0.0.1"},
    "client": {"timeout": 5.0},
    "log": {"level": "warn"},
}


def nested(key: str, value: Any) -> dict[str, Any]:
    """A configuration with one key."""
    for name in reversed(key.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backend.SimpleStorage.total_storage_size", "1GiB"),
        ("backend.SimpleStorage.total_storage_size", "1024 mib"),
        ("backend.SimpleStorage.total_storage_size", 1 << 30),
        (
            "backend.SimpleStorage.total_storage_size",
            f"{(1 << 30) / memory_limit()[0] * 100:.15f}%",
        ),
        ("backend.SimpleStorage.total_storage_size", 100_000),  # a count of samples limits nothing
        ("controller.session_grace", "10s"),
        ("controller.session_grace", "10000ms"),
        ("controller.session_grace", 10),
        ("controller.sampler", "GRPOGroupNSampler"),  # its claims request it
        ("controller.sampling_config", {"n_samples_per_prompt": 2}),
        ("controller.polling_mode", True),
        ("controller.listen", []),
        ("net.bind", "10.0.0.1"),
        ("net.port_range", None),
        ("client.timeout", 7),
        ("serialization.allow_pickle", False),
        ("ray.cluster", False),
        ("address", "unix:/elsewhere"),
        ("metrics.enabled", False),
        ("backend.Redis.url", "redis://elsewhere"),  # of a backend that is not used
        ("backend.storage_backend", "SimpleStorage"),
    ],
)
def test_wishes_with_an_effect(key: str, value: Any) -> None:
    given = nested(key, value)
    assert without_effect(given, SYSTEM) == []
    found: Any = in_force(SYSTEM, given)
    for name in key.split("."):
        found = found[name]
    assert found == value


@pytest.mark.parametrize(
    ("key", "value", "actual"),
    [
        ("backend.SimpleStorage.total_storage_size", "2GiB", 1 << 30),
        ("backend.SimpleStorage.num_data_storage_units", 3, 2),
        ("backend.storage_backend", "Redis", "SimpleStorage"),
        ("controller.session_grace", "11s", 10.0),
        ("net.bind", "10.0.0.2", "10.0.0.1"),
        ("net.interface", "eth7", None),
        ("metrics.enabled", True, False),
        ("log.level", "debug", "warn"),
    ],
)
def test_wishes_without_one(key: str, value: Any, actual: Any) -> None:
    given = nested(key, value)
    assert [tuple(each) for each in without_effect(given, SYSTEM)] == [(key, value, actual)]
    found: Any = in_force(SYSTEM, given)
    for name in key.split("."):
        found = found[name]
    assert found == actual


def test_null_is_no_wish() -> None:
    given = nested("backend.SimpleStorage.total_storage_size", None)
    assert without_effect(given, SYSTEM) == []
    assert in_force(SYSTEM, given).backend.SimpleStorage.total_storage_size == 1 << 30


def test_a_controller_that_polls_cannot_be_asked_to_wait() -> None:
    polls = {**SYSTEM, "controller": {"polling_mode": True}}
    (ignored,) = without_effect({"controller": {"polling_mode": False}}, polls)
    assert str(ignored) == "controller.polling_mode: false was asked for, true is in force"


def test_the_default_configuration_is_no_wish_that_differs() -> None:
    system = {"backend": {"storage_backend": "SimpleStorage"}}
    assert without_effect(defaults(), system) == []
    assert differences(defaults(), in_force(system, {})) == []


def test_passwords_are_not_shown() -> None:
    system = {"backend": {"storage_backend": "Redis", "Redis": {"url": "redis://:one@host:1"}}}
    (ignored,) = without_effect(nested("backend.Redis.url", "redis://me:two@host:2"), system)
    assert str(ignored) == (
        "backend.Redis.url: redis://***@host:2 was asked for, redis://***@host:1 is in force"
    )


def test_unknown_keys_stay_as_they_are() -> None:
    given = {"mine": {"a": 1}, "controller": {"typo": 2}}
    assert without_effect(given, SYSTEM) == []
    final = in_force(SYSTEM, given)
    assert (final["mine"], final["controller"]["typo"]) == ({"a": 1}, 2)
