"""Write docs/reference-c.md and man/tq.h.3 from the public headers and the programs of examples/c.

Everything in a header is documented there (check_docs.py sees to it), so the reference repeats the comment, shows the
declaration as it stands, and adds an example: the shortest function of examples/c that calls it. Those programs are
built and run by the tests. A public function that no example calls is an error.

Usage: c_reference.py [--check]
"""

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST = ("tq.h", "types.h", "errors.h", "value.h")
HEADERS = (
    *FIRST,
    *sorted({path.name for path in (ROOT / "include" / "tq").glob("*.h")} - set(FIRST)),
)
PAGE = ROOT / "docs" / "reference-c.md"
MAN = ROOT / "man" / "tq.h.3"

HEAD = """\
# C reference

Every declaration of the public headers, with an example of each call. The examples are functions of the programs in
[examples/c](../examples/c), which the tests build and run. The errors have a page of their own: [errors.md](errors.md).

This page is written by `tools/c_reference.py` from `include/tq/*.h` and `examples/c/*.c`.
"""

RULE = re.compile(r"^/\* --- (?P<title>.*?) -+ \*/$", re.MULTILINE)
CALL = re.compile(r"\b(tq_\w+)\(")
FUNCTION = re.compile(
    r"^(?:static )?[\w][\w *]*?\b(?P<name>\w+)\([^;{]*\)\n\{\n.*?^\}$", re.DOTALL | re.MULTILINE
)


@dataclass
class Declaration:
    """One declaration, or a run of macros, with its comment."""

    names: list[str]
    code: str
    text: str
    called: bool  # a function, not a type


@dataclass
class Section:
    """What stands below a rule of a header."""

    title: str
    declarations: list[Declaration] = field(default_factory=list)


def prose(comment: str) -> str:
    """Return the text of a comment without its stars."""
    lines = [re.sub(r"^\s*\*? ?", "", line) for line in comment.strip().split("\n")]
    return "\n".join(lines).strip()


def declared(code: str) -> tuple[list[str], bool]:
    """Return the names that a declaration introduces, and whether it is a function."""
    bare = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL).strip()
    if bare.startswith("#define"):
        return re.findall(r"^#define (\w+)", bare, re.MULTILINE), False
    made = re.match(r"TQ_DEFINE_INIT\((tq_\w+)\)", bare)
    if made:
        return [f"{made.group(1)}_init"], True
    if bare.startswith(("TQ_API", "static inline")):
        return CALL.findall(bare)[:1], True
    pointer = re.search(r"\(\*(tq_\w+)\)\(", bare)
    if pointer:
        return [pointer.group(1)], False
    return re.findall(r"\b(tq_\w+);$", bare)[:1] or re.findall(r"\b(tq_\w+)", bare)[:1], False


def prototype(code: str) -> str:
    """Return what a caller needs to see of a declaration: not the body of an inline function."""
    made = re.match(r"TQ_DEFINE_INIT\((tq_\w+)\)", code)
    if made:
        return f"{made.group(1)} {made.group(1)}_init(void);"
    if code.startswith("static inline"):
        return code[: code.index("\n{")].removeprefix("static inline ") + ";"
    return code


def statements(body: str) -> Iterator[tuple[str, str]]:
    """Yield (comment, code) of each declaration of a section."""
    at = 0
    while True:
        start = re.compile(
            r"^(?:/\*\*|TQ_API |TQ_DEFINE_INIT|static inline |typedef |struct |#define )",
            re.MULTILINE,
        ).search(body, at)
        if start is None:
            return
        at = start.start()
        text = ""
        if body.startswith("/**", at):
            end = body.index("*/", at)
            text = prose(body[at + 3 : end])
            at = end + 3
        end = end_of(body, at)
        code = body[at:end]
        behind = re.compile(r"[ \t]*/\*\*<(.*?)\*/", re.DOTALL).match(body, end)
        if behind:
            text = f"{text}\n{prose(behind.group(1))}".strip()
            end = behind.end()
        yield text, code
        at = end


def end_of(body: str, at: int) -> int:
    """Return where the declaration ends that begins at `at`."""
    if body.startswith("#define", at):
        lines = re.compile(r"(?:#define(?:[^\n]*\\\n)*[^\n]*\n)+").match(body, at)
        return lines.end() - 1 if lines else len(body)
    if body.startswith("static inline", at):
        return body.index("\n}\n", at) + 2
    depth = 0
    for match in re.compile(r"/\*.*?\*/|[{}();]", re.DOTALL).finditer(body, at):
        sign = match.group()
        depth += (sign in "{(") - (sign in "})") if len(sign) == 1 else 0
        if depth == 0 and sign == ";":
            return match.end()
    return len(body)


def sections(header: str) -> tuple[str, list[Section]]:
    """Take a header apart: its head comment, and its sections."""
    source = (ROOT / "include" / "tq" / header).read_text(encoding="utf-8")
    head = prose(source[2 : source.index("*/")])
    source = source[source.index("*/") + 2 :]
    source = re.sub(
        r"^#ifdef __cplusplus\n.*?^#endif\n", "", source, flags=re.DOTALL | re.MULTILINE
    )
    source = re.sub(
        r"^#(?:if|ifndef|endif|else|include|undef)\b.*\n", "", source, flags=re.MULTILINE
    )
    source = re.sub(r"^#define TQ_\w+_H\n", "", source, flags=re.MULTILINE)
    parts = RULE.split(source)
    made = [Section("")] + [Section(title) for title in parts[1::2]]
    for section, body in zip(made, parts[0::2], strict=True):
        for text, code in statements(body):
            names, called = declared(code)
            if names:
                section.declarations.append(
                    Declaration(names, prototype(code.strip()), text, called)
                )
    return head, [section for section in made if section.declarations]


