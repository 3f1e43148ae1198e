"""Stores written the way users of TransferQueue write them: a value-form client, and a storage manager.

Both keep each cell as a file, replaced atomically, in a folder shared by all processes. Every client imports this
module, because the configuration names it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import transferq
from transferq._impl.columns import rows_of_schema, schema_of_fields
from transferq._impl.tensors import pack_rows, row_list, tensordict_of
from transferq.storage import StorageClientFactory, StorageKVClient, StorageManagerFactory

MISSING = object()


class Folder:
    """Objects by key."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.path.mkdir(exist_ok=True)

    def file(self, key: str) -> Path:
        """The file of the object with this key."""
        return self.path / hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()

    def put(self, key: str, value: Any) -> None:
        """Write or replace an object."""
        place = self.file(key)
        started = place.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        if isinstance(value, torch.Tensor) and value.layout == torch.strided:
            value = value.clone(memory_format=torch.contiguous_format)  # drops unviewed memory
        with started.open("wb") as file:
            torch.save(value, file, pickle_protocol=5)
        started.replace(place)

    def get(self, key: str) -> Any:
        """The object, or MISSING."""
        try:
            return torch.load(self.file(key), weights_only=False)
        except FileNotFoundError:
            return MISSING

    def remove(self, key: str) -> None:
        """Remove the object, if it exists."""
        self.file(key).unlink(missing_ok=True)


@StorageClientFactory.register("ValueFiles")
class ValueFiles(StorageKVClient):
    """A client of the value form."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.folder = Folder(config["path"])

    def put(self, keys: list[str], values: list[Any]) -> list[Any]:
        for key, value in zip(keys, values, strict=True):
            self.folder.put(key, value)
        return [{"length": len(key)} for key in keys]

    def get(
        self,
        keys: list[str],
        shapes: list[Any] | None = None,
        dtypes: list[Any] | None = None,
        custom_backend_meta: list[Any] | None = None,
    ) -> list[Any]:
        assert custom_backend_meta == [{"length": len(key)} for key in keys]
        found = [self.folder.get(key) for key in keys]
        return [None if value is MISSING else value for value in found]

    def clear(self, keys: list[str], custom_backend_meta: list[Any] | None = None) -> None:
        for key in keys:
            self.folder.remove(key)


@StorageManagerFactory.register("FileManager")
class FileManager(transferq.StorageManager):
    """A manager that keys by partition, index and field."""

    def __init__(self, controller_info: Any, config: Mapping[str, Any], zmq_context: Any = None):
        super().__init__(controller_info, config, zmq_context)
        self.folder = Folder(config["path"])

    @staticmethod
    def cells(metadata: transferq.BatchMeta, name: str) -> list[str]:
        """Keys of the cells of a field."""
        return [
            f"{partition}/{index}/{name}"
            for partition, index in zip(
                metadata.partition_ids, metadata.global_indexes, strict=True
            )
        ]

    async def put_data(
        self, data: Any, metadata: transferq.BatchMeta, data_parser: Any = None
    ) -> None:
        schema = schema_of_fields(data)
        for name in schema:
            rows = row_list(name, data.get(name), metadata.size)
            for key, row in zip(self.cells(metadata, name), rows, strict=True):
                self.folder.put(key, row)
        start = 0
        for part in metadata.chunk_by_partition():
            of_part = {
                name: rows_of_schema(field, start, start + part.size)
                for name, field in schema.items()
            }
            await self.notify_data_update(part.partition_ids[0], part.global_indexes, of_part)
            start += part.size

    async def get_data(self, metadata: transferq.BatchMeta) -> Any:
        columns: dict[str, Any] = {}
        for name in metadata.field_names:
            rows = [self.folder.get(key) for key in self.cells(metadata, name)]
            lost = [
                index
                for index, row in zip(metadata.global_indexes, rows, strict=True)
                if row is MISSING
            ]
            if lost:
                raise transferq.errors.LostError(
                    f"field {name!r}: the files of samples {lost} are gone"
                )
            columns[name] = pack_rows(rows)
        return tensordict_of(columns, [metadata.size])

    async def clear_data(self, metadata: transferq.BatchMeta) -> None:
        for name in metadata.field_names:
            for key in self.cells(metadata, name):
                self.folder.remove(key)
