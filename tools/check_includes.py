"""Reject every #include that goes against the direction of the parts (docs/design.md, section 4).

`ALLOWED` lists for each part the parts it may include; their own allowed parts are allowed too. A part is
a folder of src/, `include` (the public headers), or one of the outer folders. Headers of other projects are
written in angle brackets and are ignored, but for those in `ONLY`, which one header of the tree wraps.

Usage: check_includes.py [ROOT]
"""

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path

ALLOWED: dict[str, set[str]] = {
    "include": set(),
    "base": {"include"},
    "metrics": {"base"},
    "wire": {"base"},
    "net": {"wire"},
    "table": {"base"},
    "sampler": {"table"},
    "controller": {"table", "sampler", "net", "metrics"},
    "store": {"base"},
    "unit": {"store", "net", "metrics"},
    "manager": {"net"},
    "manager/simple": {"manager", "store"},
    "manager/kv": {"manager"},
    "client": {"manager", "net"},
    "daemon": {"controller", "unit", "manager"},
    "cli": {"include"},
    "python/transferq/_core": {"include"},
    "python/transferq/_host": {"include"},
    "examples": {"include"},
}

# Allowed only for this part, not for those that include it: the registry names the built-in managers.
LOCAL: dict[str, set[str]] = {"manager": {"manager/simple", "manager/kv"}}

# For some parts, the levels of their files, from the lowest up. A level is a list of layers side by side, which do not
# see each other; a layer is a string of patterns, relative to the folder of the part. A file belongs to the first
# layer that has a pattern for it, from the lowest up.
LAYERS: dict[str, list[list[str]]] = {
    "net": [
        ["net.h"],
        [
            "internal.h addresses.c auth.c conn.c conn_memory.c endpoint.c flush.c grant.c out_frame.c receive.c",
            "waiters.*",
        ],
        [
            "calling.h acks.c call.c channel.c client_handshake.c connector*.c dial.c ends.c reply.c",
            "serving.h admit.c crowd.c park.c peer.c process.c request.c server.c session.c",
        ],
        ["*_test.c testkit*"],
    ],
    "table": [
        ["table.h"],
        ["records.h"],
        [
            "block.* claim.h dead.c field.* grant.c missing.* owner.c partition.c ready.c result.* sample.* shape.c"
            " tag.c view.c"
        ],
        [
            "claim.c",
            "compact.c",
            "pick.c",
            "publish*",
            "query.c",
            "shortage.c",
            "snapshot.*",
            "two_phase_clear.c",
        ],
        ["restore*", "table.c"],
        ["test/*"],
    ],
    "controller": [
        ["controller.h", "convert.*", "session.h"],
        [
            "events.h meter.*",
            "handlers.h",
            "queue.*",
            "reply.h",
            "snapshot_p* snapshot_unpack.c",
            "wake.h",
        ],
        ["claims.h", "owners.h", "snapshots.h", "two_phase_clear.h"],
        ["controller_state.h"],
        [
            "blocks.c claim.c drain.c events.c late.c list_owners.c metrics.c owner_list.c owners.c read.c reply.c"
            " restore.c shortage.c snapshot.c status.c two_phase_clear.c waiting.c wake.c write.c"
        ],
        ["controller.c", "*_test.c testkit*"],
    ],
    "unit": [
        ["tombs.*", "unit.h"],
        ["compact.h", "memory.h", "report.h", "sift.h", "wait.h"],
        ["writers.h"],
        ["room.h", "unit_state.h"],
        ["compact*.c join.c memory.c pins.c report.c room.c serve.c sift.c wait.c writers.c"],
        ["unit.c", "*_test.c"],
    ],
    "manager/simple": [
        ["simple.h"],
        ["borrow.c copy.c get.c query.c units.c wait.c where.c", "put* link.c stock.c"],
        ["simple.c"],
    ],
    "client": [
        ["args.*"],
        ["meta/*"],
        ["client.h op.h"],
        ["*.[ch] data/*", "calls/*"],
        ["put/*", "get/*"],
        ["checkpoint/*"],
    ],
}

# A fuzz target reaches into the decoder it feeds, wherever that is.
UNCHECKED = {"fuzz"}

GENERATED = {"tq.pb-c.h": "wire", "config_keys.h": "base", "config_backends.h": "base"}

