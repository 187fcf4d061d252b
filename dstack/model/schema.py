"""JSON Schema of the files that people write, for their editors: from the tables and limits that the readers use.

It takes whatever the readers take. They alone check what a schema can't say: see `docs/editors.md`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from dstack.model import language
from dstack.model.cron import ZONE
from dstack.model.forms import (
    NAME,
    SCALAR,
    SHELL_NAME,
    TAG,
    TRUTH,
    VARIABLE,
    VOLUME,
    WORKFLOW,
    Form,
    either,
    folder,
    glob,
    many,
    measured,
    named,
    path,
    pattern,
    table,
    text,
    whole,
    word,
)
from dstack.model.job import Pull, Shell
from dstack.model.labels import LABEL_LENGTH
from dstack.model.patterns import MAX_PATTERNS
from dstack.model.settings import Settings
from dstack.model.units import UNITS
from dstack.model.workflow_keys import IMAGE
from dstack.model.workflow_limits import GPU_OF, MAX_CPU, MAX_GPUS, MAX_PARALLEL, MAX_RETRIES, RETRIED
from dstack.model.workflow_on import MAX_ENTRIES, WORDS

DIALECT = "http://json-schema.org/draft-07/schema#"
_DURATION = measured(UNITS)
_SIZE = measured((), size=True)


def workflows_schema() -> Form:
    """Of `.dstack/workflows.yaml`."""
    listed = many(_workflow())
    return _titled("dstack: workflows", table(language.WORKFLOWS_FILE, {"workflows": listed}, required=["workflows"]))


def variables_schema() -> Form:
    """Of `.dstack/variables.yaml`."""
    section = {**named(SCALAR, VARIABLE), "type": ["object", "null"]}
    sections = {**named(section, WORKFLOW), "type": ["object", "null"]}
    file = {**table(language.VARIABLES_FILE, {"variables": sections}), "type": ["object", "null"]}
    return _titled("dstack: variables", file)


def config_schema() -> Form:
    """Of `config.yaml` on the branch `dstack/config`."""
    kinds: dict[str, Any] = msgspec.json.schema(Settings)["$defs"]
    forms = _fields(kinds[Settings.__name__], kinds, language.SETTINGS)
    forms["lease"] |= {"minimum": 1, "maximum": 86400}
    settings = {"type": ["object", "null"], "properties": forms, "additionalProperties": False}
    return _titled("dstack: settings", settings)


# What fields of values within settings are for.
_WORDS: Mapping[str, language.Table] = {"ForgeSettings": language.FORGE, "TriggerRule": language.TRIGGER_RULE}

SCHEMAS: Mapping[str, Callable[[], Form]] = {
    "workflows": workflows_schema,
    "variables": variables_schema,
    "config": config_schema,
}


def _titled(title: str, form: Form) -> Form:
    return {"$schema": DIALECT, "title": title, **form}


def _fields(form: Mapping[str, Any], kinds: Mapping[str, Any], words: language.Table) -> dict[str, Any]:
    """The fields of a value, each with its description."""
    return {name: _setting(name, _whole(one, kinds), words) for name, one in form["properties"].items()}


def _whole(form: Mapping[str, Any], kinds: Mapping[str, Any]) -> Form:
    """With what it refers to in place."""
    if "$ref" in form:
        name = str(form["$ref"]).rpartition("/")[2]
        kind = kinds[name]
        if "enum" in kind:
            return {"enum": kind["enum"]}
        required = {"required": kind["required"]} if kind.get("required") else {}
        fields = _fields(kind, kinds, _WORDS[name])
        return {"type": "object", "properties": fields, **required, "additionalProperties": False}
    if "anyOf" in form:
        return {**form, "anyOf": [_whole(one, kinds) for one in form["anyOf"]]}
    return {**form, "items": _whole(form["items"], kinds)} if "items" in form else dict(form)


def _setting(name: str, form: Form, words: language.Table) -> Form:
    described = {"description": words[name]} if name in words else {}
    return {**described, **{key: value for key, value in form.items() if key != "default"}}


def _workflow() -> Form:
    needs = many(text(rf"^{WORKFLOW}(:{TAG})?$"))
    repo = table(language.REPO, {"include": many(glob(), least=1)}, required=["include"])
    depends = table(language.DEPENDS_ON, {"workflows": needs, "repo": repo})
    artifact = table(language.ARTIFACT, {"path": path(), "save": _DURATION}, required=["path"])
    forms: dict[str, Form] = {
        "name": text(rf"^(?!global$){WORKFLOW}$"),
        "help": text(),
        "image": text(rf"^{IMAGE}$"),
        "pull": word(Pull),
        "commands": either(text(), many(text(), least=1)),
        "shell": word(Shell),
        "depends-on": either(needs, {**depends, "minProperties": 1}),
        "artifacts": many(either(path(), artifact)),
        "metrics": many(path()),
        "resources": _resources(),
        "env": either(named(SCALAR, SHELL_NAME), many({**text(rf"^{SHELL_NAME}(=|$)"), "type": ["string", "boolean"]})),
        "secrets": many(NAME),
        "volumes": many({"type": "string", "pattern": rf"^{VOLUME}:[^:]+(:ro)?$"}),
        "cache-dirs": many(path()),
        "working-dir": folder(),
        "timeout": _DURATION,
        "stop-grace": _DURATION,
        "retry": _retry(),
        "matrix": _matrix(),
        "max-parallel": whole(1, MAX_PARALLEL),
        "cache": TRUTH,
        "labels": many({**text(), "maxLength": LABEL_LENGTH}),
        "on": _on(),
    }
    found = table(language.WORKFLOW, forms, required=["name", "commands"])
    return {**found, "dependencies": {"pull": ["image"]}}


def _on() -> Form:
    names, paths = _patterns(pattern(refs=True)), _patterns(pattern())
    push = table(language.PUSH, {"branches": names, "tags": names, "paths": paths})
    pull = table(language.PULL_REQUEST, {"branches": names, "paths": paths})
    cron = text(r"^\s*(@|\S+(\s+\S+){4}\s*$)")
    schedule = table(language.SCHEDULE, {"cron": cron, "zone": text(rf"^{ZONE}$")}, required=["cron"])
    forms = {
        "push": _one_or_more({**push, "type": ["object", "null"]}),
        "pull-request": _one_or_more({**pull, "type": ["object", "null"]}),
        "schedule": _one_or_more(either(cron, schedule)),
    }
    words = word(WORDS)
    return either(words, many(words, least=1), {**table(language.ON, forms), "minProperties": 1})


def _patterns(form: Form) -> Form:
    return either(form, {**many(form, least=1), "maxItems": MAX_PATTERNS})


def _one_or_more(form: Form) -> Form:
    return either(form, {**many(form, least=1), "maxItems": MAX_ENTRIES})


def _resources() -> Form:
    cores: Form = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_CPU}
    gpus = whole(0, MAX_GPUS)
    kind = table(language.GPU, {"count": gpus, "name": text(), "memory": _SIZE})
    forms = {
        "cpu": either(cores, table(language.CPU, {"count": cores}, required=["count"])),
        "memory": _SIZE,
        "gpu": either(gpus, kind),
        "shm-size": _SIZE,
        "interruptible": TRUTH,
    }
    return {**table(language.RESOURCES, forms), "patternProperties": {f"{GPU_OF}$": gpus}}


def _retry() -> Form:
    count = whole(0, MAX_RETRIES)
    forms = {"attempts": count, "on": many(word(RETRIED)), "backoff": _DURATION}
    return either(count, table(language.RETRY, forms, required=["attempts"]))


def _matrix() -> Form:
    combination = {**named(SCALAR, VARIABLE), "minProperties": 1}
    known = {name: {"description": help_, **many(combination)} for name, help_ in language.MATRIX.items()}
    return named(many(SCALAR, least=1), VARIABLE, known=known)
