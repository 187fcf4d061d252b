"""The code remote as triggers look at it, on this machine and elsewhere: what is there, and what differs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.ledger import codecache, git
from dstack.ledger.codecache import CodeCache
from dstack.ledger.facts import FactFinder, author_of, file_at
from dstack.ledger.objects import Objects, create
from dstack.ledger.remote import Remote, find_remote
from dstack.ledger.snapshot import WORKFLOWS
from dstack.model.bucket import Reach
from dstack.model.errors import Failed, Invalid, Unavailable
from dstack.model.firing import Diff, Lookups
from tests.git_servers import HttpServer
from tests.repositories import bare, sh, work

ON_PUSH = "workflows:\n- name: hello\n  on: push\n  commands: [echo hello]\n"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A code remote with a branch `main`."""
    remote = bare(tmp_path / "served/code.git")
    sh(remote, "config", "uploadpack.allowFilter", "true")
    tree = work(tmp_path / "work")
    sh(tree, "remote", "add", "origin", str(remote))
    sh(tree, "push", "--quiet", "origin", "main")
    return remote


@pytest.fixture
def tree(origin: Path, tmp_path: Path) -> Path:
    """The work tree of somebody who pushes there."""
    assert origin.is_dir()
    return tmp_path / "work"


@pytest.fixture
def server(origin: Path, tmp_path: Path) -> Iterator[HttpServer]:
    """Serves it over smart HTTP."""
    assert origin.is_dir()
    found = HttpServer(tmp_path / "served")
    found.start()
    yield found
    found.stop()


@pytest.fixture(params=["here", "away", "whole"])
def code(request: pytest.FixtureRequest, origin: Path, tmp_path: Path) -> CodeCache:
    """On this machine; as if elsewhere, without files; likewise, where the server can't leave them out."""
    if request.param == "here":
        return CodeCache(tmp_path / "cache/code", find_remote(str(origin), tmp_path))
    if request.param == "whole":
        sh(origin, "config", "uploadpack.allowFilter", "false")
    away = Remote(name="origin", url=f"file://{origin}", reach=Reach.NETWORK)
    return CodeCache(tmp_path / "cache/code", away)


def commit(tree: Path, path: str, text: str, message: str = "more") -> str:
    """A commit that writes a file; its id."""
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_text(text)
    sh(tree, "add", "--all")
    sh(tree, "commit", "--quiet", "-m", message)
    return sh(tree, "rev-parse", "HEAD")


def push(tree: Path, *refspecs: str) -> None:
    """To origin."""
    sh(tree, "push", "--quiet", "--force", "origin", *refspecs)


def objects_of(code: CodeCache, tmp_path: Path) -> Objects:
    """A repository of ours that reads the code's objects too."""
    path = tmp_path / "ours"
    if not path.exists():
        create(path, [code.objects_folder])
    return Objects.open(path)


def test_branches_tags_and_the_default_branch_are_told_but_nothing_of_dstacks(code: CodeCache, tree: Path) -> None:
    head = sh(tree, "rev-parse", "HEAD")
    sh(tree, "tag", "plain")
    sh(tree, "tag", "-a", "said", "-m", "said")
    push(tree, "plain", "said", "HEAD:refs/heads/a/b", "HEAD:refs/heads/dstack/runs/x", "HEAD:refs/tags/dstack/latest")
    tips = code.tips(pulls=False)
    assert tips.refs == dict.fromkeys(
        ("refs/heads/main", "refs/heads/a/b", "refs/tags/plain", "refs/tags/said"), head
    ), "an annotated tag is its commit"
    assert tips.default == "main"


def test_heads_of_pull_requests_are_told_where_they_are_asked_for(code: CodeCache, tree: Path) -> None:
    push(tree, "HEAD:refs/pull/7/head", "HEAD:refs/pull/7/merge", "HEAD:refs/merge-requests/8/head")
    assert set(code.tips(pulls=False).refs) == {"refs/heads/main"}
    assert {"refs/pull/7/head", "refs/merge-requests/8/head"} <= set(code.tips(pulls=True).refs)


