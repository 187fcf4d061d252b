"""A run made again from another one's record: what was chosen then, under what is chosen now. Pure."""

from collections.abc import Mapping
from typing import TypeVar

from dstack.model.choices import Choices
from dstack.model.runspec import RunSpec
from dstack.model.variables import GLOBAL, Variables
from dstack.model.workflow import Workflows

V = TypeVar("V")


def chosen_again(now: Choices, then: RunSpec, wanted: str, workflows: Workflows, variables: Variables) -> Choices:
    """The flags of now over those of then; of another workflow of that run, as far as they concern it.

    What is swept now is not also set as it was then, nor the other way round.
    """
    sections = {GLOBAL, *(workflow.name for workflow in workflows.graph(wanted))}
    same = wanted == then.workflow
    kept = {
        section: {
            name: value
            for name, value in values.items()
            if name in variables.section(section) and name not in now.sweeps.get(section, {})
        }
        for section, values in then.variables.items()
        if section in sections
    }
    swept = {
        section: {name: values for name, values in names.items() if name not in now.variables.get(section, {})}
        for section, names in then.sweeps.items()
        if section in sections
    }
    return Choices(
        variables=_over(kept, now.variables),
        matrix={**(then.matrix if same else {}), **now.matrix},
        sweeps=_over(swept, now.sweeps),
    )


def _over(below: Mapping[str, Mapping[str, V]], above: Mapping[str, Mapping[str, V]]) -> dict[str, dict[str, V]]:
    joined = {section: {**below.get(section, {}), **above.get(section, {})} for section in [*below, *above]}
    return {section: values for section, values in joined.items() if values}
