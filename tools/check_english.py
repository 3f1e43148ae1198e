"""Check that what people read is written as a native engineer would write it.

Looks at pages, comments, docstrings, help texts and the texts of the configuration (see prose.py) for the turns of
phrase below, which made this project hard to read: a subject without a noun ("who waits is told"), words that nobody
says any more, a count that is only pointed at ("so many"). It knows no grammar; it keeps out what was once weeded out.
Error messages are not looked at.

ALLOWED has the places where a phrase is right.

Usage: check_english.py [ROOT]
"""

import re
import sys
from pathlib import Path

import prose

# What it finds, and what to write instead.
PHRASES: tuple[tuple[str, str], ...] = (
    (
        r"(?:(?:^|[.:;(?!] )Who|(?:^|[:;(] )who|\b(?:to|of|for|by|from|with|in|on|at|and|or|as|than|that|if|because|so|only|but)"
        r" who) (?!is who\b)(?:\w+ )*?\w+(?![^.]*\?)",
        "name the subject: the process that, a client that, the caller",
    ),
    (
        r"\b[Ss]o (?:many|much)\b(?! (?:that|as|so|more|less|\w+er)\b)",
        "this many, that many, or the number itself",
    ),
    (r"\b[Ss]hall\b", "must, will, is to"),
    (r"\b[Ii]n the (?:place|stead) of\b|\bin (?:its|their|his) stead\b", "instead of, in place of"),
    (r"\b[Ll]ikewise\b", "also, the same for; or say it again"),
    (r"\b[Oo]ne's own\b", "its own, your own, of ours"),
    (r"\b(?:stand|stands|stood|standing) still\b", "hang, block, be stopped"),
    (r"\b(?:say|says|said|saying) good-?bye\b", "send a goodbye, disconnect"),
    (r"\b[Ww]hatever of\b", "for any reason, whatever it dies of"),
    (r"\bthat (?:is|are) none\b", "that is not one"),
    (
        r"\b[Ww]hat (?:is|are|was|were) \w+ of\b",
        "name the thing: the live bytes of, what is known about",
    ),
    (
        r"\b(?:is|are|was|were|be|been|being) told\b(?! (?:apart|to)\b)",
        "is notified, is informed; or name what is sent",
    ),
    (
        r"\b(?:waits?|waited|waiting|looks?|looked|looking|knows?|learns?|learned|hears?|heard|notification) "
        r"(?:for|of|about) (?:the|its|their) end\b(?! of\b)",
        "say whose end, or: to finish, to complete",
    ),
    (r"\b(?:hear|hears|heard) (?:of|from) it\b", "notice it, receive it, learn of it"),
    (r"\bis had\b|\bare had\b", "exists, is taken"),
    (
        r"\b(?:lest|whence|hence|thence|thereof|therein|thereby|whereof|wherein|whereby|herein|hitherto|whither|ere|"
        r"save for|nought|aught|howbeit|albeit|amongst|whilst|whosoever|whomsoever)\b",
        "the plain word",
    ),
)

ALLOWED: dict[str, tuple[str, ...]] = {}

# Texts of others, or about the phrases themselves.
SKIPPED = (
    "LICENSE",
    "fuzz/corpus/",
    "tools/check_english.py",
    "tests/python/test_check_english.py",
    "python/compat/LICENSE",
)


def check(name: str, text: str) -> list[str]:
    """Return a line for each phrase in a file."""
    problems = []
    for passage in prose.passages(name, text):
        for pattern, instead in PHRASES:
            for match in re.finditer(pattern, passage.text):
                around = passage.text[max(0, match.start() - 30) : match.end() + 30]
                if not any(good in around for good in ALLOWED.get(name, ())):
                    line = passage.lines[match.start()]
                    problems.append(
                        f"{name}:{line}: ...{around}...\n    {match.group()!r}: {instead}"
                    )
    return problems


def main() -> int:
    """Check the whole tree; 1 if anything is found."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    problems: list[str] = []
    files = 0
    for name in prose.tracked(root):
        if name.startswith(SKIPPED):
            continue
        try:
            text = (root / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        files += 1
        problems += check(name, text)
    for problem in problems:
        print(problem)
    print(f"check_english: {files} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
