"""Code on a runner: fetched once, checked out without copying what is there, and right whatever a job did to it."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dstack.model.refs import RunKey
from runner.codecache import CodeCache
from runner.slot import Slot
from runner.workspace import Workspaces
from tests.checkouts import KEY, Remote, content, fill
from tests.repositories import sh


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    remote = Remote(tmp_path)
    fill(remote.work)
    return remote


@pytest.fixture
def spaces(tmp_path: Path, remote: Remote) -> Workspaces:
    return Workspaces(tmp_path / "spaces", CodeCache(tmp_path / "code.git", str(remote.path)))


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and change time of every file: both differ once a file is written anew."""
    return {
        str(p): (p.lstat().st_ino, p.lstat().st_ctime_ns) for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()
    }


def test_a_checkout_is_the_snapshot_and_nothing_else(spaces: Workspaces, remote: Remote) -> None:
    tree = spaces.checkout(KEY, remote.snapshot())
    assert content(tree) == content(remote.work)
    assert not (tree / ".git").exists()


def test_the_second_checkout_copies_nothing(spaces: Workspaces, remote: Remote) -> None:
    snapshot = remote.snapshot()
    tree = spaces.checkout(KEY, snapshot)
    before = identities(tree)
    spaces.release(tree)
    assert spaces.checkout(KEY, snapshot) == tree
    assert identities(tree) == before


def test_another_snapshot_writes_only_what_differs(spaces: Workspaces, remote: Remote) -> None:
    tree = spaces.checkout(KEY, remote.snapshot())
    before = identities(tree)
    spaces.release(tree)
    (remote.work / "train.py").write_text("print('other')\n")
    (remote.work / "run.sh").unlink()
    other = Workspaces(spaces._slots.parent, spaces._code, keep=1)
    again = other.checkout(RunKey("fast-rabbit-2", KEY.root12), remote.snapshot(RunKey("fast-rabbit-2", KEY.root12)))
    assert again == tree
    assert content(tree) == content(remote.work)
    changed = {name for name, identity in identities(tree).items() if before[name] != identity}
    assert changed == {str(tree / "train.py")}


