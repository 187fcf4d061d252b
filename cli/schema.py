"""`dstack schema`: the JSON Schema of a file, for editors."""

import json

import click

from dstack.model.schema import SCHEMAS


@click.command(
    "schema",
    help="Print the JSON Schema of a file of dstack, with which editors complete and check it: docs/editors.md.",
    epilog="\b\nExample:\n  dstack schema workflows > .dstack/workflows.schema.json",
)
@click.argument("file", type=click.Choice(list(SCHEMAS)), default="workflows")
def command(file: str) -> None:
    """See `help` above."""
    click.echo(json.dumps(SCHEMAS[file](), indent=2, ensure_ascii=False))
