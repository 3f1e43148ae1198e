"""A library named by the system's configuration is code: anyone with the token, or an address, could have it loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import transferq
from support.daemons import System, executable
from transferq.errors import ConfigError, TransferQueueError

ATTACH = """
import transferq
transferq.init(attach=True)
transferq.get_client().put({"x": [1, 2]}, partition_id="p")
transferq.close()
"""


@pytest.fixture
def library() -> str:
    """A plug-in from outside the tree."""
    return str(Path(os.environ["TQ_TEST_BUILD"]) / "src" / "manager" / "dir_store.so")


@pytest.fixture
def system(tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """A system that names the library, where this user's systems are found."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("TQ_LIBRARIES", "TQ_ADDRESS", "TQ_SYSTEM", "TQ_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    made = System(tmp_path)
    (tmp_path / "ctq").mkdir(mode=0o700)
    made.runtime = tmp_path / "ctq" / "default"
    made.token_file = str(made.runtime / "token")
    made.start(
        role="controller",
        settings=[
            "backend.storage_backend=DirStore",
            f'backend.DirStore={{path: "{tmp_path}/store", library: "{library}"}}',
        ],
    )
    yield made
    made.close()


def loaded(library: str) -> bool:
    """Whether the library is in this process."""
    return library in Path("/proc/self/maps").read_text()


def refused(library: str) -> str:
    """The error for the library."""
    return f"the system's configuration names the library {library} for backend DirStore, which this process has not allowed"


def test_an_address_alone_loads_nothing(system: System, library: str) -> None:
    """The error names the library and how to allow it; in Python, and in C."""
    with pytest.raises(ConfigError) as caught:
        system.client()
    assert refused(library) in str(caught.value)
    assert f"set TQ_LIBRARIES={library}" in str(caught.value)
    assert not loaded(library)
    said = system.tq("get", "p", "@0", status=1)
    assert refused(library) in said


@pytest.mark.parametrize("how", ["environment", "configuration", "handle"])
def test_who_allows_it(system: System, library: str, how: str) -> None:
    """The environment, the process's own configuration, or the handle in this user's own directory."""
    environment = dict(os.environ)
    code = ATTACH
    if how != "handle":
        environment = system.environment()
    if how == "environment":
        environment["TQ_LIBRARIES"] = f"/other.so:{library}:/another.so"
    if how == "configuration":
        code = ATTACH.replace(
            "init(",
            f'init({{"backend": {{"storage_backend": "DirStore", "DirStore": {{"library": {library!r}}}}}}}, ',
        )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if how == "handle":
        done = subprocess.run(
            [executable("tq"), "get", "p", "@0"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("listed", ["", "/other.so", "{}x", "x{}", "{}/", ":::"])
def test_only_the_path_itself_allows_it(
    system: System, library: str, listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that only begins or ends like it does not."""
    monkeypatch.setenv("TQ_LIBRARIES", listed.format(library))
    with pytest.raises(TransferQueueError, match="has not allowed"):
        transferq.TransferQueueClient(
            "x", transferq.ControllerInfo(system.address, system.token_file)
        )
    assert not loaded(library)