def test_what_moves_goes_or_comes_is_told_the_next_time(code: CodeCache, tree: Path) -> None:
    push(tree, "HEAD:refs/heads/gone")
    assert "refs/heads/gone" in code.tips(pulls=False).refs
    after = commit(tree, "train.py", "print('more')\n")
    push(tree, "main", ":refs/heads/gone", "HEAD:refs/heads/new")
    assert code.tips(pulls=False).refs == {"refs/heads/main": after, "refs/heads/new": after}


def test_a_tag_of_a_file_is_left_out(code: CodeCache, tree: Path) -> None:
    blob = sh(tree, "rev-parse", "HEAD:train.py")
    push(tree, f"{blob}:refs/tags/file")
    assert set(code.tips(pulls=False).refs) == {"refs/heads/main"}


def test_only_the_files_that_are_asked_for_come(origin: Path, tree: Path, tmp_path: Path) -> None:
    commit(tree, "large.bin", "x" * 100_000)
    push(tree, "main")
    away = Remote(name="origin", url=f"file://{origin}", reach=Reach.NETWORK)
    code = CodeCache(tmp_path / "cache/code", away)
    tip = code.tips(pulls=False).refs["refs/heads/main"]
    objects = objects_of(code, tmp_path)
    with pytest.raises(Unavailable, match="did not come"):
        file_at(objects, tip, WORKFLOWS)
    code.bring([tip], [WORKFLOWS])
    found = file_at(objects, tip, WORKFLOWS)
    assert found is not None
    assert b"hello" in found.data
    missing = sh(code.objects_folder.parent, "rev-list", "--objects", "--missing=print", tip).count("\n?")
    assert missing == 2, "train.py and large.bin stay where they are"


def test_the_paths_that_differ_are_told(code: CodeCache, tree: Path) -> None:
    before = sh(tree, "rev-parse", "HEAD")
    commit(tree, "src/a b.py", "1")
    after = commit(tree, "docs/ä.md", "2")
    push(tree, "main")
    code.tips(pulls=False)
    assert code.changed(Diff(before, after)) == frozenset({"src/a b.py", "docs/ä.md"})
    assert code.changed(Diff(after, before)) == frozenset({"src/a b.py", "docs/ä.md"})
    assert code.changed(Diff("1" * 40, after)) is None, "what is gone can't be compared"


def test_a_new_branch_is_compared_with_where_it_left(code: CodeCache, tree: Path) -> None:
    sh(tree, "checkout", "--quiet", "-b", "side")
    side = commit(tree, "side.py", "1")
    sh(tree, "checkout", "--quiet", "main")
    main = commit(tree, "main.py", "2")
    sh(tree, "checkout", "--quiet", "--orphan", "other")
    other = commit(tree, "other.py", "3")
    push(tree, "main", "side", "other")
    code.tips(pulls=False)
    assert code.changed(Diff(main, side, forked=True)) == frozenset({"side.py"})
    assert code.changed(Diff(main, other, forked=True)) is None, "they have nothing in common"


def test_too_many_paths_count_as_all(code: CodeCache, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecache, "MOST_PATHS", 1)
    before = sh(tree, "rev-parse", "HEAD")
    commit(tree, "a", "1")
    after = commit(tree, "b", "1")
    push(tree, "main")
    code.tips(pulls=False)
    assert code.changed(Diff(before, after)) is None


def test_a_head_that_no_branch_contains_is_not_reached(code: CodeCache, tree: Path) -> None:
    sh(tree, "checkout", "--quiet", "-b", "fork")
    fork = commit(tree, "fork.py", "1")
    sh(tree, "checkout", "--quiet", "main")
    main = sh(tree, "rev-parse", "HEAD")
    push(tree, f"{fork}:refs/pull/1/head", f"{fork}:refs/heads/dstack/runs/x")
    code.tips(pulls=True)
    assert code.reached([fork, main]) == {main}, "a branch of dstack's own says nothing"
    push(tree, f"{fork}:refs/heads/now")
    code.tips(pulls=True)
    assert code.reached([fork, main]) == {fork, main}
    assert code.reached([main, "1" * 40]) == set(), "what can't be told may be a fork's"


