"""Tags: refs below `refs/tags/dstack/` at a run's first commit, or at a commit of `tag.yaml` for files of a folder."""

from dstack.ledger import runs
from dstack.ledger.objects import FILE, Entry, Objects
from dstack.ledger.runs import RunText
from dstack.model import tags
from dstack.model.errors import Invalid
from dstack.model.tags import TaggedFiles, TaggedRun

TAG_FILE = b"tag.yaml"


def read_tag(objects: Objects, text: RunText, oid: str) -> TaggedRun | TaggedFiles:
    """What a tag names, at its id; an annotated one is followed. Raises Invalid, Damaged."""
    commit = objects.peeled(oid)
    tree = objects.tree(objects.commit(commit, "the tagged commit").tree)
    if TAG_FILE in tree:
        return tags.from_bytes(objects.blob(tree[TAG_FILE].oid, "tag.yaml", limit=tags.LIMIT))
    if runs.RUN not in tree:
        msg = f"the tagged commit {commit[:12]} is no run's, and holds no tag.yaml"
        raise Invalid(msg)
    spec, wanted = text.from_text(objects.blob(tree[runs.RUN].oid, "run.yaml", limit=runs.RUN_LIMIT))
    return TaggedRun(run=spec.run, root=wanted.root or commit)


def write_files(objects: Objects, files: TaggedFiles) -> str:
    """The id of a commit that can be tagged."""
    entry = Entry(FILE, objects.write_blob(tags.to_bytes(files)))
    message = f"Tag {files.tag}: files of {files.folder} [skip ci]\n\nskip-checks: true"
    return objects.write_commit(objects.write_tree({TAG_FILE: entry}), [], message)
