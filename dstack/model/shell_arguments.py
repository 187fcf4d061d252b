"""Finds `$variables_as_args` in a shell script where it stands as a word of its own, and puts text in its place.

It knows quotes, comments, substitutions and here-documents well enough to leave every other place alone: there, the
environment variable of that name is expanded, whose content the shell doesn't evaluate either.
"""

import re
from collections.abc import Iterator

NAME = "variables_as_args"

_WORD = re.compile(rf"\$(?:{NAME}(?![A-Za-z0-9_])|\{{{NAME}\}})", re.ASCII)
_BEFORE = frozenset(" \t\n;|&(")
_ENDS_WORD = _BEFORE | {")", "<", ">"}
_AFTER = frozenset(" \t\n;|&)<>")
_CONTINUED = re.compile(r"(?<!\\)((?:\\\\)*)\\\n")
_REDIRECTED = re.compile(r"[<>][&|-]?[ \t]*\Z")
_EVALUATED = re.compile(
    r"(?:^|[;|&(\n`]|\b(?:then|do|else|exec|command|builtin|!|\{)[ \t])[ \t]*"
    r"(?:\w+=[^\s;|&]*[ \t]+)*[\\'\"]{0,2}eval['\"]?[ \t][^;|&\n]*\Z"
)
_LOOK_BACK = 500
_NEAR = 20
_HEREDOC = re.compile(r"<<(-?)[ \t]*((?:'[^'\n]*'|\"[^\"\n]*\"|\\.|[^\s;|&<>()'\"\\])+)")
_QUOTING = re.compile(r"['\"]|\\(.)", re.DOTALL)
_DOUBLE_STOP = re.compile(r"[\"\\`]|\$[({]")
_SINGLE = re.compile(r"'[^']*'?")
_BACKTICKS = re.compile(r"`(?:[^`\\]|\\.)*`?", re.DOTALL)
_COMMENT = re.compile(r"[^\n]*")
_MAX_DEPTH = 50


def with_arguments(script: str, arguments: str) -> str:
    """The script with `arguments` in every such place."""
    pieces: list[str] = []
    end = 0
    for start, stop in _Scanner(script).places():
        pieces += (script[end:start], arguments)
        end = stop
    return "".join([*pieces, script[end:]])


