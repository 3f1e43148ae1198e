"""Types under the package's former name, `ctq`; checked by `mypy --strict`, never run."""

from __future__ import annotations

from typing_extensions import assert_type

import ctq.errors
import transferq
from ctq.metadata import BatchMeta


def former(client: ctq.TransferQueueClient) -> None:
    assert_type(client, transferq.TransferQueueClient)
    assert_type(ctq.get_client(), transferq.TransferQueueClient)
    assert_type(ctq.kv_put("k", "p", {"x": [1]}), transferq.KVBatchMeta)
    assert_type(BatchMeta.empty(), transferq.BatchMeta)
    assert_type(ctq.errors.StorageFullError("x"), transferq.StorageFullError)
    assert_type(ctq.__version__, str)
    ctq.kv_batch_putt(["k"], "p")  # type: ignore[attr-defined]
