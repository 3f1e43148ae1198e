"""The controller as seen from Ray: an actor that looks into it."""

from transferq.ray import PartitionSnapshot, TransferQueueController

__all__ = ["PartitionSnapshot", "TransferQueueController"]
