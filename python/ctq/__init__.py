"""The former name of the package `transferq`: the same objects, for this version only.

`import ctq`, `from ctq.errors import ...`, `python -m ctq.host` and pickles made under this name give what `transferq`
has: `ctq is transferq`, and `ctq.errors is transferq.errors`.
"""

import sys
import warnings
from typing import Any

import transferq
from transferq._impl.former_name import install


def __getattr__(name: str) -> Any:
    """Stand in for `transferq` in a thread that imported `ctq` while another one was at it.

    The import system gives it this module, not the one that is in `sys.modules` in the end.
    """
    return getattr(transferq, name)


warnings.warn(
    "the package ctq is called transferq now: write `import transferq` where it says `import ctq`; "
    "the former name goes away with the next version",
    DeprecationWarning,
    stacklevel=2,
)
install(__name__)
sys.modules[__name__] = transferq
