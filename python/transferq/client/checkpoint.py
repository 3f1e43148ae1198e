"""Checkpoints: the table and its data, saved as a directory.

A checkpoint captures one instant while other clients keep working.  Its directory appears whole or not at all,
and a checkpoint that was altered is refused.  It can be loaded into any number of storage units.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._impl.calls import Steps, twins
from .connection import Connection

if TYPE_CHECKING:
    pass

logger = logging.getLogger("transferq")

METADATA_FILE = "metadata.json"
FORMER = ".tq-former"  # name suffix of a checkpoint that is being replaced
STORAGE_DIR = "storage"


class Checkpoints(Connection):
    """Checkpoint calls of a client."""

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
        """Save all partitions, or one of them; returns a description of the checkpoint's content.

        With `include_storage=False` only the table is saved: loading it relinks the data that is still in the same
        place, and the rest is lost.  Storage units move a sample if other samples of the same put were cleared or
        overwritten, so such samples may be lost too.  Data of a storage manager written in Python stays with that manager.
        """
        if include_storage and self._managed is not None:
            logger.warning(
                "storage manager %s keeps its data itself: the checkpoint has the table only",
                type(self._managed.manager).__name__,
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
        """Replace all partitions by those of a checkpoint (if it has only one: just that one); returns its content.

        All or nothing.  Metadata obtained before is refused afterwards; waiting claims get the samples that are ready.
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
        """Load the table saved by `save_controller_checkpoint`, and relink its cells to data that still exists.

        Right after `load_storage_checkpoint` of the parent directory of `path` this call has nothing left to do,
        because that already loaded the data together with its table.
        """
        given = Path(os.path.abspath(path))
        storage, self._loaded_storage = self._loaded_storage, None
        if storage is not None and storage == given.parent and given.exists():
            return
        yield from self._load_checkpoint(path)

    def _save_storage_checkpoint(self, checkpoint_dir: str) -> Steps[None]:
        """Save the data and its table in a subdirectory of `checkpoint_dir`."""
        yield from self._save_checkpoint(Path(checkpoint_dir) / STORAGE_DIR)

    def _load_storage_checkpoint(self, checkpoint_dir: str) -> Steps[None]:
        """Load a checkpoint saved by `save_storage_checkpoint`."""
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