def rewrite_keeping_times(path: Path) -> None:
    times = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def swap_for_link(path: Path, target: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(target)


def swap_for_folder(path: Path) -> None:
    path.unlink()
    subprocess.run(["git", "init", "--quiet", path], check=True)
    (path / "inside").write_text("x")


def swap_for_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


def turn_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc")


def lock_away(path: Path) -> None:
    (path / "more").mkdir()
    (path / "more" / "file").write_text("x")
    (path / "more").chmod(0)
    path.chmod(0o500)


def make_pipe(path: Path) -> None:
    os.mkfifo(path / "pipe")


def nested(path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", path], check=True)
    (path / "file").write_text("x")
    (path / ".gitignore").write_text("*\n")


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "modified": lambda tree: (tree / "train.py").write_text("print('HELLO')\n"),
    "modified with times put back": lambda tree: rewrite_keeping_times(tree / "src/deep/model.bin"),
    "deleted": lambda tree: (tree / "train.py").unlink(),
    "deleted folder": lambda tree: shutil.rmtree(tree / "src"),
    "made private": lambda tree: (tree / "train.py").chmod(0o600),
    "folder made private": lambda tree: (tree / "src").chmod(0o700),
    "made executable": lambda tree: (tree / "train.py").chmod(0o777),
    "made unreadable": lambda tree: (tree / "train.py").chmod(0),
    "link turned": lambda tree: turn_link(tree / "link"),
    "folder became a link": lambda tree: swap_for_link(tree / "src", tree.parents[3] / "outside"),
    "file became a repository": lambda tree: swap_for_folder(tree / "train.py"),
    "new file": lambda tree: (tree / "-new\nfile").write_text("x"),
    "new ignored file": lambda tree: (tree / "src" / "ignored").write_text("x"),
    "new link to outside": lambda tree: (tree / "out").symlink_to(tree.parents[3] / "outside"),
    "new repository": lambda tree: nested(tree / "nested"),
    "new repository here": nested,
    "new empty folders": lambda tree: (tree / "a/b/c").mkdir(parents=True),
    "read-only folders": lambda tree: lock_away(tree / "src"),
    "pipe": make_pipe,
    "all gone": shutil.rmtree,
    "a link instead": lambda tree: swap_for_link(tree, tree.parents[3] / "outside"),
    "a file instead": swap_for_file,
    "index gone": lambda tree: (tree.parent / "index").unlink(),
    "index garbage": lambda tree: (tree.parent / "index").write_bytes(b"\0" * 500),
    "index locked": lambda tree: (tree.parent / "index.lock").write_bytes(b""),
    "state garbage": lambda tree: (tree.parent / "state").write_bytes(b"\xff\0clean"),
}


@pytest.mark.parametrize("restarted", [False, True], ids=["released", "killed"])
@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_whatever_a_job_did_the_next_one_gets_the_snapshot(
    spaces: Workspaces, remote: Remote, tmp_path: Path, *, tamper: Callable[[Path], object], restarted: bool
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine\n")
    snapshot = remote.snapshot()
    tree = spaces.checkout(KEY, snapshot)
    tamper(tree)
    if restarted:
        spaces = Workspaces(tmp_path / "spaces", spaces._code)
    else:
        spaces.release(tree)
    assert spaces.checkout(KEY, snapshot) == tree
    assert content(tree) == content(remote.work)
    assert stat.S_IMODE(tree.stat().st_mode) == 0o755
    assert not (tree / ".git").exists()
    assert content(outside) == {"precious": (0o100644, b"mine\n")}
    assert not list((tree.parent / "aside").glob("*"))


def test_two_at_once_have_folders_of_their_own(spaces: Workspaces, remote: Remote) -> None:
    snapshot = remote.snapshot()
    trees: list[Path] = []
    threads = [threading.Thread(target=lambda: trees.append(spaces.checkout(KEY, snapshot))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(trees)) == 4
    assert all(content(tree) == content(remote.work) for tree in trees)


def test_an_adopted_attempts_folder_is_left_alone(spaces: Workspaces, remote: Remote, tmp_path: Path) -> None:
    snapshot = remote.snapshot()
    tree = spaces.checkout(KEY, snapshot)
    (tree / "result").write_text("precious")
    again = Workspaces(tmp_path / "spaces", spaces._code)
    again.claim(tree)
    assert again.checkout(KEY, snapshot) != tree
    assert (tree / "result").read_text() == "precious"
    again.release(tree)
    assert again.checkout(KEY, snapshot) == tree


def test_few_folders_are_kept(remote: Remote, tmp_path: Path) -> None:
    spaces = Workspaces(tmp_path / "spaces", CodeCache(tmp_path / "code.git", str(remote.path)), keep=2)
    snapshot = remote.snapshot()
    trees = [spaces.checkout(KEY, snapshot) for _ in range(5)]
    for tree in trees:
        spaces.release(tree)
        spaces.release(tree)
    assert len(list((tmp_path / "spaces/slots").iterdir())) == 2
    assert spaces.checkout(KEY, snapshot).exists()


CHECKOUT = """
import sys
from pathlib import Path
from dstack.model.refs import RunKey
from runner.codecache import CodeCache
from runner.workspace import Workspaces
folder, remote, snapshot = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
spaces = Workspaces(folder / "spaces", CodeCache(folder / "code.git", remote))
print("now", flush=True)
spaces.checkout(RunKey("fast-rabbit-1", "5ab98f2089ae"), snapshot)
"""


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.03, 0.06, 0.1, 0.2])
def test_killed_in_the_middle_the_next_start_makes_it_right(remote: Remote, tmp_path: Path, pause: float) -> None:
    for number in range(600):
        (remote.work / f"file-{number}").write_bytes(os.urandom(3000))
    snapshot = remote.snapshot()
    command = [sys.executable, "-c", CHECKOUT, str(tmp_path), str(remote.path), snapshot]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1], start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
    spaces = Workspaces(tmp_path / "spaces", CodeCache(tmp_path / "code.git", str(remote.path)))
    assert content(spaces.checkout(KEY, snapshot)) == content(remote.work)