# What only the header named may include or call: it is the one place that knows how it fails.
ONLY = {"uthash.h": "src/base/hash.h"}
ONLY_CALLED = {re.compile(r"\bHASH_ADD\w*"): ("src/base/hash.h", "TQI_HASH_ADD")}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def closure(part: str) -> set[str]:
    """Return the parts that `part` may include, directly or through others, and itself."""
    seen: set[str] = set()
    todo = [part]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(ALLOWED[name])
    return seen | LOCAL.get(part, set())


def part_of(root: Path, path: Path) -> str | None:
    """Return the part that a file belongs to, or None for a file of no part."""
    rel = path.relative_to(root).as_posix()
    if rel.startswith("src/"):
        rel = rel[len("src/") :]
    folders = rel.split("/")[:-1]
    for depth in range(len(folders), 0, -1):
        name = "/".join(folders[:depth])
        if name in ALLOWED or name in UNCHECKED:
            return name
    return None


def resolve(root: Path, source: Path, name: str) -> Path | None:
    """Find the file of the tree that an #include names, as the compiler would."""
    for folder in (source.parent, root / "src", root / "include", root):
        path = (folder / name).resolve()
        if path.is_file() and path.is_relative_to(root):
            return path
    return None


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern describes a path; `*` ends at a slash."""
    names, patterns = path.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def layer_of(part: str, path: str) -> tuple[int, str] | None:
    """Return the level and the layer of a file, given by its path in the folder of its part."""
    for level, layers in enumerate(LAYERS[part]):
        for layer in layers:
            if any(matches(path, pattern) for pattern in layer.split()):
                return level, layer
    return None


def check_layers(root: Path, part: str, source: Path, target: Path) -> str:
    """Say what is wrong when a file of a part includes another of that part; "" if nothing is."""
    folder = root / "src" / part if (root / "src" / part).is_dir() else root / part
    names = [path.relative_to(folder).as_posix() for path in (source, target)]
    places = [layer_of(part, name) for name in names]
    if None in places:
        return f"{names[places.index(None)]} belongs to no layer of {part}; add it to tools/check_includes.py"
    (own, own_layer), (other, other_layer) = (place for place in places if place)
    if other > own:
        return f"{names[1]} is above it in {part}"
    if other == own and own_layer != other_layer:
        return f"{names[1]} is beside it in {part}"
    return ""


def check_file(root: Path, source: Path) -> list[str]:
    """Return a line for every wrong #include of one file."""
    part = part_of(root, source)
    where = source.relative_to(root).as_posix()
    if part is None:
        return [f"{where}: belongs to no part; add it to tools/check_includes.py"]
    if part in UNCHECKED:
        return []
    allowed = closure(part)
    problems = []
    text = source.read_text(encoding="utf-8")
    for match in INCLUDE.finditer(text):
        quote, name = match.groups()
        line = text.count("\n", 0, match.start(2)) + 1
        if ONLY.get(name, where) != where:
            problems.append(f"{where}:{line}: include {ONLY[name]} instead of {name}")
        base = name.rsplit("/", 1)[-1]
        if base in GENERATED:
            target = GENERATED[base]
        else:
            path = resolve(root, source, name)
            if path is None:
                if quote == '"':
                    problems.append(
                        f"{where}:{line}: {name} is not in the tree; "
                        "headers of other projects are included in angle brackets"
                    )
                continue
            target = part_of(root, path) or "none"
            if target == part and part in LAYERS:
                wrong = check_layers(root, part, source, path)
                if wrong:
                    problems.append(f"{where}:{line}: {wrong}")
        if target not in allowed:
            problems.append(f"{where}:{line}: {part} may not include {target} ({name})")
    for call, (only, instead) in ONLY_CALLED.items():
        if where != only:
            for match in call.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                problems.append(f"{where}:{line}: use {instead} ({only}) instead of {match[0]}")
    return problems


def main() -> int:
    """Check the whole tree; 1 if anything is wrong."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    problems: list[str] = []
    files = 0
    for folder in ("include", "src", "python", "examples"):
        for source in sorted((root / folder).rglob("*.[ch]")):
            files += 1
            problems += check_file(root, source)
    for problem in problems:
        print(problem)
    if files == 0:
        print("check_includes: no files found")
        return 1
    print(f"check_includes: {files} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
