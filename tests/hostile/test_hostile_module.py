"""A module named by the system's configuration is code, like a library: anyone with the token could have it imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemons import System

NAME = "tq_hostile_module"
SOURCE = """
import pathlib
pathlib.Path({mark!r}).write_text("imported")
from transferq.storage import StorageClientFactory
import file_store
StorageClientFactory.register("Elsewhere")(type("Elsewhere", (file_store.FileStore,), {{}}))
"""
ATTACH = """
import transferq
transferq.init(attach=True)
transferq.get_client().put({"x": [1, 2]}, partition_id="p")
transferq.close()
"""
OWN = f'{{"backend": {{"storage_backend": "Elsewhere", "Elsewhere": {{"module": {NAME!r}}}}}}}, '
EXAMPLES = Path(__file__).parents[2] / "examples" / "storage"


class Place:
    """A folder with the module, and with a system whose configuration names it."""

    def __init__(self, folder: Path, backend: str = "Elsewhere", module: str = NAME) -> None:
        """Start the system where this user's systems are found."""
        self.mark = folder / "mark"
        (folder / f"{NAME}.py").write_text(SOURCE.format(mark=str(self.mark)))
        self.system = System(folder)
        (folder / "ctq").mkdir(mode=0o700)
        self.system.runtime = folder / "ctq" / "default"
        self.system.token_file = str(self.system.runtime / "token")
        section = f'{{path: "{folder}/store", module: {module}}}'
        self.system.start(
            role="controller",
            settings=[f"backend.storage_backend={backend}", f"backend.{backend}={section}"],
        )
        path = os.pathsep.join([str(folder), str(EXAMPLES)])
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "PYTHONPATH": path}
        for name in ("TQ_LIBRARIES", "TQ_ADDRESS", "TQ_SYSTEM", "TQ_TOKEN_FILE"):
            self.environment.pop(name, None)

    def attach(self, code: str = ATTACH, *, handle: bool = False, **more: str) -> str:
        """The error of a process that attaches, by the address or by the handle; "" if there was none."""
        environment = {**self.environment, **more}
        if not handle:
            environment |= {
                "TQ_ADDRESS": self.system.address,
                "TQ_TOKEN_FILE": self.system.token_file,
            }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == (not done.stderr), done.stderr
        return done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A system that names the module."""
    made = Place(tmp_path)
    yield made
    made.system.close()


def test_an_address_alone_imports_nothing(place: Place) -> None:
    """The error names the module, the system and how to allow it."""
    said = place.attach()
    assert "ConfigError" in said
    assert f"names the module '{NAME}' for backend Elsewhere" in said
    assert f"the system 'default' at unix:{place.system.runtime}" in said
    assert f"set TQ_LIBRARIES={NAME}" in said
    assert "backend.Elsewhere.module" in said
    assert not place.mark.exists()


@pytest.mark.parametrize("how", ["environment", "configuration", "handle", "imported"])
def test_who_allows_it(place: Place, how: str) -> None:
    """The environment, the process's own configuration, the handle in this user's own directory, or an earlier import."""
    said = {
        "environment": lambda: place.attach(TQ_LIBRARIES=f"/other.so:{NAME}:other"),
        "configuration": lambda: place.attach(ATTACH.replace("init(", f"init({OWN}")),
        "handle": lambda: place.attach(handle=True),
        "imported": lambda: place.attach(f"import {NAME}\n{ATTACH}"),
    }[how]()
    assert said == ""
    assert place.mark.exists()


@pytest.mark.parametrize("listed", ["", "/other.so", "{}x", "x{}", "{}.y", ":::", "x.{}"])
def test_only_the_name_itself_allows_it(place: Place, listed: str) -> None:
    """A name that only begins or ends like it does not."""
    assert "has not allowed" in place.attach(TQ_LIBRARIES=listed.format(NAME))
    assert not place.mark.exists()


def test_a_backend_that_is_registered_needs_none(place: Place) -> None:
    """The process has a class for it: the module is not imported."""
    made = "from transferq.storage import StorageClientFactory\nimport file_store\n"
    made += 'StorageClientFactory.register("Elsewhere")(file_store.FileStore)\n'
    assert place.attach(made + ATTACH) == ""
    assert not place.mark.exists()


def test_a_module_beside_a_backend_of_ours(tmp_path: Path) -> None:
    """RayStore is known to every process, but the module named in its section is not."""
    place = Place(tmp_path, "RayStore")
    try:
        assert "has not allowed" in place.attach()
        assert not place.mark.exists()
    finally:
        place.system.close()


@pytest.mark.parametrize("module", ["5", ".relative", "[os]"])
def test_what_is_no_module_is_named(tmp_path: Path, module: str) -> None:
    """Even if it is allowed, and for a name that only has a meaning within a package."""
    place = Place(tmp_path, module=module)
    try:
        said = place.attach(TQ_LIBRARIES=module)
        assert "ConfigError: backend.Elsewhere.module: expected the name of a module, got" in said
    finally:
        place.system.close()


def test_no_module(tmp_path: Path) -> None:
    """An empty name means no module: the backend is unknown."""
    place = Place(tmp_path, module="''")
    try:
        assert "UnknownManagerError" in place.attach()
    finally:
        place.system.close()
