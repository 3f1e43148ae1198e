"""Something else in place of a file of a checkpoint."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transferq.errors import CheckpointError


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.mkdir()


def a_circle(path: Path) -> None:
    path.symlink_to(path.name)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    # The path of a socket must be short.
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize("name", ["MANIFEST", "state.bin", "data.bin", "metadata.json"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_fifo, "it is a FIFO, not a file"),
        (a_directory, "it is a directory, not a file"),
        (a_circle, "its symbolic links lead in a circle"),
        (a_device, "it is a device, not a file"),
        (a_socket, "it is no file"),
    ],
)
def test_what_is_no_file_is_refused_at_once(
    client: Any, pid: str, tmp_path: Path, name: str, make: Callable[[Path], None], said: str
) -> None:
    """The error names checkpoint, file and its kind; nothing waits for a writer, and nothing is loaded."""
    path = tmp_path / "saved"
    client.put({"x": np.arange(4)}, partition_id=pid)
    client.save_checkpoint(str(path), partition_id=pid)
    (path / name).unlink()
    make(path / name)
    client.clear_partition(pid)
    with pytest.raises(CheckpointError) as caught:
        client.load_checkpoint(str(path), timeout=10)
    assert f"checkpoint {path}: {name}: {said}" in str(caught.value)
    assert pid not in client.get_partition_list()
