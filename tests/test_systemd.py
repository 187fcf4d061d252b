"""The systemd unit: that systemd takes it, odd paths and all, and what the commands around it do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cli import runner_door
from cli.systemd import NAME, quoted, unit
from dstack.model.errors import Invalid

ODD = ["plain", "a b", "100%h", "$HOME", "${x}", 'quo"te', "back\\slash", "it's", "ümlaut", "semi;colon", "#hash", "@x"]


def verify(path: Path) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    command = [program, "verify", "--man=no", "--generators=no", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("system", [True, False], ids=["system", "user"])
def test_systemd_takes_the_unit_with_the_oddest_paths(tmp_path: Path, *, system: bool) -> None:
    argv = ["/bin/echo", *(f"/state/{word}" for word in ODD)]
    environ = {"PATH": "/usr/bin:/opt/a b/100%", "HOME": '/home/"x"\\y $z', "SECRET": "hunter2"}
    text = unit(argv, {**environ, "AWS_CA_BUNDLE": "/etc/ca.pem"}, system=system)
    assert ("hunter2" in text, "AWS_CA_BUNDLE=/etc/ca.pem" in text) == (False, True)
    path = tmp_path / "odd.service"
    path.write_text(text)
    done = verify(path)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "odd.service" in line]) == (0, [])


def test_systemd_refuses_a_unit_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "odd.service"
    path.write_text(unit(["/nowhere/at/all"], {}, system=True))
    assert verify(path).returncode != 0


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "a\tb"])
def test_what_cannot_stand_in_a_unit_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="can't stand in a systemd unit"):
        quoted(text)


def test_jobs_survive_a_restart_of_the_daemon_and_a_failure_restarts_it() -> None:
    lines = unit(["/bin/echo"], {}, system=False).splitlines()
    assert {"KillMode=process", "KillSignal=SIGINT", "Restart=on-failure", "WantedBy=default.target"} <= set(lines)
    assert "WantedBy=multi-user.target" in unit(["/bin/echo"], {}, system=True).splitlines()


def test_install_and_uninstall(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def runner(*args: str) -> tuple[int, str]:
        capfd.readouterr()
        code = runner_door.main(["--state", str(tmp_path / "the state"), *args])
        out, err = capfd.readouterr()
        return code, out + err

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "remote.git")], check=True)
    assert runner("install")[0] == 1
    assert runner("config", "--remote", str(tmp_path / "remote.git"))[0] == 0
    code, shown = runner("install", "--print")
    assert (code, f'"--state" "{tmp_path}/the state" "start"' in shown) == (0, True)
    path = tmp_path / "config" / "systemd" / "user" / NAME
    assert not path.exists()
    for _ in range(2):
        code, said = runner("install")
        assert (code, path.read_text(), "systemctl --user daemon-reload" in said) == (0, shown, True)
    assert verify(path).returncode == 0
    assert runner("uninstall")[0] == 0
    assert not path.exists()
    assert "nothing to remove" in runner("uninstall")[1]
    if os.geteuid() != 0:
        assert runner("install", "--system")[0] == 1
