"""How programs use the package transfer_queue: verl's configuration, NeMo-RL's changes to its actors."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import transfer_queue
from transfer_queue.controller import TransferQueueController
from transfer_queue.storage.simple_storage import SimpleStorageUnit

from transferq import config
from transferq.errors import UnsupportedError
from transferq.ray import actor as ray_actor

VERL = """
enable: {enable}
metrics:
  enabled: false
  port: 0
backend:
  storage_backend: SimpleStorage
  SimpleStorage:
    total_storage_size: 100000
    num_data_storage_units: 8
  MooncakeStore:
    auto_init: false
    metadata_server: localhost:50123
    master_server_address: localhost:50124
    local_hostname: localhost
    protocol: tcp
    global_segment_size: 4294967296
    local_buffer_size: 1073741824
    device_name: ""
"""
"""The keys and defaults that verl 0.9.1 passes (tests/compat/verl reads the file itself)."""


def settings_of(conf: object) -> list[str]:
    """The daemon's settings from a configuration; may log warnings."""
    return config.settings(config.read(conf))


def test_a_configuration_of_verl_gives_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_warned", set())
    caplog.set_level(logging.WARNING, "transferq")
    path = tmp_path / "verl.yaml"
    for enable in ("true", "false"):
        path.write_text(VERL.format(enable=enable))
        settings = settings_of(path)
        assert "backend.SimpleStorage.num_data_storage_units=8" in settings
        assert not any("total_storage_size" in setting for setting in settings)
    assert caplog.messages == []


def test_a_configuration_as_nemo_rl_makes_it_gives_no_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import resources

    from omegaconf import OmegaConf

    monkeypatch.setattr(config, "_warned", set())
    caplog.set_level(logging.WARNING, "transferq")
    base = OmegaConf.load(str(resources.files("transfer_queue") / "config.yaml"))
    simple = {"total_storage_size": 1_000_000, "num_data_storage_units": 2}
    overlay = {
        "controller": {"polling_mode": True},
        "backend": {"storage_backend": "SimpleStorage", "SimpleStorage": simple},
    }
    assert "controller.polling_mode=true" in settings_of(OmegaConf.merge(base, overlay))
    assert caplog.messages == []


def test_the_other_packages_own_configuration_is_taken(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).resolve().parents[2]
    [path] = root.glob(".venv-peer/lib/python*/site-packages/transfer_queue/config.yaml")
    monkeypatch.setattr(config, "_warned", set())
    caplog.set_level(logging.WARNING, "transferq")
    settings_of(path)
    assert caplog.messages == []


def test_another_unknown_key_is_warned_about_once_with_what_was_meant(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_warned", set())
    caplog.set_level(logging.WARNING, "transferq")
    for _ in range(2):
        config.read({"controler": {"sampler": "x"}})
    assert caplog.messages == [
        "configuration: unknown key 'controler' is ignored, did you mean 'controller'?"
    ]


def test_only_programs_that_import_it_by_this_name_may_have_other_keys() -> None:
    code = "import transferq; transferq.config.read({'enable': True})"
    alone = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert alone.returncode == 1
    assert "ConfigError: unknown key 'enable'" in alone.stderr
    both = [sys.executable, "-c", f"import transfer_queue; {code}"]
    done = subprocess.run(both, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- options of actors ------------------------------------------------------------------------------

PIN = "TransferQueue==0.1.9"


def patch_options(kind: type, monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
    """Replace `options` like a program that adds its own entries to every actor's options."""
    original = kind.options  # type: ignore[attr-defined]

    def patched(*args: object, **options: object) -> object:
        for name, value in more.items():
            options.setdefault(name, value)
        return original(*args, **options)

    monkeypatch.setattr(kind, "options", patched)


def test_both_actor_classes_have_options_and_remote() -> None:
    for kind in (SimpleStorageUnit, TransferQueueController):
        assert callable(kind.options)
        assert callable(kind.remote)
        assert ray_actor.wanted_options(kind) == {}
    assert transfer_queue.storage.SimpleStorageUnit is SimpleStorageUnit


@pytest.mark.parametrize("kind", [SimpleStorageUnit, TransferQueueController])
def test_a_replaced_options_adds_to_what_actors_are_made_with(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"pip": [PIN, "numpy"], "env_vars": {"A": "1"}}
    patch_options(kind, monkeypatch, runtime_env=env, resources={"r": 1})
    assert ray_actor.wanted_options(kind) == {  # type: ignore[arg-type]
        "runtime_env": {"pip": ["numpy"], "env_vars": {"A": "1"}},
        "resources": {"r": 1},
    }
    assert env["pip"] == [PIN, "numpy"]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"pip": [PIN]}, {}),
        ({"uv": ["Transfer_Queue>=0.1"]}, {}),
        (
            {"pip": {"packages": ["transferqueue", "x"]}},
            {"runtime_env": {"pip": {"packages": ["x"]}}},
        ),
        ({"pip": "requirements.txt"}, {"runtime_env": {"pip": "requirements.txt"}}),
        (None, {}),
    ],
)
def test_no_requirement_puts_the_other_package_in_the_place_of_this_one(
    asked: object, kept: dict[str, object]
) -> None:
    assert ray_actor.usable({"runtime_env": asked}) == kept


def test_storage_units_and_controllers_are_not_made_by_hand() -> None:
    with pytest.raises(UnsupportedError, match="started by init"):
        SimpleStorageUnit.options(num_cpus=1).remote(storage_unit_size=10)
    with pytest.raises(UnsupportedError, match="call init"):
        TransferQueueController.remote()


ACTOR = """
import os, ray, transfer_queue as tq
from transfer_queue.controller import TransferQueueController
from transferq.ray.actor import ACTOR_NAME, NAMESPACE
original = TransferQueueController.options
def patched(*args, **options):
    options.setdefault("runtime_env", {"pip": ["TransferQueue==0.1.9"], "env_vars": {"TQ_MARK": "seen"}})
    return original(*args, **options)
TransferQueueController.options = patched
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
tq.init({"backend": {"SimpleStorage": {"total_storage_size": "64MiB"}}})
actor = ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
read = lambda self: os.environ.get("TQ_MARK")
print(ray.get(actor.__ray_call__.remote(read)), ray.get(actor.list_partitions.remote()))
made = TransferQueueController.options(num_cpus=0).remote(tq.get_client().config.controller.zmq_info)
print(ray.get(made.__ray_call__.remote(read)), ray.get(made.address.remote()) == ray.get(actor.address.remote()))
tq.close()
"""


@pytest.mark.slow
def test_actors_of_a_system_on_ray_are_made_with_what_a_program_adds() -> None:
    # Socket paths must be short.
    with tempfile.TemporaryDirectory(prefix="tqr-", dir="/tmp") as short:
        places = {"XDG_RUNTIME_DIR": short, "RAY_TMPDIR": short}
        done = subprocess.run(
            [sys.executable, "-c", ACTOR],
            check=False,
            env={**os.environ, **places, "TQ_SYSTEM": "hosts"},
            capture_output=True,
            text=True,
            timeout=110,
        )
    assert done.stdout.splitlines() == ["seen []", "seen True"], done.stderr[-2000:]
