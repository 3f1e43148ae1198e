"""A store of files shared by several processes, and a client of it in a separate process.

Usage: remover.py ADDRESS TOKEN_FILE; prints the keys that it removes, and runs until its input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import numpy as np

import transferq
from transferq.storage import StorageClientFactory

sys.path.append(str(Path(__file__).parents[2] / "examples" / "storage"))

from file_store import FileStore


@StorageClientFactory.register("SharedFiles")
class SharedFiles(FileStore):
    """Files in a folder; can be configured not to answer after writing."""

    answers: ClassVar[bool] = True

    def put_from(self, keys: list[str], pointers: list[list[int]], sizes: list[list[int]]) -> None:
        """Write files."""
        super().put_from(keys, pointers, sizes)
        if not self.answers:
            raise OSError("the store has not answered")

    def remove(self, keys: list[str]) -> list[bool]:
        """Remove files, and print their keys."""
        found = super().remove(keys)
        print("removed", *keys, flush=True)
        return found


def main() -> None:
    """Run the client."""
    client = transferq.TransferQueueClient("remover", transferq.ControllerInfo(*sys.argv[1:]))
    client.put({"x": np.array([1])}, partition_id="its own")
    client.clear_partition("its own")
    sys.stdin.read()


if __name__ == "__main__":
    main()