def examples() -> dict[str, tuple[str, str]]:
    """Return for each called function the shortest function of the examples that calls it, and its file."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted((ROOT / "examples").rglob("*.c")):
        source = path.read_text(encoding="utf-8")
        for match in FUNCTION.finditer(source):
            code = match.group()
            body = code[code.index("\n{\n") :]
            for name in set(CALL.findall(body)):
                if name not in found or len(code) < len(found[name][1]):
                    found[name] = (path.relative_to(ROOT).as_posix(), code)
    return found


def anchor(name: str) -> str:
    """Return what a heading of this name is linked by."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower().replace(" ", "-"))


def page(shown: dict[str, tuple[str, str]]) -> str:
    """Return the reference as Markdown."""
    out = [HEAD]
    told: dict[tuple[str, str], str] = {}  # examples already shown, and where
    everything = [(header, *sections(header)) for header in HEADERS]
    for header, head, parts in everything:
        out.append(f"- [tq/{header}](#{anchor('tq' + header)}): {first_sentence(head)}")
        links = [
            f"[{name}](#{name})"
            for part in parts
            for one in part.declarations
            for name in one.names[:1]
            if one.called
        ]
        if links:
            out.append(textwrap.indent(", ".join(links), "  "))
    for header, head, parts in everything:
        out.append(f"\n## tq/{header}\n\n{markdown(head)}")
        for part in parts:
            if part.title:
                out.append(f"\n### {part.title}")
            for one in part.declarations:
                out.append(
                    f"\n#### {', '.join(one.names[:3])}{', ...' if len(one.names) > 3 else ''}\n"
                )
                if one.text:
                    out.append(one.text + "\n")
                out.append(f"```c\n{one.code}\n```")
                example = shown.get(one.names[0]) if one.called else None
                if example in told:
                    out.append(f"\nExample: see [{told[example]}](#{told[example]}).")
                elif example:
                    told[example] = one.names[0]
                    out.append(
                        f"\nExample ([{example[0]}](../{example[0]})):\n\n```c\n{example[1]}\n```"
                    )
    return "\n".join(out) + "\n"


def first_sentence(head: str) -> str:
    """Return what a header is for, in one sentence."""
    text = re.sub(r"^\w+\.h - ", "", head.replace("\n", " "))
    return text.split(". ")[0].rstrip(".") + "."


def markdown(head: str) -> str:
    """Return the head comment of a header as Markdown: its lists are lists."""
    return re.sub(r"^ {2,}- ", "- ", head, flags=re.MULTILINE)


def roff(text: str) -> str:
    """Escape a text for man."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def man(version: str) -> str:
    """Return the manual page of tq.h."""
    head, parts = sections("tq.h")
    out = [
        f'.TH tq.h 3 "" "tq {version}" "C library"',
        '.\\" Written by tools/c_reference.py from include/tq/tq.h.',
        f".SH NAME\ntq.h \\- {roff(first_sentence(head).rstrip('.'))}",
        ".SH SYNOPSIS\n.nf\n#include <tq/tq.h>\n\ncc program.c $(pkg\\-config \\-\\-cflags \\-\\-libs tq)\n.fi",
        ".SH DESCRIPTION",
    ]
    for paragraph in head.split("\n\n")[1:]:
        for line in re.split(r"\n(?= *- )", paragraph):
            if line.lstrip().startswith("- "):
                out.append(".IP \\(bu 2\n" + roff(re.sub(r"\s+", " ", line.strip()[2:])))
            else:
                out.append(".PP\n" + roff(re.sub(r"\s+", " ", line.strip())))
    for part in parts:
        out.append(f'.SH "{(part.title or "types").upper()}"')
        for one in part.declarations:
            out.append(".PP\n.nf\n" + roff(one.code) + "\n.fi")
            if one.text:
                out.append(".RS 4\n" + roff(re.sub(r"\s+", " ", one.text)) + "\n.RE")
    out.append(".SH SEE ALSO\n.BR tq (1),\n.BR tqd (1)")
    return "\n".join(out) + "\n"


def main() -> int:
    """Write the pages, or compare them; 1 if they differ or an example is missing."""
    shown = examples()
    missing = [
        f"include/tq/{header}: no function of examples/ calls {one.names[0]}"
        for header in HEADERS
        for part in sections(header)[1]
        for one in part.declarations
        if one.called and one.names[0] not in shown
    ]
    version = re.search(r"^  version: '([^']+)'", (ROOT / "meson.build").read_text(), re.MULTILINE)
    pages = {PAGE: page(shown), MAN: man(version.group(1) if version else "")}
    for path, text in pages.items():
        if "--check" not in sys.argv[1:]:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            missing.append(f"{path.relative_to(ROOT)}: run python tools/c_reference.py")
    print("\n".join(missing) if missing else f"{len(shown)} calls have an example")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
