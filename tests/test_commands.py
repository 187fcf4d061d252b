"""Commands: what a real shell makes of the script and environment, whatever the values are."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dstack.model.commands import job_environment, script
from dstack.model.errors import Invalid
from dstack.model.job import Job
from dstack.model.shell_arguments import with_arguments

ROOT = "5" * 40
PRINT = "show() { for a do printf '%s\\0' \"$a\"; done; }\n"
NASTY = (
    "plain",
    "",
    "two words",
    "it's",
    'a "quoted" one',
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "x\ntouch pwned\n",
    "--leading",
    "-n",
    "*",
    "\\",
    "a\\\nb",
    "${HOME}",
    "é\u2028\x1b[31m",
    "EOF\ntouch pwned",
    "touch pwned",
)


def job(*commands: str, variables: dict[str, str] | None = None, environment: dict[str, str] | None = None) -> Job:
    return Job(root=ROOT, workflow="train", commands=commands, variables=variables or {}, environment=environment or {})


def run(shell: str, made: Job, folder: Path) -> subprocess.CompletedProcess[bytes]:
    environment = job_environment(made, run="fast-rabbit-1", job_id="0123456789ab", attempt=2)
    path = {"PATH": "/usr/bin:/bin"}
    file = folder / "script"
    file.write_text(script(made), encoding="utf-8", newline="")
    done = subprocess.run(
        [shell, "-e", str(file)], env={**path, **environment}, cwd=folder, capture_output=True, timeout=20, check=False
    )
    file.unlink()
    return done


def words(output: bytes) -> list[str]:
    return [word.decode() for word in output.split(b"\0")[:-1]]


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("value", NASTY)
def test_each_value_stays_one_argument_and_is_never_evaluated(shell: str, value: str, tmp_path: Path) -> None:
    made = job(PRINT, "show a $variables_as_args z", variables={"batch-size": value, "lr": "0.1"})
    done = run(shell, made, tmp_path)
    assert done.stderr == b""
    assert words(done.stdout) == ["a", "--batch-size", value, "--lr", "0.1", "z"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["dash", "bash"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
def test_any_text_arrives_byte_for_byte(shell: str, value: str, tmp_path: Path) -> None:
    made = job(
        PRINT,
        'show ${variables_as_args} "$model" "$MODEL" "$BATCH_SIZE"',
        variables={"model": value, "batch-size": value},
    )
    assert words(run(shell, made, tmp_path).stdout) == ["--batch-size", value, "--model", value, value, value, value]


PLACES = (
    "show $variables_as_args",
    'show "$variables_as_args"',
    "show '$variables_as_args'",
    'show "a $(show $variables_as_args) b"',
    "show `show $variables_as_args`",
    'show "`show $variables_as_args`"',
    "cat <<EOF\n$variables_as_args\nEOF",
    "cat <<'EOF'\n$variables_as_args\nEOF",
    "cat <<-EOF\n\t$variables_as_args\n\tEOF",
    "sh <<EOF\n: $variables_as_args\nEOF",
    'cat <<A <<"B"\nx\'\nA\n$variables_as_args\nB\nshow $variables_as_args',
    "x=$variables_as_args",
    "x=\\\n$variables_as_args",
    "x=\\ $variables_as_args",
    "x=a$variables_as_args",
    "export x=$variables_as_args",
    "> $variables_as_args",
    "show a 2> $variables_as_args",
    "# don't $variables_as_args\nshow $variables_as_args",
    "show a#' $variables_as_args '",
    "show \\# ' $variables_as_args '",
    "show ${y:-$variables_as_args}",
    'show "${y:-it\'s $variables_as_args}" $variables_as_args',
    "show ${#y} $variables_as_args",
    "show $((1<<2)) $variables_as_args",
    "show $( (show a) ) $variables_as_args",
    "show \\$variables_as_args",
    "show \\\n  $variables_as_args \\\n  z",
    'eval "show $variables_as_args"',
    "eval show $variables_as_args",
    "\\eval show $variables_as_args",
    "y=1 eval show $variables_as_args",
    "show; 'eval' show $variables_as_args",
    "if true; then eval show $variables_as_args; fi",
    "sh -c \"printf '%s' $variables_as_args\" >/dev/null",
    'for a in $variables_as_args; do show "$a"; done',
    'set -- $variables_as_args; show "$@"',
    "(show $variables_as_args)|cat",
    "case a in a) show $variables_as_args;; esac",
    'x="$(case a in a) show $variables_as_args;; esac)"',
    'show "$(cat <<EOF\n$variables_as_args\nEOF\n)"',
    "true && show $variables_as_args>out",
    "show 'a\n#' $variables_as_args",
)


@pytest.mark.parametrize("place", PLACES)
def test_no_place_in_a_script_lets_a_value_run(place: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("#!/bin/sh\n: > pwned\n")
    canary.chmod(0o755)
    values = (
        "$(./canary)",
        "`./canary`",
        "'; ./canary; '",
        '"; ./canary; "',
        "x\n./canary\n",
        "./canary",
        "; ./canary",
    )
    for value in values:
        for shell in ("dash", "bash"):
            run(shell, job(PRINT, place, variables={"a": value, "b": value}), tmp_path)
            assert not (tmp_path / "pwned").exists(), (place, value, shell)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a $variables_as_args", "a @"),
        ("a ${variables_as_args};b", "a @;b"),
        ("$variables_as_args", "@"),
        ("a $variables_as_args_too", "a $variables_as_args_too"),
        ("a x$variables_as_args", "a x$variables_as_args"),
        ("a $variables_as_args/x", "a $variables_as_args/x"),
        ("a \\\n$variables_as_args", "a \\\n@"),
        ("a\\\n$variables_as_args", "a\\\n$variables_as_args"),
        ("a 2>&1 $variables_as_args", "a 2>&1 @"),
        ("a >&  $variables_as_args", "a >&  $variables_as_args"),
        ('"$(a $variables_as_args "$(b $variables_as_args)")"', '"$(a @ "$(b @)")"'),
        ("a $((1<<2)) $variables_as_args", "a $((1<<2)) @"),
        ("a $((b) ; c $variables_as_args)", "a $((b) ; c @)"),
        ("a <<<b $variables_as_args", "a <<<b @"),
        ("cat <<E\n'\nE\na $variables_as_args", "cat <<E\n'\nE\na @"),
        ("cat <<\\E\n$variables_as_args\nE\na $variables_as_args", "cat <<\\E\n$variables_as_args\nE\na @"),
        ("a # ' $variables_as_args\nb $variables_as_args", "a # ' $variables_as_args\nb @"),
        ("x=\\ $variables_as_args", "x=\\ $variables_as_args"),
        ("x=\\; $variables_as_args", "x=\\; @"),
        ("a \\\\ $variables_as_args", "a \\\\ @"),
        ("a \\\n# ' $variables_as_args", "a \\\n# ' $variables_as_args"),
        ("a\\\n# ' $variables_as_args '", "a\\\n# ' $variables_as_args '"),
        ("a \\# ' $variables_as_args '", "a \\# ' $variables_as_args '"),
        ("a `b '` $variables_as_args", "a `b '` @"),
        ('a ${x:-"}"} $variables_as_args', 'a ${x:-"}"} @'),
        ('a "${x:-it\'s}" $variables_as_args', 'a "${x:-it\'s}" @'),
        ("a 'open $variables_as_args", "a 'open $variables_as_args"),
    ],
)
def test_it_is_replaced_as_an_unquoted_word_only(text: str, expected: str) -> None:
    assert with_arguments(text, "@") == expected


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [
                "$variables_as_args",
                "$((",
                "$(",
                "${",
                "}",
                ")",
                "'",
                '"',
                "`",
                "\\",
                "\n",
                " ",
                "<<E",
                "E",
                "#",
                "a",
                "eval ",
            ]
        )
    ).map("".join)
)
@example("$((" * 20_000)
@example("$(" * 20_000)
@example('"$(' * 20_000)
@example("# " * 20_000)
@example("\n#" * 20_000)
@example("<<E\n" * 20_000)
@example("${" * 20_000)
def test_any_script_is_scanned_and_nothing_but_the_places_changes(text: str) -> None:
    assert with_arguments(text, "$variables_as_args").replace("${variables_as_args}", "$variables_as_args") == text


def test_commands_run_in_order_in_one_shell_and_the_first_failure_ends_them(tmp_path: Path) -> None:
    done = run("dash", job("x=1\n", "echo $x", "false", "echo never"), tmp_path)
    assert (done.stdout, done.returncode) == (b"1\n", 1)


def test_the_environment_has_what_the_user_was_promised() -> None:
    made = job("true", variables={"batch-size": "8 8", "model": "m", "9": "x"}, environment={"MODE": "fast"})
    assert job_environment(made, run="fast-rabbit-1", job_id="0123456789ab", attempt=3) == {
        "PYTHONUNBUFFERED": "1",
        "MODE": "fast",
        "BATCH_SIZE": "8 8",
        "model": "m",
        "MODEL": "m",
        "_9": "x",
        "run_name": "fast-rabbit-1",
        "RUN_NAME": "fast-rabbit-1",
        "job_id": "0123456789ab",
        "JOB_ID": "0123456789ab",
        "DSTACK_RUN": "fast-rabbit-1",
        "DSTACK_JOB": "0123456789ab",
        "DSTACK_ATTEMPT": "3",
        "variables_as_args": "--9 x --batch-size '8 8' --model m",
    }


def test_without_variables_the_arguments_are_nothing(tmp_path: Path) -> None:
    assert words(run("dash", job(PRINT, "show a $variables_as_args z"), tmp_path).stdout) == ["a", "z"]


def test_a_variable_can_not_replace_what_dstack_sets() -> None:
    made = job("true", variables={"run_name": "x"}, environment={"DSTACK_RUN": "x"})
    environment = job_environment(made, run="fast-rabbit-1", job_id="0" * 12, attempt=1)
    assert {environment[name] for name in ("run_name", "RUN_NAME", "DSTACK_RUN")} == {"fast-rabbit-1"}


@pytest.mark.parametrize("bad", [{"A": "x\0"}, {"A\0": "x"}, {"A=B": "x"}, {"": "x"}, {"A": "\udc80"}])
def test_a_job_made_by_hand_can_not_break_the_start_of_a_process(bad: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="environment variable"):
        job_environment(job("true", environment=bad), run="r", job_id="0" * 12, attempt=1)


def test_arguments_too_long_for_one_variable_are_left_out_of_it_but_arrive(tmp_path: Path) -> None:
    made = job(PRINT, "show $variables_as_args", variables={"a": "'" * 60_000})
    assert words(run("dash", made, tmp_path).stdout) == ["--a", "'" * 60_000]
