"""Refuses an installation in which files of PyPI's transferqueue are mixed with these."""

from pathlib import Path

# Modules that only the other distribution has.
FOREIGN = ("utils/zmq_utils.py", "utils/serial_utils.py", "storage/bootstrap/__init__.py")


def refuse_mixed_files() -> None:
    """Raise ImportError if this folder contains files of both distributions."""
    folder = Path(__file__).parent
    found = [name for name in FOREIGN if (folder / name).exists()]
    if found:
        raise ImportError(
            f"{folder} holds files of two distributions: this package is transferq's transfer_queue, and {found} "
            "are those of PyPI's transferqueue. They cannot be installed beside each other: run "
            "`pip uninstall -y transferqueue`, remove what is left of the folder, and install one of them again"
        )
