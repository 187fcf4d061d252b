"""Dependencies on tags → the inputs of jobs, from what the run's root says of each tag."""

import re
from collections.abc import Callable, Mapping

from dstack.model.combinations import Combinations
from dstack.model.errors import Invalid
from dstack.model.exclusions import Values
from dstack.model.folder_names import combination_folder
from dstack.model.job import Tagged, matrix_of, matrix_text
from dstack.model.problems import nearest, shown
from dstack.model.runspec import TagContent
from dstack.model.workflow import TagNeed, Workflow

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def tag_inputs(
    workflow: Workflow, own: Combinations, tags: Mapping[str, TagContent]
) -> Callable[[int], tuple[Tagged, ...]]:
    """For the place of a combination: what its job gets of tags, in the order of `depends-on`. Raises Invalid."""
    columns = [_column(workflow, own, need, tags) for need in workflow.tag_needs]
    return lambda place: tuple(tagged for column in columns for tagged in column[place])


def _column(
    workflow: Workflow, own: Combinations, need: TagNeed, tags: Mapping[str, TagContent]
) -> list[tuple[Tagged, ...]]:
    content = tags.get(need.tag)
    if content is None:
        msg = f"workflow {workflow.name!r} depends on {_title(need)}, a tag this run says nothing of: submit it again"
        raise Invalid(msg)
    if "" in content.manifests:
        files = tuple(_tagged(need, content, "", manifest, "") for manifest in content.manifests[""].values())
        return [files] * len(own.all)
    return _agreeing(workflow, own, need, content)


def _agreeing(workflow: Workflow, own: Combinations, need: TagNeed, content: TagContent) -> list[tuple[Tagged, ...]]:
    """For each combination: the tagged jobs' artifacts that agree with it in the names both share."""
    sets = [(matrix_of(text), manifest) for text, manifest in _manifests(workflow, need, content).items()]
    common = tuple(name for name in own.names if all(name in matrix for matrix, _ in sets))
    groups: dict[Values, list[tuple[dict[str, str], str]]] = {}
    for matrix, manifest in sets:
        groups.setdefault(tuple(matrix[name] for name in common), []).append((matrix, manifest))
    found = {
        values: tuple(
            _tagged(need, content, need.workflow, manifest, combination_folder(matrix) if len(group) > 1 else "")
            for matrix, manifest in group
        )
        for values, group in groups.items()
    }
    wanted = own.projected(common)
    missing = next((values for values in wanted if values not in found), None)
    if missing is not None:
        place = matrix_text(dict(zip(common, missing, strict=True)))
        msg = f"workflow {workflow.name!r} depends on {_title(need)}, whose run has no {shown(place)}"
        raise Invalid(msg)
    return [found[values] for values in wanted]


def _manifests(workflow: Workflow, need: TagNeed, content: TagContent) -> Mapping[str, str]:
    found = content.manifests.get(need.workflow)
    if not found:
        known = sorted(content.manifests)
        hint = nearest(need.workflow, known) or (f"; it has {', '.join(known[:10])}" if known else "")
        msg = f"workflow {workflow.name!r} depends on {_title(need)}, whose run has no artifacts of that workflow{hint}"
        raise Invalid(msg)
    return found


def _tagged(need: TagNeed, content: TagContent, workflow: str, manifest: str, under: str) -> Tagged:
    if not _DIGEST.fullmatch(manifest):
        msg = f"the run says of the tag {need.tag!r} that its artifacts are {shown(manifest)}, which can't be"
        raise Invalid(msg)
    return Tagged(tag=need.tag, workflow=workflow, manifest=manifest, store=content.store, under=under)


def _title(need: TagNeed) -> str:
    return repr(f"{need.workflow}:{need.tag}")
