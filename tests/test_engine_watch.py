"""A Docker engine that isn't there yet, goes, comes back, has no room, or takes limits that it doesn't keep."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dstack.model.errors import Failed, Unavailable
from dstack.model.job import Resources
from runner import engine_watch, limits
from runner.connection import Connection
from runner.disk import Space
from runner.engine_trouble import USUAL, is_hopeless, why
from runner.engine_values import Refused
from runner.engine_watch import EngineWatch


@dataclass
class FakeEngine:
    """`trouble` is raised instead of an answer."""

    url: str = "unix:///engine.sock"
    trouble: Exception | None = None
    root: str = ""
    unlimited: tuple[str, ...] = ()
    tries: int = 0
    pokes: list[str] = field(default_factory=list)

    def ping(self) -> None:
        if self.trouble is not None:
            away = Unavailable(f"Docker can't be reached: {why(self.url, self.trouble)}")
            raise away from self.trouble

    def data_root(self) -> str:
        return self.root

    def try_limits(self) -> tuple[str, ...]:
        self.tries += 1
        return self.unlimited


def watching(engine: FakeEngine, folder: Path, keep: int | None = None) -> EngineWatch:
    return EngineWatch(engine, engine.try_limits, lambda: engine.pokes.append("poked"), beside=folder, keep=keep)


def test_an_engine_that_is_away_is_waited_for_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(trouble=ConnectionRefusedError())
    watch = watching(engine, tmp_path)
    for now in (0.0, 5.0, 10.0):
        watch.turn(now)
        watch.try_limits()
        assert watch.pause.endswith("the Docker engine at /engine.sock is not running: `sudo systemctl start docker`")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert (engine.pokes, engine.tries) == (["poked"], 0)
    engine.trouble = None
    watch.turn(15.0)
    assert watch.pause == ""
    assert len(engine.pokes) == 2
    engine.trouble = FileNotFoundError()
    watch.turn(20.0)
    assert "there is no Docker engine" in watch.pause
    assert len(caplog.records) == 3


@pytest.mark.parametrize("trouble", [PermissionError(), FileNotFoundError()])
def test_what_waiting_cannot_mend_is_refused_but_only_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: OSError
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = FakeEngine(url=USUAL, trouble=trouble)
    with pytest.raises(Failed, match="dstack-runner config --executor process"):
        watching(engine, tmp_path).begin()
    engine.trouble = None
    watch = watching(engine, tmp_path)
    watch.turn(0.0)
    engine.trouble = trouble
    watch.turn(5.0)
    watch.turn(10.0)
    assert watch.pause


def test_docker_that_is_installed_is_waited_for(tmp_path: Path) -> None:
    assert is_hopeless(USUAL, FileNotFoundError(), path=str(tmp_path))
    assert not is_hopeless("unix:///elsewhere.sock", FileNotFoundError(), path=str(tmp_path))
    (tmp_path / "dockerd").touch(mode=0o755)
    assert not is_hopeless(USUAL, FileNotFoundError(), path=str(tmp_path))
    assert not is_hopeless(USUAL, ConnectionRefusedError(), path=str(tmp_path))
    assert not is_hopeless(USUAL, None)


def test_limits_are_tried_each_time_that_an_engine_comes(tmp_path: Path) -> None:
    engine = FakeEngine(unlimited=("memory",))
    watch = watching(engine, tmp_path)
    for _ in range(2):
        watch.turn(0.0)
        watch.try_limits()
    assert (watch.unlimited, engine.tries) == (("memory",), 1)
    engine.trouble = ConnectionRefusedError()
    watch.turn(5.0)
    engine.trouble, engine.unlimited = None, ()
    watch.turn(10.0)
    watch.try_limits()
    assert (watch.unlimited, engine.tries) == ((), 2)


def test_limits_that_can_not_be_tried_stop_nothing(tmp_path: Path) -> None:
    engine = FakeEngine()

    def refuse() -> tuple[str, ...]:
        raise Refused(500, "no")

    watch = EngineWatch(engine, refuse, lambda: None, beside=tmp_path)
    watch.turn(0.0)
    watch.try_limits()
    assert (watch.pause, watch.unlimited) == ("", ())


def test_a_full_disk_of_docker_holds_up_containers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"free": 100}
    monkeypatch.setattr(engine_watch, "space_of", lambda _folder: Space(free=space["free"], total=1000))
    same = watching(FakeEngine(root=str(tmp_path)), tmp_path, keep=500)
    same.turn(0.0)
    assert same.pause == ""
    absent = watching(FakeEngine(root="/var/lib/docker-of-another-machine"), tmp_path, keep=500)
    absent.turn(0.0)
    assert absent.pause == ""
    other = watching(FakeEngine(root="/proc"), tmp_path, keep=500)
    other.turn(0.0)
    assert other.pause.startswith("the disk of Docker is nearly full")
    space["free"] = 900
    other.turn(1.0)
    assert other.pause
    other.turn(6.0)
    assert other.pause == ""


def test_a_docker_host_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(Failed, match="DOCKER_HOST"):
        Connection("nonsense://socket")


def test_words_that_change_by_themselves_are_left_out() -> None:
    error = OSError("(MaxRetryError: <urllib3.connection.HTTPConnection object at 0x7f12>: no route)")
    assert why("tcp://box:2375", error).endswith("(MaxRetryError: no route)")


def test_a_job_hears_of_the_limits_it_asked_for() -> None:
    bad = ("memory", "cpu", "pids", "shm-size")
    assert limits.unheeded(Resources(), bad) == ""
    assert limits.unheeded(Resources(memory=1, cpu=1.0), ("pids",)) == ""
    assert "the limit on memory and cpu:" in limits.unheeded(Resources(memory=1, cpu=1.0), bad)
