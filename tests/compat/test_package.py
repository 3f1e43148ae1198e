"""The distribution TransferQueue and its package transfer_queue."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import transfer_queue
import yaml
from packaging.requirements import Requirement

import transferq
import transferq.ray.actor

MODULES = [
    module.name
    for module in pkgutil.walk_packages(transfer_queue.__path__, "transfer_queue.")
    if not module.name.startswith("transfer_queue._")
]
# Names used only by programs written for the other package, without a counterpart in transferq.
OWN = {"ExplicitEnum", "ProductionStatus", "Role", "get_logger"}


def origin(name: str) -> object:
    """The transferq object with this name."""
    streaming = importlib.import_module("transferq.streaming")
    for module in (
        transferq,
        transferq.ray.actor,
        transferq.samplers,
        transferq.storage,
        streaming,
    ):
        if hasattr(module, name):
            return getattr(module, name)
    raise AssertionError(f"transferq has no {name}")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_the_objects_of_transferq(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    for name in getattr(loaded, "__all__", ()):
        assert name in OWN or getattr(loaded, name) is origin(name), name


def test_the_package_has_every_name_of_transferq() -> None:
    assert set(transfer_queue.__all__) == set(transferq.__all__)
    for name in transferq.__all__:
        assert getattr(transfer_queue, name) is getattr(transferq, name), name


def test_a_dependency_on_the_other_distribution_is_satisfied() -> None:
    found = importlib.metadata.distribution("transferqueue")
    assert found.metadata["Name"] == "TransferQueue"
    assert Requirement("transferqueue>=0.1.11").specifier.contains(found.version)
    assert found.version == f"{transferq.__version__}+transferq"
    assert any(
        Requirement(need) == Requirement(f"transferq[torch]=={transferq.__version__}")
        for need in found.requires or ()
    )


def test_version_and_default_configuration_are_in_the_package() -> None:
    files = resources.files("transfer_queue")
    assert (files / "version" / "version").read_text().strip() == transfer_queue.__version__
    defaults = yaml.safe_load((files / "config.yaml").read_text())
    assert defaults == transferq.config.defaults()


def test_a_mixed_installation_is_refused(tmp_path: Path) -> None:
    mixed = tmp_path / "transfer_queue"
    shutil.copytree(Path(transfer_queue.__file__).parent, mixed)
    code = "import transfer_queue; print(transfer_queue.__file__)"
    command = [sys.executable, "-c", code]
    whole = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert whole.stdout.strip() == str(mixed / "__init__.py")
    (mixed / "utils" / "zmq_utils.py").write_text("")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "utils/zmq_utils.py" in done.stderr
    assert "pip uninstall -y transferqueue" in done.stderr


def test_names_for_programs_of_the_other_package() -> None:
    from transfer_queue.utils.enum_utils import ProductionStatus, Role
    from transfer_queue.utils.logging_utils import get_logger

    assert Role("TransferQueueClient") is Role.CLIENT
    assert ProductionStatus("1") is ProductionStatus.READY_FOR_CONSUME
    with pytest.raises(ValueError, match=r"'nobody' is no Role"):
        Role("nobody")
    assert get_logger("tests.compat").name == "tests.compat"
