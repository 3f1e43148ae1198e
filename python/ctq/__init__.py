"""The former name of the package `transferq`: the same objects, for this version only.

`import ctq`, `from ctq.errors import ...`, `python -m ctq.host` and pickles made under this name give what `transferq`
has: `ctq is transferq`, and `ctq.errors is transferq.errors`.
"""

import sys
import warnings

import transferq
from transferq._impl.former_name import install

warnings.warn(
    "the package ctq is called transferq now: write `import transferq` where it says `import ctq`; "
    "the former name goes away with the next version",
    DeprecationWarning,
    stacklevel=2,
)
install(__name__)
sys.modules[__name__] = transferq
