"""Checkpoints: the table and its data as a directory.

A checkpoint is of one instant, while others go on; its directory appears whole or not at all, and one that was
altered is refused.  It loads into any number of storage units.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._calls import Steps, twins

if TYPE_CHECKING:
    from ._core import Client
    from .storage import ManagedStorage

logger = logging.getLogger("ctq")

METADATA_FILE = "metadata.json"
FORMER = ".tq-former"  # of the name of a checkpoint that is being replaced
STORAGE_DIR = "storage"


class Checkpoints:
    """The calls of a client on checkpoints."""

    _core: Client
    _python: ManagedStorage | None
    _loaded_storage: Path | None = None

    def _save_checkpoint(
        self,
        checkpoint_dir: str | os.PathLike[str],
        include_storage: bool = True,
        metadata: Mapping[str, Any] | None = None,
        *,
        partition_id: str | None = None,
        timeout: float | None = None,
    ) -> Steps[dict[str, Any]]:
        """Save all partitions, or one of them; returns what is in the checkpoint.

        With `include_storage=False` only the table is saved: loading links it to data that is still where it
        was, and the rest is lost.  Storage units move samples whose neighbours of the same put were cleared, or
        overwritten, so such samples may be among the lost.  Data of a storage manager written in Python stays with that manager.
        """
        if include_storage and self._python is not None:
            logger.warning(
                "storage manager %s keeps its data itself: the checkpoint has the table only",
                type(self._python.manager).__name__,
            )
            include_storage = False
        saved: dict[str, Any] = yield self._core.save(
            os.path.abspath(os.fspath(checkpoint_dir)),
            partition=partition_id,
            state_only=not include_storage,
            metadata=json.dumps(dict(metadata or {}), indent=2),
            timeout=timeout or 0.0,
        )
        logger.info("saved checkpoint %s: %s samples", checkpoint_dir, saved["samples"])
        return saved

    def _load_checkpoint(
        self, checkpoint_dir: str | os.PathLike[str], *, timeout: float | None = None
    ) -> Steps[dict[str, Any]]:
        """Replace all partitions by those of a checkpoint (of one partition: only that); returns what is in it.

        All or nothing.  Metadata from before is refused afterwards; claims that wait get what is ready.
        """
        path = Path(os.path.abspath(os.fspath(checkpoint_dir)))
        if not path.exists() and not path.with_name(path.name + FORMER).exists():
            raise FileNotFoundError(
                errno.ENOENT,
                "there is no checkpoint directory, as save_checkpoint makes one",
                str(path),
            )
        if path.exists() and not os.path.lexists(path / METADATA_FILE):
            raise FileNotFoundError(
                errno.ENOENT,
                f"the directory has no {METADATA_FILE}, so it is not a whole checkpoint: name another one",
                str(path),
            )
        loaded: dict[str, Any] = yield self._core.load(str(path), timeout=timeout or 0.0)
        if loaded["lost"]:
            logger.warning(
                "checkpoint %s: the data of %s cells is not there any more: they are lost",
                path,
                loaded["lost"],
            )
        logger.info("loaded checkpoint %s: %s samples", path, loaded["samples"])
        return loaded

    def _save_controller_checkpoint(self, path: str) -> Steps[None]:
        """Save the table without its data, at `path` (a directory)."""
        yield from self._save_checkpoint(path, include_storage=False)

    def _load_controller_checkpoint(self, path: str) -> Steps[None]:
        """Load the table saved by `save_controller_checkpoint`; cells are linked to data that is still there.

        Right after `load_storage_checkpoint` of the directory that `path` lies in there is nothing left to do,
        for data comes with the table that it belongs to.
        """
        given = Path(os.path.abspath(path))
        storage, self._loaded_storage = self._loaded_storage, None
        if storage is not None and storage == given.parent and given.exists():
            return
        yield from self._load_checkpoint(path)

    def _save_storage_checkpoint(self, checkpoint_dir: str) -> Steps[None]:
        """Save the data, with the table that it belongs to, in a folder of `checkpoint_dir`."""
        yield from self._save_checkpoint(Path(checkpoint_dir) / STORAGE_DIR)

    def _load_storage_checkpoint(self, checkpoint_dir: str) -> Steps[None]:
        """Load what `save_storage_checkpoint` has saved."""
        yield from self._load_checkpoint(Path(checkpoint_dir) / STORAGE_DIR)
        self._loaded_storage = Path(os.path.abspath(checkpoint_dir))

    save_checkpoint, async_save_checkpoint = twins(_save_checkpoint)
    load_checkpoint, async_load_checkpoint = twins(_load_checkpoint)
    save_controller_checkpoint, async_save_controller_checkpoint = twins(
        _save_controller_checkpoint
    )
    load_controller_checkpoint, async_load_controller_checkpoint = twins(
        _load_controller_checkpoint
    )
    save_storage_checkpoint, async_save_storage_checkpoint = twins(_save_storage_checkpoint)
    load_storage_checkpoint, async_load_storage_checkpoint = twins(_load_storage_checkpoint)
