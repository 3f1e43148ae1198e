"""Names of roles and states."""

from __future__ import annotations

from enum import Enum


class ExplicitEnum(str, Enum):
    """An enumeration whose error for an unknown value names the known ones."""

    @classmethod
    def _missing_(cls, value: object) -> ExplicitEnum:
        known = [member.value for member in cls]
        raise ValueError(f"{value!r} is no {cls.__name__}; there are {known}")


class Role(ExplicitEnum):
    """Parts of a system."""

    CONTROLLER = "TransferQueueController"
    STORAGE = "TransferQueueStorage"
    CLIENT = "TransferQueueClient"


class ProductionStatus(ExplicitEnum):
    """Whether a field of a sample is there."""

    NOT_PRODUCED = 0
    READY_FOR_CONSUME = 1


__all__ = ["ExplicitEnum", "ProductionStatus", "Role"]