class _Scanner:
    """Walks once over a script, keeping the position and the here-documents that begin at the next line."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._pending: list[tuple[str, bool]] = []

    def places(self) -> Iterator[tuple[int, int]]:
        yield from self._code(0)

    def _code(self, depth: int) -> Iterator[tuple[int, int]]:
        """Code up to the end, or, within a substitution, up to the parenthesis that closes it."""
        open_ = 0
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == ")":
                self._at += 1
                if depth and not open_:
                    return
                open_ = max(open_ - 1, 0)
            elif character == "(":
                self._at += 1
                open_ += 1
            elif character == '"':
                yield from self._double(depth)
            elif character == "$":
                yield from self._dollar(depth)
            else:
                self._plain(character)

    def _plain(self, character: str) -> None:
        if character == "\n":
            self._newline()
        elif character == "'":
            self._skip(_SINGLE)
        elif character == "`":
            self._skip(_BACKTICKS)
        elif character == "#" and self._begins_word():
            self._skip(_COMMENT)
        elif self._text.startswith("<<", self._at):
            self._here()
        else:
            self._at += 2 if character == "\\" else 1

    def _dollar(self, depth: int) -> Iterator[tuple[int, int]]:
        """An expansion in code: ours, if it is a word of its own; the inside of a substitution is code again."""
        found = _WORD.match(self._text, self._at)
        if found:
            self._at = found.end()
            if self._is_word(found.start(), found.end()):
                yield found.span()
        elif not self._skip_arithmetic():
            yield from self._substitution(depth, quoted=False)

    def _substitution(self, depth: int, *, quoted: bool) -> Iterator[tuple[int, int]]:
        opened = self._text[self._at : self._at + 2]
        if depth >= _MAX_DEPTH:  # nobody writes this; what follows is left alone
            self._at = len(self._text)
        elif opened == "$(":
            self._at += 2
            yield from self._code(depth + 1)
        elif opened == "${":
            self._at += 2
            self._braces(depth + 1, quoted=quoted)
        else:
            self._at += 1

    def _double(self, depth: int) -> Iterator[tuple[int, int]]:
        """Within double quotes only the inside of `$(…)` is code."""
        self._at += 1
        while found := _DOUBLE_STOP.search(self._text, self._at):
            self._at = found.start()
            if found[0] == '"':
                self._at += 1
                return
            if found[0] == "\\":
                self._at += 2
            elif found[0] == "`":
                self._skip(_BACKTICKS)
            elif not self._skip_arithmetic():
                yield from self._substitution(depth, quoted=True)
        self._at = len(self._text)

    def _braces(self, depth: int, *, quoted: bool) -> None:
        """`${…}` up to its brace; nothing within is replaced. `quoted`: it stands in double quotes, where ' is text."""
        while self._at < len(self._text) and self._text[self._at] != "}":
            character = self._text[self._at]
            if character == '"':
                list(self._double(depth))
            elif character == "$" and not self._skip_arithmetic():
                list(self._substitution(depth, quoted=quoted))
            elif character == "'" and not quoted:
                self._skip(_SINGLE)
            elif character != "$":
                self._at += 2 if character == "\\" else 1
        self._at += 1

    def _skip_arithmetic(self) -> bool:
        """Pass over `$((…))`, in which `<<` is a shift. What isn't closed so is a substitution of a subshell."""
        if not self._text.startswith("$((", self._at):
            return False
        depth = 0
        for place in range(self._at + 1, len(self._text)):
            depth += {"(": 1, ")": -1}.get(self._text[place], 0)
            if not depth:
                closed = self._text.startswith("))", place - 1)
                self._at = place + 1 if closed else self._at
                return closed
        return False

    def _here(self) -> None:
        """`<<WORD`: its body begins behind this line. `<<<` is no here-document."""
        found = None if self._text.startswith("<<<", self._at) else _HEREDOC.match(self._text, self._at)
        if found is None:
            self._at += 3 if self._text.startswith("<<<", self._at) else 2
            return
        delimiter = _QUOTING.sub(lambda quote: quote[1] or "", found[2])
        self._pending.append((delimiter, bool(found[1])))
        self._at = found.end()

    def _newline(self) -> None:
        """The end of a line of code: pass over the bodies of the here-documents that were announced in it."""
        self._at += 1
        for delimiter, dashed in self._pending:
            self._body(delimiter, dashed=dashed)
        self._pending = []

    def _body(self, delimiter: str, *, dashed: bool) -> None:
        while self._at < len(self._text):
            end = self._text.find("\n", self._at)
            line = self._text[self._at : end if end >= 0 else len(self._text)]
            self._at = end + 1 if end >= 0 else len(self._text)
            if (line.lstrip("\t") if dashed else line) == delimiter:
                return

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        self._at = found.end() if found and found.end() > self._at else self._at + 1

    def _begins_word(self) -> bool:
        if self._at and self._text[self._at - 1] not in _ENDS_WORD:
            return False
        if not _is_escaped(self._text[max(0, self._at - _NEAR) : self._at]):
            return True
        before = self._before(self._at)
        return before[-1:] in _ENDS_WORD and not _is_escaped(before)

    def _is_word(self, start: int, end: int) -> bool:
        """Whether it can be several words: not glued to other text, not the file of a redirection, not for `eval`.

        `x=$…` and `> $…` would make the second word, a value, the command.
        """
        before = self._before(start)
        glued = bool(before) and (before[-1] not in _BEFORE or _is_escaped(before))
        followed = self._text[end : end + 1]
        if glued or (followed and followed not in _AFTER):
            return False
        return not _REDIRECTED.search(before) and not _EVALUATED.search(before)

    def _before(self, place: int) -> str:
        """What stands before, as the shell sees it: lines that are continued are one."""
        return _CONTINUED.sub(r"\1", self._text[max(0, place - _LOOK_BACK) : place])


def _is_escaped(before: str) -> bool:
    """Whether the last character has a backslash before it that isn't itself escaped."""
    slashes = len(before[:-1]) - len(before[:-1].rstrip("\\"))
    return slashes % 2 == 1
