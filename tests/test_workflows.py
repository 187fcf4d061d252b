"""workflows.yaml: what it means, and what is refused, with its place and the way out."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.errors import Invalid
from dstack.model.folder_paths import CONTAINER_TREE, collisions, inner_path, joined
from dstack.model.job import Gpus, Pull, Reason, Resources, Retry, Shell, Volume
from dstack.model.names import looks_secret
from dstack.model.workflow import TagNeed
from dstack.model.workflows import MAX_WORKFLOWS, Workflow, parse_workflows
from runner import recipe

WHOLE = b"""
workflows:
  - name: prepare
    commands: [python prepare.py, 3.10]
    artifacts: [data/, ./x//y]
    working-dir: src/
  - name: train
    help: Trains
    image: registry.example.org:5000/python:3.12-slim@sha256:abc
    pull: always
    commands: |
      echo hi
      python train.py $variables_as_args
    depends-on: {workflows: [prepare, raw:v1.0], repo: {include: [src/, '*.py']}}
    artifacts: [{path: model/, save: 10m}, /out, {path: log}]
    resources: {cpu: {count: 2}, memory: 4GB, shm-size: 512MiB, interruptible: true}
    env: [A=3.10, B=, C]
    timeout: 2h30m
    stop-grace: 5s
    retry: {attempts: 3, on: [lost, exit], backoff: 10s}
    matrix:
      lr: [0.10, 1e-2]
      on: [yes]
      exclude: [{lr: 0.10}]
      include: [{on: 'no', lr: 0.10}]
    max-parallel: 2
    cache: false
    shell: bash
    secrets: [HF_TOKEN]
    volumes: [imagenet:/data:ro, models:m]
    cache-dirs: [/root/.cache/pip, .cache]
    metrics: [model/m.json]
"""


def one(keys: str, before: str = "") -> str:
    return f"workflows:\n{before}- name: a\n  {keys}\n" + ("" if "commands" in keys else "  commands: [x]\n")


def workflow(keys: str) -> Workflow:
    return parse_workflows(one(keys).encode()).get("a")


def problems(text: str | bytes, *, allow_env: frozenset[str] | None = frozenset()) -> list[str]:
    with pytest.raises(Invalid) as caught:
        parse_workflows(text.encode() if isinstance(text, str) else text, path="w.yaml", allow_env=allow_env)
    return str(caught.value).splitlines()


def test_every_key_is_read() -> None:
    found = parse_workflows(WHOLE)
    assert found.names == ("prepare", "train")
    assert found.get("prepare") == Workflow(
        name="prepare", commands=("python prepare.py", "3.10"), artifacts=("data", "x/y"), working_dir="src"
    )
    assert found.get("train") == Workflow(
        name="train",
        help="Trains",
        image="registry.example.org:5000/python:3.12-slim@sha256:abc",
        pull=Pull.ALWAYS,
        commands=("echo hi\npython train.py $variables_as_args\n",),
        shell=Shell.BASH,
        depends_on=("prepare",),
        tag_needs=(TagNeed(workflow="raw", tag="v1.0"),),
        include=("src/", "*.py"),
        artifacts=("model", "/out", "log"),
        saves={"model": 600},
        metrics=("model/m.json",),
        secrets=("HF_TOKEN",),
        volumes=(Volume(name="imagenet", path="/data", read_only=True), Volume(name="models", path="m")),
        cache_dirs=("/root/.cache/pip", ".cache"),
        resources=Resources(cpu=2, memory=4_000_000_000, shm_size=512 * 2**20, interruptible=True),
        environment={"A": "3.10", "B": "", "C": None},
        timeout=9000,
        stop_grace=5,
        retry=Retry(attempts=3, on=(Reason.LOST, Reason.EXIT), backoff=10),
        matrix={"lr": ("0.10", "1e-2"), "on": ("yes",)},
        matrix_include=({"lr": "0.10", "on": "no"},),
        matrix_exclude=({"lr": "0.10"},),
        max_parallel=2,
        cache=False,
    )


@pytest.mark.parametrize(
    ("keys", "attribute", "value"),
    [
        ("retry: 3", "retry", Retry(attempts=3)),
        ("resources: {cpu: 0.5}", "resources", Resources(cpu=0.5)),
        (
            "env: {MAX_TOKENS: 5, B: 'x y', C: true, D: ''}",
            "environment",
            {"MAX_TOKENS": "5", "B": "x y", "C": "true", "D": ""},
        ),
        ("env: [A=b=c]", "environment", {"A": "b=c"}),
        ("artifacts: [a, ./a, a/]", "artifacts", ("a",)),
        ("artifacts: ['...', 'a..b', '.hidden/~x']", "artifacts", ("...", "a..b", ".hidden/~x")),
        ("artifacts: [.]", "artifacts", (".",)),
        ("commands: echo '$HOME'", "commands", ("echo '$HOME'",)),
        ("stop-grace: 0s", "stop_grace", 0),
        ("cache: true", "cache", True),
        ("labels: [big, big, 'in room 3']", "labels", ("big", "in room 3")),
        ("resources: {gpu: 2}", "resources", Resources(gpu=Gpus(count=2))),
        ("resources: {gpu: 0}", "resources", Resources()),
        ("resources: {V100/gpu: 1}", "resources", Resources(gpu=Gpus(count=1, name="V100"))),
        ("resources: {gpu: {name: RTX 3090}}", "resources", Resources(gpu=Gpus(count=1, name="RTX 3090"))),
        (
            "resources: {gpu: {count: 3, name: a100, memory: 40GB}}",
            "resources",
            Resources(gpu=Gpus(count=3, name="a100", memory=40 * 10**9)),
        ),
    ],
)
def test_forms_of_values(keys: str, attribute: str, value: object) -> None:
    assert getattr(workflow(keys), attribute) == value


@pytest.mark.parametrize(
    ("keys", "where", "words"),
    [
        ("comands: [x]", "3:3", "unknown key 'comands' in a workflow (did you mean 'commands'?)"),
        ("zzzzzz: 1", "3:3", "unknown key 'zzzzzz' in a workflow; known are name,help,"),
        ("working_dir: x", "3:3", "the key is written `working-dir`"),
        ("Image: x", "3:3", "the key is written `image`"),
        ("provider: bash", "3:3", "dstack has no `provider`: write `image`"),
        ("deps: [b]", "3:3", "write `depends-on: [workflow]`"),
        ("setup: [b]", "3:3", "beginning of `commands`"),
        ("ports: 3", "3:3", "there is no replacement yet"),
        ("max_parallel: 3", "3:3", "the key is written `max-parallel`"),
        ("max-parallel: 0", "3:17", "a whole number from 1 to 10000"),
        ("shell: bsh", "3:10", "`shell` is sh or bash, not 'bsh' (did you mean 'bash'?)"),
        ("resources: {interruptible: maybe}", "3:30", "must be true or false"),
        ("secrets: TOKEN", "3:12", "must be a list"),
        ("secrets: [A-B]", "3:13", "secret 'A-B': use a letter, then letters, digits or `_`"),
        ("secrets: [TOKEN=abc]", "3:13", "name it alone, its value is set by `dstack-runner secret set TOKEN`"),
        ("secrets: [DSTACK_X]", "3:13", "it is set by dstack itself"),
        ("secrets: [A, B, A]", "3:19", "the secret 'A' stands here for the second time"),
        ("secrets: [Token, TOKEN]", "3:20", "'Token' and 'TOKEN' differ in upper and lower case only"),
        ("secrets: [AB]\n  env: {AB: x, B: y}", "3:13", "'AB' is both a secret and in `env`"),
        ("secrets: [LR]\n  matrix: {lr: [1]}", "3:13", "what the matrix name 'lr' becomes for commands"),
        (f"secrets: [{', '.join(f'A{n}' for n in range(101))}]", "3:12", "101 secrets are too many"),
        ("volumes: [data]", "3:13", "write NAME:PATH, or NAME:PATH:ro"),
        ("volumes: ['data:']", "3:13", "write NAME:PATH, or NAME:PATH:ro"),
        ("volumes: ['data:x:rw']", "3:13", "write NAME:PATH, or NAME:PATH:ro"),
        ("volumes: ['data:x:ro:']", "3:13", "write NAME:PATH, or NAME:PATH:ro"),
        ("volumes: ['a b:x']", "3:13", "'a b' can't be the name of a volume"),
        ("volumes: ['data:/data']", "3:13", "only with an `image`"),
        ("volumes: ['data:../x']", "3:13", "leaves the folder"),
        ("volumes: ['data:.']", "3:13", "can't take the place of '.'"),
        ("volumes: ['data:/workflow']\n  image: x", "3:13", "can't take the place of '/workflow'"),
        ("volumes: ['data:/proc/x']\n  image: x", "3:13", "can't take the place of '/proc/x'"),
        ("volumes: ['a:x', 'a:./x/:ro']", "3:12", "a volume stands here for the second time"),
        ("volumes: ['a:x', 'b:./x/']", "3:12", "the volume a and the volume b can't be at one place: 'x'"),
        ("volumes: ['a:x', 'b:x/y']", "3:12", "can't be at one place: 'x/y', inside 'x'"),
        ("volumes: ['data:x', 'Data:y']", "3:12", "the volumes 'data' and 'Data' differ in upper and lower case only"),
        ("volumes: ['data:x']\n  artifacts: [x/y]", "3:12", "the volume data and `artifacts` can't be at one place"),
        ("image: x\n  volumes: ['a:/workflow/s/x']\n  working-dir: s\n  artifacts: [x]", "4:12", "at one place: 's/x'"),
        ("cache-dirs: [x]\n  artifacts: [.]", "3:15", "`artifacts` and 'x' of `cache-dirs` can't be at one place"),
        ("cache-dirs: [~/.cache]", "3:16", "leaves the folder"),
        ("cache-dirs: ['*']", "3:16", "aren't replaced in paths"),
        ("metrics: [m.json]", "3:13", "'m.json' is not among the artifacts"),
        ("metrics: [out2/m.json]\n  artifacts: [out]", "3:13", "name it, or its folder, in `artifacts`"),
        ("resources: {gpu: -1}", "3:20", "whole number from 0"),
        ("resources: {gpu: 1, v100/gpu: 1}", "3:23", "GPUs of one kind"),
        ("resources: {v100/gpu: 1, t4/gpu: 2}", "3:28", "v100/gpu stands here already"),
        ("resources: {gpu: {name: '--'}}", "3:27", "can't be the name of a GPU"),
        ("resources: {gpu: {memory: 16}}", "3:29", "is no size"),
        ("resources: {gpu: {cuont: 1}}", "3:21", "did you mean 'count'"),
        ("labels: big", "3:11", "must be a list"),
        ("labels: [' a']", "3:12", "can't be a label"),
        ("resources: {memry: 1GB}", "3:15", "unknown key 'memry' in resources (did you mean 'memory'?)"),
        ("resources: {memory: 5}", "3:23", "'5' is no size"),
        ("resources: {memory: 1MB}", "3:23", "at least 6291456 bytes"),
        ("resources: {cpu: 0}", "3:20", "a number above 0"),
        ("resources: {cpu: .inf}", "3:20", "a number above 0"),
        ("resources: {cpu: {n: 1}}", "3:21", "unknown key 'n' in `cpu`"),
        ("resources: 4", "3:14", "must be a mapping"),
        ("artifacts: [{path: a, save: 10}]", "3:31", "`save`: '10' is no duration: say the unit"),
        ("artifacts: [{path: a, save: 10ms}]", "3:31", "`save` must be at least 1s"),
        ("artifacts: [{save: 10m}]", "3:15", "this artifact has no `path`"),
        ("artifacts: [{path: a, every: 10m}]", "3:25", "unknown key 'every' in an artifact"),
        ("artifacts: [{path: ../a}]", "3:22", "leaves the folder"),
        ("artifacts: [{path: a, save: 1m}, {path: a, save: 2m}]", "3:14", "'a' is saved at two intervals"),
        ("artifacts: a", "3:14", "must be a list"),
        ("artifacts: [../a]", "3:15", "leaves the folder"),
        ("artifacts: [a/../b]", "3:15", "leaves the folder"),
        ("artifacts: [~/a]", "3:15", "leaves the folder"),
        ("artifacts: [/a]", "3:15", "only with an `image`"),
        ("artifacts: ['*.csv']", "3:15", "patterns and variables aren't replaced"),
        ("artifacts: [$out/a]", "3:15", "patterns and variables aren't replaced"),
        ("artifacts: [.git/hooks]", "3:15", "inside `.git`"),
        ("artifacts: [x/.GIT]", "3:15", "inside `.git`"),
        ("artifacts: [/]\n  image: x", "3:15", "the whole file system"),
        (f"artifacts: [{'a' * 256}]", "3:15", "longer than a path can be"),
        (f"artifacts: [{', '.join(f'a{n}' for n in range(201))}]", "3:14", "201 artifacts are too many"),
        (f"matrix: {{a: [{'x' * 100_001}]}}", "3:16", "the value has 100001 bytes"),
        ("working-dir: ../x", "3:16", "leaves the folder"),
        ("working-dir: /x", "3:16", "is absolute"),
        ("depends-on: ['b:']", "3:16", "'b:', read as `workflow:tag`: '' can't be a tag: use 1 to 63 letters"),
        ("depends-on: [b:.x]", "3:16", "'.x' can't be a tag"),
        ("depends-on: [b:a.lock]", "3:16", "'a.lock' can't be a tag"),
        ("depends-on: [B:x]", "3:16", "'B' can't name a workflow"),
        ("depends-on: [b:x, b:y]", "3:21", "'b:x' and 'b:y' would bring the same artifacts: name one of them"),
        ("depends-on: [b:x, b:x]", "3:21", "'b:x' stands here for the second time"),
        ("depends-on: {}", "3:15", "`depends-on` is empty"),
        ("depends-on: {workflow: [b]}", "3:16", "unknown key 'workflow' in `depends-on` (did you mean 'workflows'?)"),
        ("depends-on: {workflows: b}", "3:27", "must be a list"),
        ("depends-on: {workflows: [b, b]}", "3:31", "stands here for the second time"),
        ("depends-on: {repo: [src]}", "3:22", "`repo` must be a mapping"),
        ("depends-on: {repo: {}}", "3:22", "`repo` has no `include`"),
        ("depends-on: {repo: {include: []}}", "3:32", "`include` is empty"),
        ("depends-on: {repo: {include: [/src]}}", "3:33", "'/src' can't be a glob: write a path from the top"),
        (
            "depends-on: {repo: {include: [a], exclude: [src]}}",
            "3:37",
            "unknown key 'exclude' in `repo` (did you mean 'include'?)",
        ),
        ("depends-on: b", "3:15", "must be a list"),
        ("depends-on: [a]", "2:9", "these workflows wait for each other: a → a"),
        ("depends-on: [b, b]", "3:19", "stands here for the second time"),
        ("timeout: 90", "3:12", "'90' is no duration: say the unit"),
        ("timeout: 0s", "3:12", "longer than 0"),
        ("timeout:", "3:11", "must be a text, not null"),
        ("retry: -1", "3:10", "a whole number from 0 to 100"),
        ("retry: {attempts: 1, on: [exitt]}", "3:29", "is no reason to try again (did you mean 'exit'?)"),
        ("retry: {attempts: 1, on: [stopped]}", "3:29", "is no reason to try again"),
        ("retry: {on: [lost]}", "3:10", "`retry` has no `attempts`"),
        ("cache: yes", "3:10", "must be true or false, not 'yes'"),
        ("image: x\n  pull: often", "4:9", "`pull` is `always`"),
        ("pull: always", "3:9", "this workflow has none"),
        ("image: a b", "3:10", "can't be a Docker image"),
        ("image: --privileged", "3:10", "can't be a Docker image"),
        ("commands: []", "3:13", "must not be empty"),
        ("commands: ''", "3:13", "must not be empty"),
        ("commands: [a: b]", "3:14", "a command must be a text, not a mapping: quote it"),
        ("commands: ['echo ${{ matrix.x }}']", "3:14", "dstack doesn't replace `${{ … }}`"),
        ("env: {A: '${{ x }}'}", "3:12", "dstack doesn't replace `${{ … }}`"),
        ("env: {HF_TOKEN: x}", "3:9", "'HF_TOKEN' looks like a secret"),
        ("env: [apiKey]", "3:9", "'apiKey' looks like a secret"),
        ("env: {A: }", "3:9", "`env` has no value for 'A'"),
        ("env: {1A: x}", "3:9", "environment variable '1A'"),
        ("env: {DSTACK_RUN: x}", "3:9", "it is set by dstack itself"),
        ("env: [A=1, A=2]", "3:14", "stands here for the second time"),
        ("env: {LR: x}\n  matrix: {lr: [1]}", "3:8", "`env` sets LR, which the matrix name 'lr'"),
        ("matrix: {a: 1}", "3:15", "must be a list"),
        ("matrix: {a: []}", "3:15", "has no values"),
        ("matrix: {a: [1, 1]}", "3:15", "has a value twice"),
        ("matrix: {a: [[1]]}", "3:16", "must be a text, not a list"),
        ("matrix: {include: [1]}", "3:22", "a combination of `include` must be a mapping"),
        ("matrix: {include: {a: 1}}", "3:21", "`include` must be a list"),
        ("matrix: {include: [{}]}", "3:22", "must name values, like `{lr: 0.1}`"),
        ("matrix: {include: [{a: 1}, {b: 1}]}", "3:31", "`include` names 'b', which the matrix doesn't have; it has a"),
        ("matrix: {include: [{a: 1, b: 1}, {b: 1}]}", "3:36", "a value for every name: a is missing"),
        ("matrix: {lr: [1], include: [{lrr: 1}]}", "3:32", "(did you mean 'lr'?)"),
        ("matrix: {a: [1], b: [1], include: [{a: 2}]}", "3:38", "a value for every name: b is missing"),
        ("matrix: {a: [1], include: [{a: 1}]}", "3:30", "this combination is in the matrix already"),
        ("matrix: {include: [{a: 1}, {a: 1}]}", "3:30", "this combination is in the matrix already"),
        ("matrix: {include: [{path: 1}]}", "3:23", "it would replace $PATH"),
        ("matrix: {include: [{a: }]}", "3:26", "must be a text, not null"),
        ("matrix: {a: [1, 2], exclude: [{a: 3}]}", "3:33", "`exclude` names 'a=3'; the values of a are '1', '2'"),
        (
            "matrix: {a: [1, 2], exclude: [{b: 3}]}",
            "3:34",
            "`exclude` names 'b', which the matrix doesn't have; it has a",
        ),
        ("matrix: {a: [1, 2], exclude: [{}]}", "3:33", "must name values"),
        ("matrix: {exclude: [{a: 1}]}", "3:21", "`exclude` leaves out of lists, and there is none"),
        ("matrix: {a-b: [1], a_b: [1]}", "3:11", "one and the same for commands"),
        ("matrix: {path: [1]}", "3:12", "it would replace $PATH"),
        ("matrix: {job-id: [1]}", "3:12", "set by dstack itself"),
    ],
)
def test_what_is_refused_where_and_how_to_mend_it(keys: str, where: str, words: str) -> None:
    before = "- {name: b, commands: [x]}\n" if "[b, b]" in keys else ""
    if before:
        where = f"{int(where[0]) + 1}{where[1:]}"
    found = problems(one(keys, before))
    assert any(line.startswith(f"w.yaml:{where}: ") and words in line for line in found), found
    assert len(found) == 1 or "cpu: {n" in keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "w.yaml:1:1: the file is empty"),
        ("[]", "w.yaml:1:1: the file must be a mapping"),
        ("jobs: []", "w.yaml:1:1: dstack has no `jobs`: write `workflows`, a list"),
        ("workflow: []", "w.yaml:1:1: unknown key 'workflow' in the file (did you mean 'workflows'?)"),
        ("workflows: {}", "w.yaml:1:12: `workflows` must be a list"),
        ("workflows: [x]", "w.yaml:1:13: a workflow must be a mapping"),
        ("workflows: [{commands: [x]}]", "w.yaml:1:13: this workflow has no `name`"),
        ("workflows: [{name: a}]", "w.yaml:1:13: this workflow has no `commands`"),
        ("workflows: [{name: a_b, commands: [x]}]", "w.yaml:1:20: 'a_b' can't name a workflow"),
        ("workflows: [{name: 'global', commands: [x]}]", "w.yaml:1:20: a workflow can't be called 'global'"),
        (
            "workflows: [{name: a, commands: [x]}, {name: a, commands: [x]}]",
            "w.yaml:1:46: there is a workflow 'a' already, in line 1",
        ),
        (
            "workflows:\n- {name: train, commands: [x]}\n- {name: b, commands: [x], depends-on: [trian]}",
            "w.yaml:3:41: there is no workflow 'trian' to depend on (did you mean 'train'?)",
        ),
    ],
)
def test_what_is_refused_of_the_file(text: str, message: str) -> None:
    found = problems(text)
    assert any(line.startswith(message) for line in found), found


def test_names_that_differ_in_case_only_are_refused() -> None:
    found = problems("workflows:\n- {name: a, commands: [x]}\n- {name: A, commands: [x]}\n")
    assert found[0].startswith("w.yaml:3:10: 'A' can't name a workflow")


def test_a_cycle_names_its_workflows_in_order() -> None:
    text = "workflows:\n" + "".join(
        f"- {{name: {name}, commands: [x], depends-on: [{need}]}}\n" for name, need in ("ab", "bc", "cd", "db")
    )
    assert problems(text) == ["w.yaml:3:10: these workflows wait for each other: b → c → d → b"]


def test_artifacts_of_two_dependencies_at_one_place_are_refused() -> None:
    text = """workflows:
- {name: a, commands: [x], artifacts: [o]}
- {name: b, commands: [x], working-dir: o, artifacts: [p]}
- {name: c, commands: [x], artifacts: [op]}
- {name: d, commands: [x], depends-on: [a, b, c]}
- {name: e, commands: [x], depends-on: [a, c]}
- {name: f, commands: [x], depends-on: [d, a]}
"""
    expected = (
        "w.yaml:5:10: 'a' and 'b', both dependencies of this workflow, have artifacts at one place: 'o/p', inside 'o'"
    )
    assert problems(text) == [expected]


def test_what_dependencies_bring_is_bounded() -> None:
    wide = "workflows:\n" + "".join(
        f"- {{name: a{n}, commands: [x], artifacts: [{', '.join(f'a{n}-{m}' for m in range(200))}]}}\n"
        for n in range(20)
    )
    every = ", ".join(f"a{n}" for n in range(20))
    text = wide + "".join(f"- {{name: b{n}, commands: [x], depends-on: [{every}]}}\n" for n in range(60))
    assert problems(text) == ["w.yaml:72:10: up to here, dependencies bring more than 200000 artifacts"]


def test_all_problems_of_a_file_are_told_at_once() -> None:
    text = "workflows:\n- name: a\n  comands: [x]\n  timeout: 5\n- {name: b, commands: [x], env: {TOKEN: x}}\n"
    assert [line.split(" ")[0] for line in problems(text)] == [
        "w.yaml:2:3:",
        "w.yaml:3:3:",
        "w.yaml:4:12:",
        "w.yaml:5:34:",
    ]


def test_a_secret_looking_name_can_be_allowed() -> None:
    text = one("env: {EOS_TOKEN: x}").encode()
    assert parse_workflows(text, allow_env=frozenset({"EOS_TOKEN"})).get("a").environment == {"EOS_TOKEN": "x"}
    assert parse_workflows(text, allow_env=None).get("a").environment == {"EOS_TOKEN": "x"}
    assert len(problems(text, allow_env=frozenset({"OTHER"}))) == 1


@pytest.mark.parametrize(
    "name", ["TOKEN", "hf_token", "MyPassword", "AWS_SECRET_ACCESS_KEY", "apiKey", "API_KEY_2", "db-passwd"]
)
def test_names_that_look_like_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name", ["MAX_TOKENS", "TOKENIZERS_PARALLELISM", "KEY", "PASS", "SECRETARY", "KEYBOARD", "MODE"]
)
def test_names_that_do_not(name: str) -> None:
    assert not looks_secret(name)


def test_too_many_workflows_are_refused() -> None:
    line = "- {{name: w{}, commands: [x]}}\n"
    fits = "workflows:\n" + "".join(line.format(n) for n in range(MAX_WORKFLOWS))
    assert len(parse_workflows(fits.encode()).names) == MAX_WORKFLOWS
    assert problems(fits + line.format("-more")) == ["w.yaml:1002:3: 1001 workflows are too many: at most 1000"]


def test_a_workflow_is_found_or_the_nearest_is_named() -> None:
    found = parse_workflows(WHOLE)
    with pytest.raises(
        Invalid, match=re.escape(".dstack/workflows.yaml has no workflow 'trian' (did you mean 'train'?)")
    ):
        found.get("trian")
    with pytest.raises(Invalid, match="it has prepare, train"):
        found.get("zzz")
    with pytest.raises(Invalid, match="nor any other: write one"):
        parse_workflows(b"workflows: []").get("zzz")


def test_a_graph_holds_what_is_needed_after_what_it_needs_else_in_the_order_of_the_file() -> None:
    needs = {"z": "", "e": "d, b", "b": "a", "d": "a", "a": ""}
    text = "workflows:\n" + "".join(
        f"- {{name: {name}, commands: [x], depends-on: [{need}]}}\n" for name, need in needs.items()
    )
    assert [found.name for found in parse_workflows(text.encode()).graph("e")] == ["a", "b", "d", "e"]


@pytest.mark.parametrize(
    "text",
    [
        "workflows:\n" + "".join(f"- {{name: w{n}, commands: [x], depends-on: [w{n + 1}]}}\n" for n in range(998)),
        "workflows:\n" + "".join(f"- {{name: w{n}, commands: [x], depends-on: &d{n} [w0, w1]}}\n" for n in range(1000)),
        "workflows:\n- {name: a, commands: [x], artifacts: ["
        + ", ".join("a/" * n + "b" for n in range(190))
        + "]}\n"
        + "".join(f"- {{name: w{n}, commands: [x], depends-on: [a]}}\n" for n in range(990)),
        "workflows:\n- {name: a, commands: [x], help: " + "x" * 900_000 + "}\n",
        "workflows:\n- {name: a, commands: [" + "x, " * 200_000 + "]}\n",
        "workflows:\n- {name: a, commands: [x], env: {" + ", ".join(f"A{n}: x" for n in range(40_000)) + "}}\n",
        "workflows:\n- {name: a, commands: [x], " + ", ".join(f"{'abcdefgh' * 7}{n}: x" for n in range(10_000)) + "}\n",
    ],
)
def test_a_large_odd_file_is_read_or_refused_in_time(text: str) -> None:
    start = time.process_time()
    try:
        parse_workflows(text.encode())
    except Invalid:
        assert time.process_time() - start < 8
    assert time.process_time() - start < 8


_WORDS = [
    "workflows",
    "name",
    "commands",
    "depends-on",
    "artifacts",
    "env",
    "matrix",
    "retry",
    "resources",
    "cpu",
    "a",
    "b",
    "x: y",
]
_VALUES = st.recursive(
    st.sampled_from([None, True, 3, "a", "b", "../x", "2h", "K=V", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(_WORDS), _VALUES, max_size=6), max_size=3))
def test_any_tree_is_workflows_or_problems_with_their_places(tree: object) -> None:

    try:
        parse_workflows(json.dumps({"workflows": tree}).encode())
    except Invalid as error:
        for line in str(error).splitlines():
            assert re.match(r"\.dstack/workflows\.yaml:[1-9]\d*:[1-9]\d*: \S", line)


_PATHS = st.lists(st.sampled_from(["a", "b", "ab", "a-"]), min_size=1, max_size=3).map("/".join)


@given(st.lists(st.tuples(_PATHS, st.sampled_from("xyz")), max_size=8))
def test_collisions_are_those_found_by_comparing_all(owned: list[tuple[str, str]]) -> None:
    found = {frozenset({one_, other}) for one_, other in collisions(owned)}
    expected = {
        frozenset({one_, other})
        for one_ in owned
        for other in owned
        if one_[1] != other[1] and f"{other[0]}/".startswith(f"{one_[0]}/")
    }
    assert found == expected


@given(st.text("ab./~*", max_size=12))
def test_an_inner_path_stays_inside_and_is_stable(text: str) -> None:
    try:
        path = inner_path(text)
    except Invalid:
        assert ".." in text or "~" in text or text.startswith("/")
        return
    assert inner_path(path) == path
    assert ".." not in path.split("/")
    assert not path.startswith("/")


def test_the_repository_lies_in_a_container_where_paths_are_compared() -> None:
    assert recipe.TREE == CONTAINER_TREE


def test_what_a_dependency_brings_may_not_lie_in_a_mounted_folder() -> None:
    text = """workflows:
- {name: a, commands: [x], working-dir: s, artifacts: [data]}
- {name: b, commands: [x], depends-on: [a], volumes: ['d:s']}
- {name: c, commands: [x], depends-on: ['a:v1'], image: i, cache-dirs: [/workflow/s/data/x]}
- {name: d, commands: [x], depends-on: ['a:v1', 'unknown:v2'], volumes: ['d:t']}
"""
    brings, mounts = "what dependencies of this workflow bring", "its `volumes` or `cache-dirs`"
    where = "can't be at one place"
    assert problems(text) == [
        f"w.yaml:3:10: {mounts} and {brings} {where}: 's/data', inside 's'",
        f"w.yaml:4:10: {brings} and {mounts} {where}: 's/data/x', inside 's/data'",
    ]


@pytest.mark.parametrize(
    ("folder", "path", "expected"),
    [(".", "a", "a"), ("x", "a", "x/a"), ("x", ".", "x"), ("x", "/a", "/a"), (".", ".", ".")],
)
def test_paths_from_the_root(folder: str, path: str, expected: str) -> None:
    assert joined(folder, path) == expected
