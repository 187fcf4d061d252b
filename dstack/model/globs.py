"""Globs: which files of the repository a workflow depends on, and which names and paths start one.

Paths from the top of the repository. `*`, `?` and `[…]` stay within one name, `**` stands for any folders; a glob that
names a folder takes all that is in it.
"""

import re
from collections.abc import Callable, Iterable

MAX_GLOB = 500
MAX_DEEP = 4  # `**` in one glob: each multiplies what matching can cost

_PIECE = re.compile(r"\[(!?)(\][^\]]*|[^\]]+)\]|(\*+)|(\?)|([^\[*?]+)", re.DOTALL)


def glob_problem(text: str) -> str:
    """Why this can't be a glob, and what would be right; empty where it can."""
    parts = text.split("/")
    named = any(part not in {"", "."} for part in parts)
    checks = (
        (text.startswith("!"), "there is no `!` here: name what is needed, not what isn't"),
        (
            text.startswith(("/", "~")) or ".." in parts,
            "write a path from the top of the repository, without `/` before it, `..` or `~`",
        ),
        ("\\" in text, "write `/` between names; a special character is taken literally in brackets: `[*]`"),
        (
            len(text) > MAX_GLOB or not text.isprintable() or not named,
            f"write a path of 1 to {MAX_GLOB} characters in one line, like `src` or `data/**/*.csv`",
        ),
        (
            any("**" in part and part != "**" for part in parts),
            "`**` stands for folders and alone between slashes, like `src/**/*.py`",
        ),
        (parts.count("**") > MAX_DEEP, f"at most {MAX_DEEP} times `**` in one glob"),
        (any(part.lower() == ".git" for part in parts), "`.git` is git's own"),
    )
    found = next((problem for wrong, problem in checks if wrong), "")
    return found or next((problem for part in parts if (problem := _bracket_problem(part))), "")


def matcher(globs: Iterable[str], *, whole: bool = False) -> Callable[[str], bool]:
    """Whether a file's path (from the top, `/` between names) is meant by a glob; without globs every file is.

    `whole`: a glob means what it spells alone, not what lies below it.
    """
    patterns = [_pattern(glob, "" if whole else "(?:/.*)?") for glob in globs]
    if not patterns:
        return lambda _path: True
    any_of = re.compile("|".join(patterns), re.DOTALL)
    return lambda path: any_of.fullmatch(path) is not None


def _bracket_problem(part: str) -> str:
    rest = _PIECE.sub("", part)
    if rest:
        return f"{rest[:20]!r} has no closing bracket"
    for negated, inner, _stars, _one, _plain in _PIECE.findall(part):
        if inner and not _class_ok(negated, inner):
            return f"`[{negated}{inner[:20]}]` is no set of characters"
    return ""


def _class_ok(negated: str, inner: str) -> bool:
    try:
        re.compile(_class(negated, inner))
    except re.error:
        return False
    return True


def _class(negated: str, inner: str) -> str:
    escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner)
    return f"(?!/)[{'^' if negated else ''}{escaped}]"


def _pattern(glob: str, below: str) -> str:
    parts = [part for part in glob.split("/") if part not in {"", "."}]
    texts = [r"(?:[^/]+/)*" if part == "**" else f"{_name(part)}/" for part in parts[:-1]]
    last = r".+" if parts[-1] == "**" else f"{_name(parts[-1])}{below}"
    return "".join([*texts, last])


def _name(part: str) -> str:
    """A name's pattern. What stands before a later `*` is matched at its first place, for good: no backtracking."""
    found: list[str] = []
    star = False
    fixed = ""
    for negated, inner, stars, one, plain in _PIECE.findall(part):
        if not stars:
            fixed += re.escape(plain) if plain else "[^/]" if one else _class(negated, inner)
            continue
        found.append(f"(?>[^/]*?{fixed})" if star and fixed else fixed)
        star, fixed = True, ""
    return "".join([*found, f"[^/]*{fixed}" if star else fixed])