def test_an_idle_remote_on_this_machine_costs_no_process(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = CodeCache(tmp_path / "cache/code", find_remote(str(origin), tmp_path))
    first = code.tips(pulls=False)
    monkeypatch.setattr(git, "run", None)
    assert code.tips(pulls=False) == first


def test_a_remote_that_cant_be_read_is_named(tmp_path: Path) -> None:
    away = Remote(name="origin", url=f"file://{tmp_path}/nowhere.git", reach=Reach.NETWORK)
    with pytest.raises(Failed, match=r"the code remote file://.*nowhere\.git can't be read"):
        CodeCache(tmp_path / "cache/code", away).tips(pulls=False)


def test_over_http_with_a_password_it_is_the_same(server: HttpServer, tree: Path, tmp_path: Path) -> None:
    head = sh(tree, "rev-parse", "HEAD")
    code = CodeCache(tmp_path / "cache/code", find_remote(server.url("code.git"), tmp_path))
    assert code.tips(pulls=True).refs == {"refs/heads/main": head}
    code.bring([head], [WORKFLOWS])
    assert file_at(objects_of(code, tmp_path), head, WORKFLOWS)
    config = (tmp_path / "cache/code/config").read_text()
    assert "http://" in config
    assert "@" not in config, "no password is written down"


def test_facts_say_who_committed_and_what_that_starts(code: CodeCache, tree: Path, tmp_path: Path) -> None:
    tip = commit(tree, WORKFLOWS, ON_PUSH, "subject\n\nand more")
    push(tree, "main")
    code.tips(pulls=False)
    finder = FactFinder(code=code, objects=objects_of(code, tmp_path))
    finder.look_up(Lookups(commits=frozenset({tip}), reached=frozenset({tip})))
    found = finder.facts.commits[tip]
    assert (found.by, found.message) == ("Ada Tester <ada@example.org>", "subject\n\nand more\n")
    assert list(found.on) == ["hello"]
    assert finder.facts.reached == {tip: True}
    finder.forget()
    assert finder.facts.reached == {}
    assert tip in finder.facts.commits


def test_a_broken_file_is_a_problem_and_none_is_no_problem(code: CodeCache, tree: Path, tmp_path: Path) -> None:
    broken = commit(tree, WORKFLOWS, "workflows: 7\n")
    (tree / WORKFLOWS).unlink()
    (tree / WORKFLOWS).symlink_to("/etc/passwd")
    sh(tree, "commit", "--quiet", "-am", "link")
    link = sh(tree, "rev-parse", "HEAD")
    sh(tree, "rm", "--quiet", WORKFLOWS)
    sh(tree, "commit", "--quiet", "-m", "none")
    none = sh(tree, "rev-parse", "HEAD")
    push(tree, "main")
    code.tips(pulls=False)
    finder = FactFinder(code=code, objects=objects_of(code, tmp_path))
    finder.look_up(Lookups(commits=frozenset({broken, link, none})))
    assert "workflows" in finder.facts.commits[broken].problem
    assert "not a plain file" in finder.facts.commits[link].problem
    assert (finder.facts.commits[none].problem, finder.facts.commits[none].on) == ("", {})


def test_a_huge_file_of_workflows_is_refused_unread(code: CodeCache, tree: Path, tmp_path: Path) -> None:
    tip = commit(tree, WORKFLOWS, "#" * (2 * 1024 * 1024))
    push(tree, "main")
    code.tips(pulls=False)
    finder = FactFinder(code=code, objects=objects_of(code, tmp_path))
    finder.look_up(Lookups(commits=frozenset({tip})))
    assert "at most" in finder.facts.commits[tip].problem


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"tree 1\ncommitter A B <a@b> 1 +0000\n\nhello", ("A B <a@b>", "hello")),
        (b"tree 1\ngpgsig x\n committer E <e@e> 1 +0\ncommitter A <a@b> 1 +0\n\nm", ("A <a@b>", "m")),
        (b"tree 1\n\n", ("", "")),
        (b"committer \xff <\xff> 1 +0\n\n\xff", ("\ufffd <\ufffd>", "\ufffd")),
    ],
)
def test_a_commits_author_is_read_from_its_head_alone(raw: bytes, expected: tuple[str, str]) -> None:
    assert author_of(raw) == expected


def test_a_file_that_is_no_commits_is_refused(code: CodeCache, tree: Path, tmp_path: Path) -> None:
    code.tips(pulls=False)
    blob = sh(tree, "rev-parse", "HEAD^{tree}")
    with pytest.raises(Invalid, match="no commit"):
        file_at(objects_of(code, tmp_path), blob, WORKFLOWS)
