"""`controller.yaml` and --repo: what they say, what is wrong with them, and that no credentials are ever told."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.fleet_config import File, Options, read_secrets
from controller.configuration import KEYS, REPOSITORY, Configuration, default_name, parse_configuration
from dstack.model.errors import Failed, Invalid
from tests.installed import ROOT

FULL = b"""\
http: 0.0.0.0:8080
poll: 5s
webhook-secret-file: secret
repositories:
  - https://github.com/acme/train.git
  - git@github.com:acme/eval.git
  - url: /srv/state.git
    name: state
    code: https://github.com/acme/code
    poll: 0.5
    webhook-secret-file: other
    controller-token-file: token
"""


def parse(text: bytes, *, private: bool = False) -> Configuration:
    return parse_configuration(text, "controller.yaml", private=private)


def complaint(text: str, *, private: bool = False) -> str:
    with pytest.raises(Invalid) as caught:
        parse(text.encode(), private=private)
    return str(caught.value)


def test_what_an_entry_leaves_out_stands_above_it() -> None:
    found = parse(FULL)
    assert found.http == "0.0.0.0:8080"
    assert [(one.name, one.code, one.poll, one.secret_file, one.token_file) for one in found.repositories] == [
        ("acme/train", None, 5.0, "secret", None),
        ("acme/eval", None, 5.0, "secret", None),
        ("state", "https://github.com/acme/code", 0.5, "other", "token"),
    ]
    assert found.repositories[1].url == "git@github.com:acme/eval.git"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://ada@github.com/acme/deep/train.git/", "deep/train"),
        ("ssh://git@host:2222/train.git", "train"),
        ("git@host:acme/train.git", "acme/train"),
        ("/srv/git/train/.git", "train"),
        ("../train", "train"),
        ("file:///srv/train.git", "train"),
        ("https://host/a%20b/ü", "a-b/-"),
    ],
)
def test_a_repository_is_called_by_the_end_of_its_address(url: str, name: str) -> None:
    assert default_name(url) == name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "controller.yaml:1:1: the file is empty: it needs `repositories`, a list"),
        ("poll: 5s", "controller.yaml:1:1: `repositories` is missing: a list of the repositories to serve"),
        ("repositories: 3", "controller.yaml:1:15: `repositories` takes a list: `- https://…` or `- url: https://…`"),
        ("repositories: [[a]]", "controller.yaml:1:16: a repository takes keys with values: url, code, name, poll,"),
        ("repositories: [{name: x}]", "controller.yaml:1:16: `url` is missing: the address of the state remote"),
        ("repositories: [{url: }]", "controller.yaml:1:22: `url` takes a text"),
        ("repositories: [{url: ./x, nam: y}]", "controller.yaml:1:27: there is no key 'nam' here (did you mean"),
        ("repositories: ['ext::sh -c x']", "controller.yaml:1:16: 'ext::sh -c x' can't be the address of a git remote"),
        ("repositories: [ftp://h/x]", "controller.yaml:1:16: ftp://h/x can't be a git remote: use https://, http://,"),
        ("repositories: [https://h/]", "controller.yaml:1:16: https://h/ has no path that could be its name"),
        ("repositories: [{url: ./x, name: '../x y'}]", "controller.yaml:1:33: '../x y' can't be a name: use up to 100"),
        ("repositories: []\npoll: fast", "controller.yaml:2:7: `poll`: 'fast' is no duration, like 90s"),
        ("repositories: []\npoll: 0.01", "controller.yaml:2:7: `poll` is 0.01; give from 0.05 seconds to 3600"),
        ("repositories: []\npoll: 2h", "controller.yaml:2:7: `poll` is 2h; give from 0.05 seconds to 3600"),
        ("repositories: [a/x, b/x]", "controller.yaml:1:21: x is the name of that in line 1: give one another `name`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(text: str, told: str) -> None:
    assert complaint(text).startswith(told)


def test_a_password_may_only_stand_in_a_file_that_nobody_else_can_read() -> None:
    text = "repositories:\n- https://ada:pl4nted@h/acme/x"
    assert complaint(text) == (
        "controller.yaml:2:3: this address holds a password, and others can read the file: `chmod 600` it, or leave "
        "the password to git's credential helper"
    )
    found = parse(text.encode(), private=True)
    assert found.repositories[0].url == "https://ada:pl4nted@h/acme/x"
    assert "pl4nted" not in repr(found)


@pytest.mark.parametrize("where", ["https://ada:pl4nted@", "https://ada:pl4nted@h:x/y", "ext::x://a:pl4nted@h/x"])
def test_a_broken_address_is_told_without_its_password(where: str) -> None:
    assert "pl4nted" not in complaint(f"repositories: ['{where}']", private=True)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_file_is_read_or_refused(text: bytes) -> None:
    try:
        told = [one.name for one in parse(text, private=True).repositories]
    except Invalid as error:
        told = [str(error)[:16]]
    assert "" not in told


def wanted(tmp_path: Path, text: str, mode: int = 0o600) -> File:
    path = tmp_path / "controller.yaml"
    path.write_text(text)
    path.chmod(mode)
    return File(path=path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x.git", "./x.git/"),
        ("https://Host/acme/x.git", "https://ada@host/acme/x"),
        ("git@host:/srv/x.git", "ssh://git@host/srv/x"),
        ("git@github.com:acme/x.git", "https://github.com/acme/x"),
    ],
)
def test_two_entries_of_one_remote_are_refused_however_they_are_written(tmp_path: Path, one: str, other: str) -> None:
    (tmp_path / "x.git").mkdir()
    source = wanted(tmp_path, f"repositories: [{{url: '{one}', name: first}}, {{url: '{other}', name: second}}]")
    with pytest.raises(Invalid, match=r"^first and second are the same remote, .*: leave one out$"):
        source.read()


def test_secrets_come_from_the_environment_or_from_files_of_the_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTACK_WEBHOOK_SECRET", "new,old")
    secret = tmp_path / "own"
    secret.write_text("newest\nolder\n\n")
    secret.chmod(0o600)
    source = wanted(tmp_path, "repositories: [a/x, {url: b/y, webhook-secret-file: own}]")
    first, second = source.read().places
    assert (first.secrets, second.secrets) == (("new", "old"), ("newest", "older"))
    assert "old" not in repr(source.read())
    secret.chmod(0o640)
    with pytest.raises(Failed, match=r"others can read the secrets in .*/own: `chmod 600"):
        source.read()
    with pytest.raises(Failed, match="can't be read: No such file or directory"):
        read_secrets(tmp_path / "none")


def test_addresses_that_may_be_two_remotes_are_served_both(tmp_path: Path) -> None:
    source = wanted(tmp_path, "repositories: [{url: 'git@host:x', name: a}, {url: 'ssh://git@host/x', name: b}]")
    assert [place.entry.name for place in source.read().places] == ["a", "b"]


def test_a_change_of_the_file_or_of_a_secret_is_noticed(tmp_path: Path) -> None:
    secret = tmp_path / "own"
    secret.write_text("one")
    secret.chmod(0o600)
    source = wanted(tmp_path, "webhook-secret-file: own\nrepositories: [a/x]")
    source.read()
    before = source.marks()
    assert source.marks() == before
    secret.write_text("another")
    rotated = source.marks()
    assert rotated != before
    scratch = tmp_path / "new"
    scratch.write_text("repositories: []")
    scratch.replace(source.path)
    replaced = source.marks()
    assert replaced != rotated
    source.path.unlink()
    assert source.marks() != replaced


def test_a_path_is_meant_from_the_file_and_may_come_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (place,) = wanted(tmp_path, "repositories: [later.git]").read().places
    assert place.remote.path == Path(os.path.realpath(tmp_path)) / "later.git"
    assert place.code == place.remote


def test_options_take_no_password() -> None:
    with pytest.raises(Invalid) as caught:
        Options(urls=("https://ada:pl4nted@h/acme/x",), base=Path("/")).read()
    assert "pl4nted" not in str(caught.value)
    assert str(caught.value).startswith("--repo https://h/acme/x: everybody on this machine could read the password")
    with pytest.raises(Invalid, match="two repositories would be called acme/x: name them in a file"):
        Options(urls=("https://h/acme/x", "https://g/acme/x"), base=Path("/")).read()
    (place,) = Options(urls=("https://ada@h/acme/x",), base=Path("/"), poll=7.0).read().places
    assert (place.remote.url, place.entry.poll) == ("https://h/acme/x", 7.0)


def test_the_page_shows_a_file_that_can_be_read_and_every_key() -> None:
    page = (ROOT / "docs" / "controller.md").read_text()
    shown = page.partition("```yaml\n")[2].partition("```")[0]
    assert [one.name for one in parse(shown.encode()).repositories] == ["acme/train", "eval"]
    keys = re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)
    assert set(keys) == KEYS.keys() | REPOSITORY.keys()
