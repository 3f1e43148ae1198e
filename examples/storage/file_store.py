"""A storage backend in Python: every value is a file in a directory that all workers share.

transferq.init({"backend": {"storage_backend": "PyFileStore",
                      "PyFileStore": {"module": "file_store", "path": "/mnt/shared/tq"}}})
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from transferq.storage import StorageClientFactory, StorageKVClient, memory


@StorageClientFactory.register("PyFileStore")
class FileStore(StorageKVClient):
    """Values by key, moved between files and addresses given by the library."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Make the directory."""
        super().__init__(config)
        self.path = os.path.abspath(config["path"])
        os.makedirs(self.path, exist_ok=True)

    @property
    def name(self) -> str:
        """The same in all processes."""
        return self.path

    def _file(self, key: str) -> str:
        return os.path.join(self.path, key.replace("/", "-"))

    def put_from(self, keys: list[str], pointers: list[list[int]], sizes: list[list[int]]) -> None:
        """Write a file per value."""
        for key, pieces, lengths in zip(keys, pointers, sizes, strict=True):
            with open(self._file(key), "wb", buffering=0) as file:
                for pointer, size in zip(pieces, lengths, strict=True):
                    file.write(memory(pointer, size))

    def get_into(self, keys: list[str], pointers: list[int], sizes: list[int]) -> list[bool]:
        """Read files into the given memory."""
        return [
            self._read(self._file(key), memory(pointer, size))
            for key, pointer, size in zip(keys, pointers, sizes, strict=True)
        ]

    def _read(self, name: str, into: memoryview) -> bool:
        try:
            with open(name, "rb", buffering=0) as file:
                return file.readinto(into) == len(into)
        except FileNotFoundError:
            return False

    def remove(self, keys: list[str]) -> list[bool]:
        """Remove files; a missing file is not an error."""
        return [self._unlink(self._file(key)) for key in keys]

    def _unlink(self, name: str) -> bool:
        try:
            os.unlink(name)
        except FileNotFoundError:
            return False
        return True
