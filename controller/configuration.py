"""`controller.yaml`: which repositories a controller serves, and how. What is wrong is told with line and column."""

import re
from collections.abc import Mapping as Map
from collections.abc import Sequence as Many
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from dstack.ledger.address import parse_address
from dstack.model.document import Mapping, Node, Scalar, Sequence, parse_document
from dstack.model.errors import Invalid
from dstack.model.problems import START, Mark, Misread, Problems, nearest, shown
from dstack.model.units import parse_duration

MOST_REPOSITORIES = 1000
POLL = (0.05, 3600.0)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")

KEYS: Map[str, str] = {
    "http": "`HOST:PORT` to listen at for webhooks and wake-ups; a port alone means this machine alone.",
    "poll": "How often each remote is read, like `5s`.",
    "webhook-secret-file": "A file with the secret of webhooks, which only its owner can read.",
    "controller-token-file": "A file with the token of wake-ups, which only its owner can read.",
    "repositories": "What is served: a list of addresses, or of these keys.",
}
REPOSITORY: Map[str, str] = {
    "url": "The state remote: a URL, `HOST:PATH`, or a path from this file's folder.",
    "code": "Where the code is, if that is another remote.",
    "name": "What it is called in logs and metrics; otherwise the end of its address.",
    "poll": "As above, for this one.",
    "webhook-secret-file": "As above, for this one.",
    "controller-token-file": "As above, for this one.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One repository. Addresses and paths as written; `poll` in seconds."""

    url: str = field(repr=False)
    name: str
    code: str | None = field(default=None, repr=False)
    poll: float | None = None
    secret_file: str | None = None
    token_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All of it. What an entry leaves out stands in it as for all."""

    repositories: tuple[Entry, ...]
    http: str | None = None


def parse_configuration(text: bytes, path: str, *, private: bool) -> Configuration:
    """Raises Invalid, naming `path`, lines and columns. `private`: only the owner can read it, so passwords may be in.

    Of what is wrong with an address its credentials aren't told.
    """
    problems = Problems(path)
    root = parse_document(text, problems)
    found = Configuration(repositories=())
    with problems.noting():
        found = _Reader(problems, private=private).configuration(root)
    problems.check()
    return found


def entries_of(urls: Many[str]) -> tuple[Entry, ...]:
    """The repositories that a command line names. Raises Invalid."""
    found: dict[str, Entry] = {}
    for url in urls:
        if _has_password(url):
            msg = (
                f"--repo {parse_address(url).url}: everybody on this machine could read the password: give it to git's "
            )
            msg += "credential helper, or put the address into a file for --config that only you can read"
            raise Invalid(msg)
        entry = Entry(url=url, name=default_name(url))
        if entry.name in found:
            msg = f"two repositories would be called {entry.name}: name them in a file, and give it with --config"
            raise Invalid(msg)
        found[entry.name] = entry
    return tuple(found.values())


def default_name(url: str) -> str:
    """The last two words of an address's path, of a local one the last. Raises Invalid where it has none."""
    address = parse_address(url)
    path = address.url.partition("://")[2].partition("/")[2] if "://" in address.url else address.url
    path = path.partition(":")[2] if address.host and "://" not in address.url else path
    words = [word for word in re.sub(r"(/|\.git)+$", "", unquote(path)).split("/") if word not in {"", ".", ".."}]
    name = re.sub(r"[^A-Za-z0-9._/-]", "-", "/".join(words[-1:] if address.host is None else words[-2:])).lstrip("._/-")
    if not NAME.fullmatch(name):
        msg = f"{address.url} has no path that could be its name: give it a `name` in a file for --config"
        raise Invalid(msg)
    return name


class _Reader:
    def __init__(self, problems: Problems, *, private: bool) -> None:
        self._problems = problems
        self._private = private

    def configuration(self, root: Node | None) -> Configuration:
        if root is None:
            raise Misread(START, "the file is empty: it needs `repositories`, a list")
        values = self._table(root, KEYS, "the file")
        common = self._terms(values)
        listed = values.get("repositories")
        if listed is None:
            raise Misread(root.mark, "`repositories` is missing: a list of the repositories to serve")
        if not isinstance(listed, Sequence):
            raise Misread(
                listed.mark, "`repositories` takes a list: `- https://…` or `- url: https://…` in a line each"
            )
        if len(listed.items) > MOST_REPOSITORIES:
            raise Misread(listed.mark, f"{len(listed.items)} repositories are too many: at most {MOST_REPOSITORIES}")
        entries: dict[str, tuple[Mark, Entry]] = {}
        for item in listed.items:
            with self._problems.noting():
                entry = self._entry(item, common)
                if entry.name in entries:
                    line = entries[entry.name][0].line
                    raise Misread(
                        item.mark, f"{entry.name} is the name of that in line {line}: give one another `name`"
                    )
                entries[entry.name] = item.mark, entry
        http = self._text(values["http"], "http") if "http" in values else None
        return Configuration(repositories=tuple(entry for _, entry in entries.values()), http=http)

    def _entry(self, node: Node, common: Entry) -> Entry:
        if isinstance(node, Scalar):
            url = self._address(node, "a repository")
            return replace(common, url=url, name=self._name(node, url))
        values = self._table(node, REPOSITORY, "a repository")
        if "url" not in values:
            raise Misread(node.mark, "`url` is missing: the address of the state remote")
        url = self._address(values["url"], "url")
        given = self._terms(values)
        name = self._given_name(values["name"]) if "name" in values else self._name(values["url"], url)
        return Entry(
            url=url,
            name=name,
            code=self._address(values["code"], "code") if "code" in values else None,
            poll=common.poll if given.poll is None else given.poll,
            secret_file=given.secret_file or common.secret_file,
            token_file=given.token_file or common.token_file,
        )

    def _terms(self, values: Map[str, Node]) -> Entry:
        secret, token = values.get("webhook-secret-file"), values.get("controller-token-file")
        return Entry(
            url="",
            name="",
            poll=self._poll(values["poll"]) if "poll" in values else None,
            secret_file=self._text(secret, "webhook-secret-file") if secret else None,
            token_file=self._text(token, "controller-token-file") if token else None,
        )

    def _table(self, node: Node, known: Map[str, str], what: str) -> dict[str, Node]:
        if not isinstance(node, Mapping):
            raise Misread(node.mark, f"{what} takes keys with values: {', '.join(known)}")
        for key, _ in node.entries:
            if key.text not in known:
                hint = nearest(key.text, known) or f"; there are {', '.join(known)}"
                self._problems.add(key.mark, f"there is no key {shown(key.text)} here{hint}")
        return {key.text: value for key, value in node.entries if key.text in known}

    def _text(self, node: Node, key: str) -> str:
        if not isinstance(node, Scalar) or node.null or not node.text.strip():
            raise Misread(node.mark, f"`{key}` takes a text")
        return node.text

    def _address(self, node: Node, key: str) -> str:
        text = self._text(node, key)
        try:
            parse_address(text)
        except Invalid as error:
            raise Misread(node.mark, str(error)) from error
        if _has_password(text) and not self._private:
            msg = "this address holds a password, and others can read the file: `chmod 600` it, or leave the password "
            raise Misread(node.mark, msg + "to git's credential helper")
        return text

    def _name(self, node: Node, url: str) -> str:
        try:
            return default_name(url)
        except Invalid as error:
            raise Misread(node.mark, str(error)) from error

    def _given_name(self, node: Node) -> str:
        name = self._text(node, "name")
        if not NAME.fullmatch(name):
            raise Misread(node.mark, f"{shown(name)} can't be a name: use up to 100 letters, digits and . _ / -")
        return name

    def _poll(self, node: Node) -> float:
        text = self._text(node, "poll")
        number = node.number if isinstance(node, Scalar) else None
        try:
            seconds = parse_duration(text) if number is None else number
        except Invalid as error:
            raise Misread(node.mark, f"`poll`: {error}") from error
        if not POLL[0] <= seconds <= POLL[1]:
            raise Misread(node.mark, f"`poll` is {text}; give from {POLL[0]:g} seconds to {POLL[1]:g}")
        return seconds


def _has_password(url: str) -> bool:
    return parse_address(url).password is not None
