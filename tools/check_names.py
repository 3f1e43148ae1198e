"""Check that a word has one meaning in the tree, and a name says which part it belongs to.

- No retired name is left (RETIRED): each of them had a second meaning, and has another name now.
- The first line of a C file names the file, and the C files named in comments and pages exist.
- The glossary of docs/design.md names what there is in the code.
- No struct, union, enum or typedef is defined in two files, not even in two .c files: a debugger, grep and the type
  check of the linker know them by nothing but the name.
- The prefix tells the part (PREFIXES, the table in CONTRIBUTING.md): of each symbol that a file defines for others, of
  each type `tqi_...` and macro `TQI_...`, and of each inline function of a header.

Usage: check_names.py BUILD_DIR [ROOT]
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import check_calls
import check_tour
from prose import tracked

C = r"\.[ch]$"
ANY = r"."
PAGES = r"\.md$|^(bench|requirements|tests/compat)/|^Makefile$|^tools/run_tests\.py$|^\.gitignore$"


@dataclass(frozen=True)
class Retired:
    """A name that is not used any more, and what to say instead, in the files whose path matches `where`."""

    pattern: str
    instead: str
    where: str = C
    but: str = r"^$"


# Files that tell what things were called, and files of others.
HISTORY = re.compile(
    r"^(CHANGELOG\.md|tests/RENAMED\.md|tests/python/test_check_names\.py|tools/check_names\.py|LICENSE|"
    r"protocol/versions/.*|fuzz/corpus/.*|\.git-blame-ignore-revs)$"
)

# The alias package and its tests. The directories of running systems are called ctq, too.
CTQ = (
    r"^python/ctq/|former_name|^(python/meson\.build|pyproject\.toml|Makefile|README\.md|CONTRIBUTING\.md)$|^docs/|"
    r"^tools/(lint|test_wheel|check_docs)\.py$|^tests/(fixtures/|integration/test_ray_cluster\.py)"
)

RETIRED = (
    Retired(
        r"\btqi_meta(?:_\w+)?\b", "tqi_table: the controller's table; a meta is a batch's metadata"
    ),
    Retired(r"\btqi_m_\w+", "tqi_t_: functions that the files of src/table share"),
    Retired(r"\bsrc/meta\b|\bcmeta\b", "src/table, src/client/meta", ANY),
    Retired(
        r"\btqi_(?:view|views|view_job|plain|slot|hold)\b",
        "borrow, request task, cached pick, freeze",
    ),
    Retired(
        r"\btqi_(?:session|task|put|resolve)\b",
        "the same with the prefix of the part",
        r"^src/.*\.[ch]$",
    ),
    Retired(
        r"(?i)\blease_?blocks\b|\bhost->lease\b",
        "grant: of block ids; a lease will be one of samples",
        ANY,
    ),
    Retired(
        r"(?<![a-z])thin(?:_\w+)?\b",
        "sparse: of a block that is dead in part",
        r"^(src|protocol)/|^fuzz/.*\.[ch]$",
    ),
    Retired(
        r"\b(?:un)?views?\b|\bshow_\w+",
        "borrow, give back: of memory read in place; a view is a set of fields, or a sampler's",
        r"^src/(client|manager)/.*\.[ch]$",
    ),
    Retired(
        r"--owner-pid\b",
        "--parent-pid: the process that started the daemon; an owner keeps blocks",
        ANY,
        r"^tests/integration/test_daemons\.py$",
    ),
    Retired(r"\bhandlers_write\b", "src/controller/write.c", ANY),
    Retired(r"\btq_(?:meta|data|client|op|values)_rele\b", "..._unref", ANY),
    Retired(r"\btq_get_keys\b", "tq_get_by_key", ANY),
    Retired(r"\btq_get_as\b", "tq_get, with options", ANY),
    Retired(
        r"\btq_(?:meta_(?:fields|tags|size)|data_(?:rows|columns))\b",
        "..._count: how many there are",
        ANY,
    ),
    Retired(r"\bTQ_(?:FORCE_)?FETCH\b", "TQ_CLAIM_...", ANY),
    Retired(r"\blimits\.leases\b", "limits.grants", ANY),
    Retired(r"\btqi_ctl_parked\b", "tqi_ctl_waiter: requests wait, connections are parked"),
    Retired(r"\btq_retrieve_keys\b", "tq_keys_of", ANY),
    Retired(r"\btq_(?:consumption|production|status|events)\(", "tq_query_..."),
    Retired(
        r"\btqd_(?:guard|owner|servers?|server_kinds?)\b",
        "watchdog, parent, child, backend_servers, backend_kind",
    ),
    Retired(
        r"(?<![/\"'`-])\bctq\b(?![-/\"'`])|\bpython/ctq\b|\b(?:import|from) ctq\b|\bctq\.[a-z]",
        "transferq",
        ANY,
        CTQ,
    ),
    Retired(
        r"\b(?:[Tt]he|Python) peer\b(?!'s credentials)",
        "upstream: PyPI's transferqueue; a peer is the remote end of a connection",
        PAGES,
    ),
)

# What the names begin with that a part defines for other files. In the parts with more than one, each is an object.
PREFIXES: dict[str, tuple[str, ...]] = {
    "src/base": ("tqi_",),
    "src/metrics": ("tqi_",),
    "src/wire": ("tqi_",),
    "src/net": ("tqi_net_",),
    "src/table": ("tqi_table", "tqi_t_"),
    "src/sampler": ("tqi_sampler_",),
    "src/controller": ("tqi_controller", "tqi_ctl_"),
    "src/store": ("tqi_store",),
    "src/unit": ("tqi_unit",),
    "src/manager": ("tqi_manager_",),
    "src/manager/simple": ("tqi_simple",),
    "src/manager/kv": ("tqi_kv",),
    "src/manager/kv/redis": ("tqi_redis",),
    "src/client": ("tqi_client_",),
    "src/daemon": ("tqd_",),
    "src/cli": ("cli_",),
    "src/cli/bench": ("bench_", "cli_bench_"),
    "python/transferq/_core": ("core_",),
    "python/transferq/_host": ("host_",),
}

# The prefixes of all parts but the three whose names are tqi_ and the object.
TAKEN = tuple(prefix for prefixes in PREFIXES.values() for prefix in prefixes if prefix != "tqi_")

# Names that others choose: the entry point of a program, of an extension, a variable of argp.
FIXED = re.compile(r"^(main|PyInit_\w+|argp_program_\w+)$")

# Made at build time, or of other projects.
GENERATED = {
    "uthash.h",
    "tq.pb-c.h",
    "tq.pb-c.c",
    "config_table.c",
    "config_keys.h",
    "config_backends.h",
}

HEAD = re.compile(r"/\*\n? ?\*? ?([\w./-]+\.[ch]) - ")
NAMED_FILE = re.compile(r"(?<![\w<./>-])((?:[\w-]+/)*[a-z]\w*\.[ch])\b(?![>(]|\.\w)")
TAG = re.compile(r"\b(?:struct|union|enum)\s+(\w+)\s*\{")
TYPEDEF = re.compile(r"\btypedef\b")
FORWARD = re.compile(r"\s*(?:struct|union|enum)\s+(\w+)\s+\1\s*")
POINTER = re.compile(r"\(\s*\*\s*(\w+)\s*\)\s*\(")
DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(TQI_\w+)", re.MULTILINE)
INLINE = re.compile(r"\bstatic inline\b[^;{}()]*?\b(\w+)\s*\(")


def part_of(name: str) -> str | None:
    """Return the part that a file belongs to; None for a file of no part."""
    folders = name.split("/")[:-1]
    for depth in range(len(folders), 0, -1):
        if "/".join(folders[:depth]) in PREFIXES:
            return "/".join(folders[:depth])
    return None


def fits(name: str, part: str) -> bool:
    """Tell whether a name begins as those of a part do; in capitals for macros."""
    name = name.lower()
    mine = PREFIXES[part]
    if mine == ("tqi_",):
        return name.startswith("tqi_") and not name.startswith(
            tuple(f"{prefix.rstrip('_')}_" for prefix in TAKEN)
        )
    return any(
        name.startswith(f"{prefix.rstrip('_')}_") or name == prefix.rstrip("_") for prefix in mine
    )


def code_of(text: str) -> str:
    """Return C without comments and strings; the lines stay."""
    return check_tour.SKIPPED.sub(check_tour.blank, text)


def line_of(text: str, at: int) -> int:
    """Return the line of a place in a text."""
    return text.count("\n", 0, at) + 1


def check_retired(name: str, text: str) -> Iterator[str]:
    """Yield a line for each retired name in a file, or in its path."""
    if HISTORY.search(name):
        return
    for entry in RETIRED:
        if re.search(entry.where, name) and not re.search(entry.but, name):
            for match in re.finditer(entry.pattern, text):
                yield f"{name}:{line_of(text, match.start())}: {match.group()!r} is retired: {entry.instead}"


def check_head(name: str, text: str) -> Iterator[str]:
    """Yield a line if the head of a C file names another file."""
    match = HEAD.match(text)
    if match and match.group(1) != name.rpartition("/")[2]:
        yield f"{name}:1: its head calls it {match.group(1)}"


def check_named_files(name: str, text: str, files: set[str], bases: set[str]) -> Iterator[str]:
    """Yield a line for each C file that a comment or a page names, and that does not exist."""
    places = (
        [(0, text)]
        if name.endswith(".md")
        else [(m.start(), m.group()) for m in re.finditer(r"/\*.*?\*/", text, re.DOTALL)]
    )
    for start, piece in places:
        for match in NAMED_FILE.finditer(piece):
            named = match.group(1)
            base = named.rpartition("/")[2]
            known = (
                any(file.endswith(f"/{named}") or file == named for file in files)
                if "/" in named
                else base in bases
            )
            if not known and base not in GENERATED:
                yield f"{name}:{line_of(text, start + match.start())}: there is no file {named}"


def check_glossary(page: str, words: set[str], files: set[str]) -> Iterator[str]:
    """Yield a line for each name in the glossary of docs/design.md, in its column "in code", that does not exist."""
    for line in page.partition("\n## 2. Words\n")[2].partition("\n## ")[0].splitlines():
        for quoted in re.findall(r"`([^`]+)`", line.rstrip("| ").rpartition(" | ")[2]):
            folder = re.fullmatch(r"[\w/]+/[\w/.]+", quoted)
            if (folder and not any(f"/{file}".find(f"/{quoted}") >= 0 for file in files)) or (
                not folder
                and not set(re.findall(r"\w+", quoted)) <= words
                and not quoted.endswith(".c")
            ):
                yield f"docs/design.md: the glossary names {quoted}, which does not exist"


def types_of(code: str) -> set[str]:
    """Return the tags and typedefs that a piece of C defines, not those that it only declares."""
    names = set(TAG.findall(code))
    for match in TYPEDEF.finditer(code):
        end, depth = match.end(), 0
        while end < len(code) and (code[end] != ";" or depth):
            depth += (code[end] in "{(") - (code[end] in "})")
            end += 1
        body = code[match.end() : end]
        if FORWARD.fullmatch(body):
            continue
        body = re.sub(r"\{.*\}", " ", body, flags=re.DOTALL)
        pointer = POINTER.search(body)
        function = re.match(r"[^(]*?\b(\w+)\s*\(", body)
        words = re.findall(r"\w+", re.sub(r"\[.*?\]", "", body))
        names.add(pointer.group(1) if pointer else function.group(1) if function else words[-1])
    return names


def check_twice(types: dict[str, set[str]]) -> Iterator[str]:
    """Yield a line for each type that several files define."""
    for name, files in sorted(types.items()):
        if len(files) > 1:
            yield f"{sorted(files)[0]}: {name} is also a type in {', '.join(sorted(files)[1:])}"


def check_prefix(name: str, text: str, defined: set[str]) -> Iterator[str]:
    """Yield a line for each name that a file defines for others without the prefix of its part."""
    part = part_of(name)
    if part is None or check_calls.TEST.search(name) or "/testkit" in name:
        return
    code = code_of(text)
    names = {found for found in defined | types_of(code) if found.startswith("tqi_")}
    names |= {found for found in defined if not found.startswith("tq_") and not FIXED.match(found)}
    guard = f"TQI_{name.removeprefix('src/').replace('/', '_').replace('.', '_').upper()}"
    names |= {
        found for found in DEFINE.findall(code) if found != guard and not found.endswith("_H")
    }
    if name.endswith(".h"):
        names |= set(INLINE.findall(code))
        if (
            guard.startswith("TQI_")
            and "#ifndef" in code
            and guard not in code
            and name.startswith("src/")
        ):
            yield f"{name}: its guard is not {guard}"
    for found in sorted(names):
        if not fits(found, part) and not found.startswith("tq_"):
            yield f"{name}: {found} does not begin with {' or '.join(PREFIXES[part])}"


def main() -> int:
    """Check the tree and the objects of a build; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("build", type=Path)
    parser.add_argument("root", type=Path, nargs="?", default=Path(__file__).parent.parent)
    args = parser.parse_args()
    root = args.root.resolve()
    names = tracked(root)
    files = {name for name in names if re.search(C, name)}
    bases = {name.rpartition("/")[2] for name in files}
    objects = check_calls.objects(args.build, root)
    types: dict[str, set[str]] = defaultdict(set)
    words = {name.partition("/")[0] for name in names}
    problems: list[str] = []
    for name in names:
        try:
            text = (root / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        problems += check_retired(name, text)
        if name in files:
            words |= set(re.findall(r"\w+", code_of(text)))
            problems += check_head(name, text)
        if (name in files or name.endswith(".md")) and not HISTORY.search(name):
            problems += check_named_files(name, text, files, bases)
        if name in files and name.startswith(("src/", "include/", "python/")):
            for found in types_of(code_of(text)):
                types[found].add(name)
            defined = check_calls.symbols(objects[name])[0] if name in objects else set()
            problems += check_prefix(name, text, defined)
    design = root / "docs/design.md"
    if design.exists():
        problems += check_glossary(design.read_text(encoding="utf-8"), words, set(names))
    problems += check_twice(types)
    for problem in problems:
        print(problem)
    if not problems:
        print("\n".join(f"retired, and gone: {one.pattern}  ->  {one.instead}" for one in RETIRED))
    print(
        f"check_names: {len(names)} files, {len(types)} types, {len(RETIRED)} retired names, "
        f"{len(problems)} problems"
    )
    return 1 if problems or not objects else 0


if __name__ == "__main__":
    sys.exit(main())
