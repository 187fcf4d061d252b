"""Bytes from a container: taken apart, skipped, appended after a crash, and unpacked without leaving the target."""

import io
import struct
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.errors import Invalid
from runner.frames import STDERR, STDOUT, SYSTEM
from runner.multiplexed import pieces
from runner.output import NotWritten, OutputFile
from runner.streams import Chunks
from runner.unpack import unpack
from tests.attempts import frames, output

SPOKEN = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=300)), max_size=12)


def joined(found: list[tuple[int, bytes]], stream: int) -> bytes:
    return b"".join(data for one, data in found if one == stream)


def sent(spoken: list[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack(">BxxxI", stream, len(data)) + data for stream, data in spoken)


@given(SPOKEN, st.integers(0, 5000))
def test_a_stream_that_breaks_off_gives_all_that_came(spoken: list[tuple[int, bytes]], cut: int) -> None:
    whole = sent(spoken)
    found = list(pieces(io.BytesIO(whole[:cut]).read))
    for stream in (STDOUT, STDERR):
        assert joined(spoken, stream).startswith(joined(found, stream))
    if cut >= len(whole):
        assert [piece for piece in found if piece[1]] == [piece for piece in spoken if piece[1]]


def copied(file: OutputFile, spoken: list[tuple[int, bytes]]) -> None:
    """What a follower does with a log that it reads from its beginning."""
    streams = file.rejoining()
    for stream, data in spoken:
        news = streams[stream].feed(data)
        if news.lost:
            file.lose(stream, news.lost)
        file.write(stream, news.data)


@given(SPOKEN, st.integers(0, 12), st.integers(0, 12))
def test_what_is_known_already_is_skipped_by_stream(spoken: list[tuple[int, bytes]], first: int, then: int) -> None:
    """Read to here, then from the beginning to there, then all: by one who knows it, or by a new one."""
    with tempfile.TemporaryDirectory() as name:
        for part in (spoken[:first], spoken[:then], spoken):
            file = OutputFile(Path(name) / "output")
            for _ in range(2):
                copied(file, part)
            file.close()
        got = [(frame.stream, frame.data) for frame in frames(Path(name))]
        for stream in (STDOUT, STDERR):
            assert joined(got, stream) == joined(spoken, stream)


def test_what_the_engine_forgot_is_remembered_over_restarts(tmp_path: Path) -> None:
    """Killed twice, each time in the middle of a line; in between and after the second, the runner starts anew."""
    log = [(STDOUT, b"one\n"), (STDERR, b"warning\n")]
    file = OutputFile(tmp_path / "output")
    copied(file, [*log, (STDOUT, b"10% 20% ")])
    log += [(STDOUT, b"30% 40%\n"), (STDOUT, b"two\n")]
    copied(file, log)
    file.close()
    file = OutputFile(tmp_path / "output")
    copied(file, log)
    copied(file, [*log, (STDOUT, b"three: ")])
    file.close()
    log += [(STDOUT, b"done\nlast\n")]
    for _ in range(2):
        file = OutputFile(tmp_path / "output")
        copied(file, log)
        file.close()
    assert output(tmp_path, STDOUT) == b"one\n10% 20% 30% 40%\ntwo\nthree: done\nlast\n"
    assert output(tmp_path, STDERR) == b"warning\n"


def test_gaps_that_can_not_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "output.gaps").write_text("{")
    file = OutputFile(tmp_path / "output")
    copied(file, [(STDOUT, b"one\n")])
    file.close()
    assert output(tmp_path) == b"one\n"


@given(st.binary(max_size=60))
def test_output_goes_on_behind_a_torn_frame(torn: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = OutputFile(folder / "output")
        first.write(STDOUT, b"one")
        first.write(STDERR, b"two!")
        first.write(SYSTEM, b"of dstack")
        first.close()
        with (folder / "output").open("ab") as file:
            file.write(struct.pack(">BdI", STDOUT, 0.0, 100) + torn)
        second = OutputFile(folder / "output")
        assert {second.seen[stream] for stream in (STDOUT, STDERR)} == {3, 4}
        second.write(STDOUT, b"three")
        second.close()
        assert [frame.data for frame in frames(folder)] == [b"one", b"two!", b"of dstack", b"three"]


def test_output_begins_anew_behind_garbage(tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(b"\xff" * 100)
    file = OutputFile(tmp_path / "output")
    file.write(STDOUT, b"x" * 200_000)
    file.close()
    assert output(tmp_path) == b"x" * 200_000


def test_a_full_disk_is_told_and_leaves_whole_frames(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "output")
    file.write(STDOUT, b"before")
    real, file._file = file._file, Stub(tmp_path / "output", "ab")
    with pytest.raises(NotWritten, match="No space left"):
        file.write(STDOUT, b"lost" * 100)
    file._file.close()
    file._file = real
    file.write(STDOUT, b"after")
    file.close()
    assert [frame.data for frame in frames(tmp_path)] == [b"before", b"after"]
    assert file.seen[STDOUT] == len(b"beforeafter")


class Stub(io.FileIO):
    """A file on a disk that takes ten more bytes."""

    def write(self, data: object, /) -> int:
        assert isinstance(data, bytes)
        if self.tell() > 30:
            raise OSError(28, "No space left on device")
        return super().write(data[:10])


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40))
def test_chunks_read_as_a_file(chunks: list[bytes], size: int) -> None:
    file = io.BufferedReader(Chunks(iter(chunks)), buffer_size=size)
    assert file.read() == b"".join(chunks)


def archive(*members: tuple[str, bytes, str]) -> tarfile.TarFile:
    """An archive of (name, type, link target or content)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as writing:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                info.size = len(text)
            else:
                info.linkname = text
            writing.addfile(info, io.BytesIO(text.encode()) if kind == tarfile.REGTYPE else None)
    data.seek(0)
    return tarfile.open(fileobj=data, mode="r|")


HOSTILE = {
    "absolute": [("/etc/evil", tarfile.REGTYPE, "x")],
    "parent": [("out", tarfile.DIRTYPE, ""), ("out/../../evil", tarfile.REGTYPE, "x")],
    "through a link": [
        ("out", tarfile.DIRTYPE, ""),
        ("out/link", tarfile.SYMTYPE, "../.."),
        ("out/link/evil", tarfile.REGTYPE, "x"),
    ],
    "hard link away": [("out", tarfile.DIRTYPE, ""), ("out/hard", tarfile.LNKTYPE, "../../secret")],
    "hard link to absolute": [("out", tarfile.DIRTYPE, ""), ("out/hard", tarfile.LNKTYPE, "/etc/passwd")],
    "twice": [("out", tarfile.DIRTYPE, ""), ("out/a", tarfile.REGTYPE, "1"), ("out/a", tarfile.REGTYPE, "2")],
    "link over file": [("out", tarfile.DIRTYPE, ""), ("out/a", tarfile.REGTYPE, "1"), ("out/a", tarfile.SYMTYPE, "/")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_lands_nowhere_else(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "inner").mkdir()
    with archive(*members) as hostile, pytest.raises((Invalid, OSError)):
        unpack(hostile, tmp_path / "inner" / "target")
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "inner"}
    assert {path.name for path in (tmp_path / "inner").iterdir()} <= {"target"}


def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    members = [("out", tarfile.DIRTYPE, ""), ("out/pipe", tarfile.FIFOTYPE, ""), ("out/disk", tarfile.BLKTYPE, "")]
    with archive(*members) as found:
        unpack(found, tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []
