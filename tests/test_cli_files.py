"""Files of any kind and name, from the work tree through a whole run: what the job sees is what the user has."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.calls import Desk, desk
from tests.repositories import sh

LOOK = """\
workflows:
  - name: look
    commands:
      - mkdir seen && printf '%s' "$words" > seen/words
      - find . -path ./seen -prune -o -type f ! -path './.dstack/*' -exec sha256sum -z {} + | sort -z > seen/files
      - find . -type l -printf '%p -> %l\\n' > seen/links
      - find . -path ./seen -prune -o -type f -perm -100 -print > seen/executable
    artifacts: [seen]
"""
WORDS = "a b  \"c\" 'd' $(touch evaluated) `id` \\n\n--flag * ${HOME};"
NAMES = [
    b"with space",
    b"new\nline",
    b"-dash",
    b"--force",
    b"not-utf8-\xff\xfe",
    b'quo"te',
    b"back\\slash",
    b"a/b/c/deep",
]


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    made = desk(tmp_path, capfd)
    made.write(".dstack/workflows.yaml", LOOK)
    made.write(".dstack/variables.yaml", "variables:\n  look: {words: none}\n")
    for name in ("staged", "deleted", "renamed", "changed"):
        made.write(name, f"{name}\n")
    (made.folder / "link").symlink_to("changed")
    made.write(".gitignore", "*.log\n")
    sh(made.folder, "add", "--all")
    sh(made.folder, "commit", "--quiet", "-m", "files")
    return made


def dirty(folder: Path) -> None:
    """Everything that can be between a commit and a work tree."""
    (folder / "staged").write_text("staged anew\n")
    sh(folder, "add", "staged")
    (folder / "deleted").unlink()
    sh(folder, "mv", "renamed", "its new name")
    (folder / "changed").write_bytes(b"\0\1binary\xff")
    (folder / "changed").chmod(0o755)
    (folder / "ignored.log").write_text("stays here\n")
    (folder / ".env").write_text("TOKEN=1\n")
    for name in NAMES:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)


def here(folder: Path) -> set[bytes]:
    """Digest and name of each file that should travel."""
    names = subprocess.run(
        ["find", ".", "-path", "./.git", "-prune", "-o", "-path", "./.dstack", "-prune", "-o", "-type", "f", "-print0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.split(b"\0")[:-1]
    at_home = {b"./ignored.log", b"./.env"}
    return {
        hashlib.sha256((folder / os.fsdecode(name)).read_bytes()).hexdigest().encode() + b"  " + name
        for name in names
        if name not in at_home
    }


def looked(at: Desk, *args: str) -> Path:
    """What the job saw."""
    answer = at.dstack("run", "look", "--local", "--name", "first", *args)
    assert answer.code == 0, answer
    assert ".env looks like credentials and is left out" in answer.err
    out = at.folder.parent / "out"
    assert at.dstack("artifacts", "first", "-o", str(out)).code == 0
    return out / "seen"


def test_the_job_sees_the_work_tree_as_it_stands(at: Desk) -> None:
    sh(at.folder, "checkout", "--quiet", "--detach")
    dirty(at.folder)
    seen = looked(at, "--words", WORDS)
    assert set((seen / "files").read_bytes().split(b"\0")[:-1]) == here(at.folder)
    assert (seen / "links").read_text() == "./link -> changed\n"
    assert (seen / "executable").read_text() == "./changed\n"
    assert (seen / "words").read_text() == WORDS


@pytest.mark.lfs
@pytest.mark.parametrize("remote", ["origin", "."])
def test_the_job_sees_what_lies_in_lfs(at: Desk, remote: str) -> None:
    sh(at.folder, "config", "dstack.remote", remote)
    sh(at.folder, "lfs", "install", "--local", "--skip-repo")
    at.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    dirty(at.folder)
    (at.folder / "committed.bin").write_bytes(os.urandom(200_000))
    sh(at.folder, "add", ".gitattributes", "committed.bin")
    sh(at.folder, "commit", "--quiet", "-m", "lfs")
    (at.folder / "new.bin").write_bytes(os.urandom(2_000_000))
    seen = looked(at)
    assert set((seen / "files").read_bytes().split(b"\0")[:-1]) == here(at.folder)