def test_a_git_of_a_killed_runner_that_still_writes_there_keeps_nothing_up(remote: Remote, tmp_path: Path) -> None:
    """It may have been forked and not begun when the next start looks for such."""
    snapshot, place, over = remote.snapshot(), tmp_path / "code.git", threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            with suppress(OSError):
                place.joinpath("objects", "pack").mkdir(parents=True, exist_ok=True)
                place.joinpath("objects", "pack", f"{number}").touch()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(15):
            code = CodeCache(place, str(remote.path))
            code.discard()
            code.fetch(KEY, snapshot)
            assert sh(place, "cat-file", "-t", snapshot) == "commit"
    finally:
        over.set()
        writer.join()


def test_a_git_of_a_killed_runner_that_makes_the_same_keeps_nothing_up(remote: Remote, tmp_path: Path) -> None:
    snapshot, place = remote.snapshot(), tmp_path / "code.git"
    orphan = ["git", "init", "--bare", "--quiet", "--template="]
    for _ in range(15):
        code = CodeCache(place, str(remote.path))
        code.discard()
        with subprocess.Popen(orphan, env={**os.environ, "GIT_DIR": str(place)}, stderr=subprocess.DEVNULL):
            code.fetch(KEY, snapshot)
        assert sh(place, "cat-file", "-t", snapshot) == "commit"


@pytest.mark.parametrize("text", ["", "clean", "clean x y", "\0", "used " + "0" * 40])
def test_a_doubtful_state_is_never_taken_for_a_clean_tree(spaces: Workspaces, remote: Remote, text: str) -> None:
    snapshot = remote.snapshot()
    tree = spaces.checkout(KEY, snapshot)
    (tree / "left over").write_text("x")
    (tree.parent / "state").write_text(text)
    slot = Slot(tree.parent)
    slot.clean = False
    slot.fill(spaces._code, snapshot)
    assert content(tree) == content(remote.work)


def test_trimmed_what_is_free_is_gone_and_what_is_used_stays(spaces: Workspaces, remote: Remote) -> None:
    used, free = spaces.checkout(KEY, snapshot := remote.snapshot()), spaces.checkout(KEY, snapshot)
    spaces.release(free)
    for _ in range(2):
        spaces.trim()
        assert (used.exists(), free.exists(), spaces._code.path.exists()) == (True, False, False)
    assert content(used) == content(remote.work)
    assert content(spaces.checkout(KEY, snapshot)) == content(remote.work)
    spaces.release(used)
    assert content(spaces.checkout(KEY, snapshot)) == content(remote.work)


def test_a_job_sees_only_what_it_declares_to_depend_on(spaces: Workspaces, remote: Remote) -> None:
    snapshot = remote.snapshot()
    tree = spaces.checkout(KEY, snapshot, ("src/**/*.bin", "*.sh"))
    assert set(content(tree)) == {"run.sh", "src", "src/deep", "src/deep/model.bin"}
    assert (tree / "run.sh").stat().st_mode & 0o111
    (tree / "train.py").write_text("left by a job")
    spaces.release(tree)
    assert content(spaces.checkout(KEY, snapshot)) == content(remote.work)


def test_a_narrow_checkout_writes_nothing_anew_that_stays(spaces: Workspaces, remote: Remote) -> None:
    snapshot = remote.snapshot()
    tree = spaces.checkout(KEY, snapshot)
    before = identities(tree)
    spaces.release(tree)
    narrow = spaces.checkout(KEY, snapshot, ("src",))
    assert narrow == tree
    after = identities(narrow)
    assert after == {name: one for name, one in before.items() if "/src" in name}


def test_a_snapshot_whose_globs_name_nothing_is_an_empty_folder(spaces: Workspaces, remote: Remote) -> None:
    assert content(spaces.checkout(KEY, remote.snapshot(), ("nowhere",))) == {}
