"""`dstack metrics`: what the files say, which columns tell jobs apart, and the command in this process."""

import csv
import io
import json
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.diff import METRICS
from cli.measures import Measure, measure
from cli.metric_table import MetricsLine, Table, ordered, table_of
from cli.status_table import COLUMNS, rows
from cli.table import fitted, fitting
from dstack.model import keys
from dstack.model.errors import Invalid
from dstack.model.job import Job
from dstack.model.manifest import Entry, Kind, Manifest, Pack
from dstack.model.metrics import (
    change_text,
    differing,
    is_nan,
    merged,
    number_text,
    order_key,
    parse_metrics,
)
from dstack.model.status import Status
from dstack.store.memory import MemoryStore
from dstack.store.single import read_file
from tests.artifact_sets import put_content, put_manifest
from tests.calls import Desk, desk
from tests.test_cli_words import NOW, job, run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_nested_objects_are_flattened_and_what_is_no_number_is_text() -> None:
    text = b'{"loss": 0.5, "eval": {"top": {"1": 3}, "ok": true}, "name": "a", "list": [1, 2], "none": null}'
    assert parse_metrics(text) == {
        "loss": 0.5,
        "eval.top.1": 3,
        "eval.ok": "true",
        "name": "a",
        "list": "[1, 2]",
        "none": "null",
    }


