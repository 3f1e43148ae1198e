"""Check that protocol/tq.proto still defines the protocol version stated in src/wire/frame.h.

protocol/versions/N.txt lists the content of version N: the fields of each message, the values of each enum, and the
requests of src/wire/methods.h. Peers with the same version may be of different releases, so within a version things may
only be added. A field keeps its number and type; a removed one leaves its number `reserved`. Any other change raises
TQI_PROTOCOL_VERSION (docs/design.md, "Versions").

Usage: check_protocol.py [--keep] [ROOT]

  --keep   write the list of the current version anew: with each release, and when the version is raised
"""

import re
import sys
from pathlib import Path

COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
BLOCK = re.compile(r"\b(message|enum)\s+(\w+)\s*\{([^{}]*)\}")
FIELD = re.compile(r"(?:(repeated|optional)\s+)?([\w.]+)\s+(\w+)\s*=\s*(\d+)\s*(?:\[[^\]]*\])?")
VALUE = re.compile(r"(\w+)\s*=\s*(\d+)")
RESERVED = re.compile(r"reserved\s+([\d\s,]+)")
REQUEST = re.compile(r"\bX\(\s*(\d+),\s*(\w+),\s*\w+,\s*(\w+),\s*\w+,\s*(\w+),\s*(KEEP|AGAIN)\s*\)")
VERSION = re.compile(r"#define\s+TQI_PROTOCOL_VERSION\s+(\d+)")

Entries = dict[str, str]
"""By location ("Hello 3", "request 16"): the definition there ("bytes session")."""


def read_protocol(text: str) -> tuple[Entries, set[str]]:
    """Return all fields and values of a .proto file, and where numbers are reserved."""
    entries: Entries = {}
    reserved: set[str] = set()
    rest = COMMENT.sub("", text)
    for kind, name, body in BLOCK.findall(rest):
        for statement in filter(None, (part.strip() for part in body.split(";"))):
            if gone := RESERVED.fullmatch(statement):
                reserved |= {f"{name} {int(number)}" for number in gone[1].split(",")}
            elif kind == "message" and (found := FIELD.fullmatch(statement)):
                label, its_type, its_name, number = found.groups()
                # `optional` only adds a presence test: the bytes are the same.
                many = "repeated " if label == "repeated" else ""
                entries[f"{name} {int(number)}"] = f"{many}{its_type} {its_name}"
            elif kind == "enum" and (found := VALUE.fullmatch(statement)):
                entries[f"{name} {int(found[2])}"] = found[1]
            else:
                raise SystemExit(f"check_protocol: {name}: cannot read {statement!r}")
    if BLOCK.sub("", rest).count("{"):
        raise SystemExit("check_protocol: nested messages, maps and oneofs are not understood")
    return entries, reserved


def read_requests(text: str) -> Entries:
    """Return the request table in methods.h."""
    table = REQUEST.findall(text.replace("\\\n", " "))
    return {
        f"request {int(number)}": f"{name} {message} -> {reply} {mode.lower()}"
        for number, name, message, reply, mode in table
    }


def read_list(text: str) -> Entries:
    """Return the entries of a kept list."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {where: what for where, _, what in (line.partition(": ") for line in lines)}


def same(where: str, was: str, what: str) -> bool:
    """Whether two entries mean the same on the wire: a field may be renamed, a request may not."""
    if where.startswith("request "):
        return was == what
    return was.rpartition(" ")[0] == what.rpartition(" ")[0]


def compare(kept: Entries, now: Entries, reserved: set[str]) -> list[str]:
    """Return a line for everything that an older peer would misread."""
    problems = []
    for where, was in kept.items():
        what = now.get(where)
        if what is None and where not in reserved:
            problems.append(f"{where}: '{was}' is gone; reserve its number")
        elif what is not None and not same(where, was, what):
            problems.append(f"{where}: was '{was}', is '{what}'")
    problems += [
        f"{where}: '{now[where]}' takes a reserved number" for where in reserved if where in now
    ]
    return problems


def main() -> int:
    """Check the tree, or write the list anew; 1 if anything is wrong."""
    words = [word for word in sys.argv[1:] if word != "--keep"]
    root = Path(words[0] if words else Path(__file__).parent.parent).resolve()
    found = VERSION.search((root / "src/wire/frame.h").read_text(encoding="utf-8"))
    if not found:
        print("check_protocol: src/wire/frame.h defines no TQI_PROTOCOL_VERSION")
        return 1
    version = found[1]
    place = root / "protocol" / "versions" / f"{version}.txt"
    now, reserved = read_protocol((root / "protocol/tq.proto").read_text(encoding="utf-8"))
    now |= read_requests((root / "src/wire/methods.h").read_text(encoding="utf-8"))
    if "--keep" in sys.argv:
        place.parent.mkdir(exist_ok=True)
        lines = [f"{where}: {what}\n" for where, what in now.items()]
        place.write_text(
            f"# Protocol version {version}, written by tools/check_protocol.py --keep\n"
            + "".join(lines),
            encoding="utf-8",
        )
        return 0
    if not place.exists():
        print(
            f"check_protocol: no {place.relative_to(root)}: write it with check_protocol.py --keep"
        )
        return 1
    kept = read_list(place.read_text(encoding="utf-8"))
    problems = compare(kept, now, reserved)
    for problem in problems:
        print(f"protocol version {version}: {problem}")
    if problems:
        print(
            "peers of one version must understand each other: undo it, or raise TQI_PROTOCOL_VERSION"
        )
    print(f"check_protocol: {len(now)} entries, {len(problems)} problems")
    return 1 if problems or not kept else 0


if __name__ == "__main__":
    sys.exit(main())
