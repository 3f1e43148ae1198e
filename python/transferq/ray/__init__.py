"""A system in a Ray cluster: ending a detached one, and the actors under the names that TransferQueue gives them.

`init()` does everything else; Ray itself is imported only when a cluster is used.
"""

from .actor import PartitionSnapshot, SimpleStorageUnit, TransferQueueController
from .cluster import stop

__all__ = ["PartitionSnapshot", "SimpleStorageUnit", "TransferQueueController", "stop"]