def test_numbers_as_python_writes_them_are_read() -> None:
    found = parse_metrics(b'\xef\xbb\xbf{"loss": NaN, "best": -Infinity, "id": 123456789012345678901234567890}')
    assert is_nan(found["loss"])
    assert found["best"] == -math.inf
    assert found["id"] == "123456789012345678901234567890"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no JSON"),
        (b"accuracy: 0.5", "no JSON"),
        (b"[1]", "must hold an object"),
        (b"\xff", "no UTF-8"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "no JSON"),
        (json.dumps({str(n): n for n in range(1_001)}).encode(), "more than 1000"),
    ],
)
def test_a_file_that_is_none_says_what_is_wrong(data: bytes, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        parse_metrics(data)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_every_object_can_be_read_and_written_again(tree: dict[str, object]) -> None:
    found = parse_metrics(json.dumps(tree).encode())
    assert json.loads(msgspec.json.encode(found)).keys() == found.keys()
    assert all(name.encode() and number_text(value).encode() is not None for name, value in found.items() if name)


def test_a_name_of_two_files_stands_behind_its_file() -> None:
    assert merged({"a.json": {"loss": 1, "x": 2}, "b.json": {"loss": 3}}) == {
        "a.json:loss": 1,
        "x": 2,
        "b.json:loss": 3,
    }


def test_what_differs_is_what_not_all_have_alike() -> None:
    assert differing([{"lr": "1", "n": "5"}, {"lr": "2", "n": "5"}, {"lr": "1", "n": "5", "new": ""}]) == ("lr", "new")
    assert differing([]) == ()


def test_what_is_missing_stands_last_in_either_direction() -> None:
    values: list[object] = ["b", None, 2, "10", math.nan, 0.5]
    assert sorted(values, key=order_key)[:4] == [0.5, 2, "10", "b"]
    assert sorted(values, key=lambda value: order_key(value, descending=True))[:4] == ["10", 2, 0.5, "b"]


def test_a_change_is_told_with_its_sign() -> None:
    assert [change_text(1, 3), change_text(0.5, 0.25), change_text("a", 1), change_text(math.nan, 1)] == [
        "+2",
        "-0.25",
        "",
        "",
    ]


def line(job_id: str, lr: str, accuracy: float | None, **more: object) -> MetricsLine:
    values: dict[str, object] = {
        "run": "fast-rabbit-1",
        "job": job_id,
        "workflow": "train",
        "matrix": {"lr": lr},
        "variables": {"lr": lr, "rows": "5"},
        "status": Status.DONE,
        "finished_at": None,
        "metrics": {} if accuracy is None else {"accuracy": accuracy, "loss": 1 - accuracy},
        "problems": (),
    }
    return MetricsLine(**{**values, **more})  # type: ignore[arg-type]


LINES = [line("a" * 12, "0.1", 0.5), line("b" * 12, "0.01", None), line("c" * 12, "0.2", 0.75)]


def titles(table: Table) -> list[str]:
    return [column.title for column in table.columns]


def test_only_what_tells_jobs_apart_is_a_column() -> None:
    assert titles(table_of(LINES)) == ["JOB", "lr", "accuracy", "loss"]
    other = line("d" * 12, "0.1", 0.1, run="slow-fox-2", workflow="test", status=Status.FAILED, problems=("oh",))
    assert titles(table_of([*LINES, other])) == [
        "RUN",
        "JOB",
        "WORKFLOW",
        "lr",
        "accuracy",
        "loss",
        "STATUS",
        "PROBLEM",
    ]


def test_the_best_stands_first_and_a_misspelt_name_is_mended() -> None:
    assert [one.job[0] for one in ordered(LINES, "accuracy")] == ["a", "c", "b"]
    assert [one.job[0] for one in ordered(LINES, "-accuracy")] == ["c", "a", "b"]
    assert [one.job[0] for one in ordered(LINES, "lr", reverse=True)] == ["c", "a", "b"]
    assert [one.job[0] for one in ordered(LINES, "-accuracy", reverse=True)] == ["a", "c", "b"]
    with pytest.raises(Invalid, match="did you mean 'accuracy'"):
        ordered(LINES, "acuracy")


def test_what_is_sorted_by_is_never_left_out_for_lack_of_room() -> None:
    wide = [line("a" * 12, "1", None, metrics={f"metric_number_{n}": n for n in range(20)})]
    table = table_of(wide, sort="-metric_number_19")
    shown = [table.columns[index].title for index in fitting(table.columns, table.rows, 80)]
    assert shown[0] == "JOB"
    assert shown[1:3] == ["metric_number_0", "metric_number_1"]
    assert shown[-1] == "metric_number_19"


@pytest.mark.parametrize("room", [60, 80, 160])
def test_a_table_of_two_sweeps_fits_and_keeps_the_first_metric(room: int) -> None:
    both = [line(f"{n:012x}", "0.1", n / 7, run=f"fast-rabbit-{n % 2}", status=Status.FAILED) for n in range(12)]
    table = table_of([msgspec.structs.replace(one, variables={"lr": one.job[-1], "layers": "12"}) for one in both])
    text = fitted(table.columns, table.rows, room)
    assert max(len(row.rstrip()) for row in text.splitlines()) <= room
    assert {"JOB", "accuracy", "STATUS"} <= set(text.split("\n")[0].split())


@pytest.mark.parametrize("room", [60, 80, 160])
def test_no_number_of_a_comparison_is_cut(room: int) -> None:
    row = ("train[layers=12,lr=0.1]", "loss.train", "0.123457", "(none)", "-0.0123")
    text = fitted(METRICS, [row], room)
    assert max(len(one.rstrip()) for one in text.splitlines()) <= room
    assert all(cell in text for cell in row[1:])


@pytest.mark.parametrize("room", [80, 160])
def test_the_jobs_of_a_sweep_can_be_told_apart_in_the_status(room: int) -> None:
    jobs = [job(f"{n:012x}", matrix={"lr": str(n)}, variables={"lr": str(n)}, status=Status.RUNNING) for n in range(3)]
    cells = list(rows([run("fast-rabbit-1", *jobs)], jobs=True, repeat=False, now=NOW))
    text = fitted(COLUMNS, cells, room)
    assert max(len(one.rstrip()) for one in text.splitlines()) <= room
    assert [f"lr={n}" in text for n in range(3)] == [True] * 3


def test_a_metric_called_as_a_variable_or_a_column_keeps_apart() -> None:
    (one,) = [line("a" * 12, "1", None, metrics={"lr": 1, "status": 2}, variables={"lr": "1", "job": "x"})]
    found = titles(table_of([one], whole=True))
    assert len(set(found)) == len(found)
    assert {"metrics.lr", "metrics.status", "variables.job"} <= set(found)


def measured(store: MemoryStore, manifest: Manifest, *metrics: str) -> Measure:
    spec = Job(root="0" * 40, workflow="train", commands=("x",), working_dir="work", metrics=metrics)
    one = Measure(run=run("r"), line=job("a" * 12, artifacts=keys.manifest(put_manifest(store, manifest))), job=spec)
    measure(store, [one])
    return one


def test_only_the_files_named_are_read_and_a_broken_one_hides_no_other() -> None:
    store = MemoryStore()
    good, bad, packed = b'{"loss": 1}', b"{", b'{"acc": 2}'
    pack = b"before" + packed + b"after"
    manifest = Manifest(
        version=2,
        artifacts=("work/out",),
        entries=(
            Entry(path="work/out/bad.json", size=1, sha256=put_content(store, bad)),
            Entry(path="work/out/good.json", size=len(good), sha256=put_content(store, good)),
            Entry(path="work/out/huge.json", size=2**30, sha256="1" * 64),
            Entry(path="work/out/link.json", kind=Kind.LINK, target="/etc/passwd"),
            Entry(path="work/out/lost.json", size=1, sha256="2" * 64),
            Entry(path="work/out/packed.json", size=len(packed), sha256=put_content(store, packed), pack=0, offset=6),
        ),
        packs=(Pack(sha256=put_content(store, pack), size=len(pack)),),
    )
    names = ["bad", "good", "huge", "link", "lost", "none", "packed"]
    one = measured(store, manifest, *(f"out/{name}.json" for name in names))
    assert one.values == {"loss": 1, "acc": 2}
    assert [problem.partition(":")[0] for problem in one.problems] == [
        "out/bad.json",
        "out/huge.json",
        "out/link.json",
        next(text for text in one.problems if "no longer has the content" in text).partition(":")[0],
        "out/none.json is not among its artifacts",
    ]


def test_content_that_is_not_what_was_saved_is_not_shown() -> None:
    store = MemoryStore()
    digest = put_content(store, b'{"loss": 1}')
    store.put(keys.content(digest), b'{"loss": 2}')
    manifest = Manifest(artifacts=("work/m.json",), entries=(Entry(path="work/m.json", size=11, sha256=digest),))
    one = measured(store, manifest, "m.json")
    assert (one.values, "damaged" in one.problems[0]) == ({}, True)
    assert read_file(store, manifest, "other", limit=9) is None


def test_a_set_that_is_gone_is_said_in_the_row() -> None:
    one = measured(MemoryStore(), Manifest(artifacts=("x",)), "m.json")
    assert one.problems == ("m.json is not among its artifacts",)
    one.line = job("a" * 12, artifacts=keys.manifest("3" * 64))
    measure(MemoryStore(), [one])
    assert "no longer has the artifact set" in one.problems[0]


SWEEP = """\
workflows:
  - name: prepare
    commands: mkdir -p data && echo 1 > data/one
    artifacts: [data]
  - name: train
    depends-on: [prepare]
    matrix: {lr: [1, 2, 3]}
    commands:
      - mkdir -p out
      - test $lr = 3 || echo "{\\"loss\\":{\\"eval\\":0.$lr}, \\"note\\":\\"lr $lr\\"}" > out/m.json
      - test $lr != 2
    artifacts: [out]
    metrics: [out/m.json]
"""


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


def test_a_sweep_is_shown_sorted_and_failed_jobs_are_marked(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", SWEEP)
    at.write(".dstack/variables.yaml", "variables: {global: {rows: 5}}\n")
    at.dstack("run", "train", "--local", "--name", "sweep", "-y")
    answer = at.dstack("metrics", "sweep", "--sort", "-loss.eval")
    assert answer.code == 0, answer
    lines = [row.split() for row in answer.out.splitlines()]
    assert lines[0] == ["JOB", "lr", "loss.eval", "note", "STATUS", "PROBLEM"]
    assert [row[1] for row in lines[1:]] == ["2", "1", "3"]
    assert (lines[1][-1], lines[2][-1]) == ("FAILED", "DONE")
    assert "out/m.json is not among its artifacts" in answer.out
    found = at.dstack("metrics", "sweep", "--json").json
    assert [one["metrics"] for one in found] == [
        {"loss.eval": 0.1, "note": "lr 1"},
        {"loss.eval": 0.2, "note": "lr 2"},
        {},
    ]
    table = list(csv.DictReader(io.StringIO(at.dstack("metrics", "sweep", "--csv").out)))
    assert [(one["lr"], one["rows"], one["loss.eval"]) for one in table] == [
        ("1", "5", "0.1"),
        ("2", "5", "0.2"),
        ("3", "5", ""),
    ]
    one = at.dstack("metrics", found[0]["job"][:10], "--json").json
    assert one == found[:1]
    assert at.dstack("metrics", "sweep", "-w", "prepare").err.startswith("dstack: the workflow prepare names no")
    assert "did you mean 'train'" in at.dstack("metrics", "sweep", "-w", "trian").err
    assert at.dstack("metrics").code == 2
