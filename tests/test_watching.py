"""`dstack status --watch`: what is drawn, and when it ends."""

import threading
import time
from pathlib import Path

import pytest

from cli.daemons import controller_daemon
from cli.reading import Reader
from cli.session import open_session
from cli.stopping import Wish, ask_for
from cli.watching import Frame, Screen, fitted, watch
from controller.main import moment
from dstack.model.errors import Unavailable
from dstack.model.runspec import Desired
from tests.calls import Desk, desk
from tests.terminal import INTERRUPT, terminal


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


def test_on_a_terminal_a_frame_is_drawn_over_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(in_place=True)
    for text in ("a\nb", "a\nb", "c"):
        screen.show(Frame(text=text, over=False))
    assert capsys.readouterr().out == "a\nb\n\x1b[2F\x1b[Jc\n"


def test_elsewhere_only_what_has_changed_is_printed_below(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(in_place=False)
    for text, over in (("a", False), ("a", False), ("b", False), ("b", True)):
        screen.show(Frame(text=text, over=over))
    assert capsys.readouterr().out == "a\n\nb\n"


def test_what_a_terminal_has_no_room_for_is_counted() -> None:
    text = "\n".join(str(number) for number in range(50))
    assert fitted(text, 100) == text
    assert fitted(text, 11).split("\n") == [*(str(number) for number in range(9)), "… and 41 more lines"]
    assert len(fitted(text, 1).split("\n")) == 2


def test_a_remote_that_is_away_is_waited_for_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[Frame | Unavailable] = [
        Frame(text="a", over=False),
        Unavailable("away"),
        Unavailable("away"),
        Frame(text="b", over=True),
    ]

    def frame() -> Frame:
        answer = answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    watch(frame, every=0, news=threading.Event())
    out, err = capsys.readouterr()
    assert (out, err) == ("a\n\nb\n", "away; waiting for it\n")


def test_news_bring_the_next_look_sooner(capsys: pytest.CaptureFixture[str]) -> None:
    news, looks = threading.Event(), 0

    def frame() -> Frame:
        nonlocal looks
        looks += 1
        threading.Timer(0.05, news.set).start()
        return Frame(text=str(looks), over=looks == 3)

    begin = time.monotonic()
    watch(frame, every=60, news=news)
    assert time.monotonic() - begin < 30
    assert capsys.readouterr().out == "1\n\n2\n\n3\n"


def test_watching_ends_with_what_is_watched(at: Desk) -> None:
    assert at.dstack("run", "hello", "-d", "--name", "old", "-y").code == 0
    finish(at, "old")
    assert at.dstack("run", "train", "-d", "--name", "new", "-y").code == 0
    ending = threading.Timer(0.7, finish, (at, "new"))
    ending.start()
    answer = at.dstack("status", "-w", "--no-jobs")
    ending.join()
    assert answer.code == 0, answer
    tables = answer.out.split("\n\n")
    assert ("QUEUED" in tables[0], "STOPPED" in tables[-1]) == (True, True)
    assert "old" not in answer.out
    assert at.dstack("status", "-w", "old").out.count("STOPPED") == 1
    assert at.dstack("status", "-w", "--json").code == 2


def finish(at: Desk, name: str) -> None:
    session = open_session(at.folder)
    ask_for(Reader(session), Wish(run=name, desired=Desired.STOP))
    controller = controller_daemon(session, session.poll()).controller
    for _ in range(3):
        time.sleep(min(0.1, controller.step(moment()) or 0))


def test_an_interrupt_ends_it_with_130(at: Desk) -> None:
    assert at.dstack("run", "hello", "-d", "--name", "first", "-y").code == 0
    with terminal(at.folder, "status", "-w") as shown:
        shown.expect("QUEUED")
        shown.press(INTERRUPT)
        assert shown.end() == 130
    assert "Traceback" not in shown.shown
