"""The client: every call on samples by metadata and by key, and checkpoints, in a sync and an async form."""

from .client import AsyncTransferQueueClient, TransferQueueClient

__all__ = ["AsyncTransferQueueClient", "TransferQueueClient"]
