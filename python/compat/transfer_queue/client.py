"""The client."""

from ctq import AsyncTransferQueueClient, TransferQueueClient

__all__ = ["AsyncTransferQueueClient", "TransferQueueClient"]
