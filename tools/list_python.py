"""Print the files of a package folder that are installed, one per line, relative to the folder."""

import sys
from pathlib import Path

KINDS = {".py", ".pyi", ".yaml"}


def main() -> None:
    """List the folder given as the only argument."""
    root = Path(sys.argv[1])
    for path in sorted(root.rglob("*")):
        if path.suffix in KINDS or path.name == "py.typed":
            print(path.relative_to(root).as_posix())


if __name__ == "__main__":
    main()
