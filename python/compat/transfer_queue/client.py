"""The client."""

from transferq import AsyncTransferQueueClient, TransferQueueClient

__all__ = ["AsyncTransferQueueClient", "TransferQueueClient"]
