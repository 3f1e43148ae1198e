"""The package `transfer_queue` on top of transferq: its public modules with the objects of transferq.

For programs that import it by this name; new code says `import transferq as tq`.
"""

from typing import TYPE_CHECKING, Any

from ._guard import refuse_mixed_files

refuse_mixed_files()

import transferq  # noqa: E402 - nothing is imported from an installation of two halves
from transferq import __all__, __version__  # noqa: E402, F401
from transferq.config import allow_other_keys  # noqa: E402

# Programs written for PyPI's package pass configurations with their own keys.
allow_other_keys()

if TYPE_CHECKING:
    from transferq import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Every public name of transferq; those that need torch import it at their first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(transferq, name)
