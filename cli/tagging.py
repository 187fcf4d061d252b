"""Tags as commands deal with them: found, read, moved by compare-and-swap, and resolved for a run that needs them."""

from collections.abc import Iterable, Mapping

from cli.archived import with_archived
from cli.reading import Reader
from cli.session import Seen, Session
from dstack.ledger.objects import Damaged
from dstack.ledger.push import RefUpdate
from dstack.ledger.submit import refusal
from dstack.ledger.tags import read_tag
from dstack.model import refs, runtext, tags
from dstack.model.errors import Conflict, Invalid
from dstack.model.observation import Outcome
from dstack.model.problems import nearest, shown
from dstack.model.refs import RunKey
from dstack.model.runspec import TagContent
from dstack.model.tags import TaggedFiles, TaggedRun
from dstack.model.workflow import TagNeed, Workflow
from dstack.model.world import RunView


def known_tags(seen: Seen) -> dict[str, str]:
    """All tags with the ids of what they name."""
    return {tag: oid for ref, oid in sorted(seen.found.items()) if (tag := refs.parse_tag(ref))}


def tagged(session: Session, seen: Seen, tag: str) -> TaggedRun | TaggedFiles:
    """What the tag names. Raises Invalid where there is none, or nothing of dstack's is tagged."""
    known = known_tags(seen)
    if tag not in known:
        hint = nearest(tag, known) or ("; `dstack tags` lists them" if known else ": `dstack tag RUN` makes one")
        msg = f"there is no tag {shown(tag)}{hint}"
        raise Invalid(msg)
    try:
        return read_tag(session.cache.objects, runtext, known[tag])
    except (Invalid, Damaged) as error:
        msg = f"the tag {shown(tag)} can't be used: {error}"
        raise Invalid(msg) from error


def named(session: Session, seen: Seen, tag: str) -> str:
    """What the tag names, for people; empty where there is no such tag."""
    oid = known_tags(seen).get(tag)
    if oid is None:
        return ""
    try:
        what = tagged(session, seen, tag)
    except Invalid:
        return f"{oid[:12]}, which is nothing of dstack's"
    return what.run if isinstance(what, TaggedRun) else f"files of {what.folder}"


def move(session: Session, seen: Seen, tag: str, target: str | None) -> None:
    """Have the tag name the commit `target`; None: remove it. Raises Conflict where somebody else was quicker."""
    ref = refs.tag(refs.check_tag(tag))
    before = seen.found.get(ref)
    if before == target:
        return
    pushed = session.cache.push([RefUpdate(ref, before, target)], atomic=False)
    if pushed.won:
        return
    if Outcome.LOST in pushed.outcomes.values():
        msg = f"somebody else has just changed the tag {tag}: look at `dstack tags`, and try again"
        raise Conflict(msg)
    raise refusal(pushed, session.remote.url)


def resolved(session: Session, seen: Seen, graph: Iterable[Workflow]) -> Mapping[str, TagContent]:
    """Every tag that the workflows depend on, as it is now. Raises Invalid where one can't serve."""
    reader, found = Reader(session), dict[str, TagContent]()
    views: dict[str, RunView] = {}
    for need in dict.fromkeys(need for workflow in graph for need in workflow.tag_needs):
        what = tagged(session, seen, need.tag)
        if isinstance(what, TaggedFiles):
            found[need.tag] = tags.content_of_files(what, known_tags(seen)[need.tag])
            continue
        view = views.setdefault(need.tag, view_of(reader, seen, need, what))
        if view.plan is not None:
            tags.check_need(need, what.run, view.plan, view.state)
            found[need.tag] = tags.content_of_run(what.root, view.plan, view.state)
    return found


def view_of(reader: Reader, seen: Seen, need: TagNeed, what: TaggedRun) -> RunView:
    """The run that a tag names. Raises Invalid where it isn't there any more, or can't be read."""
    said = f"{need.workflow}:{need.tag} can't be used: its run {what.run}"
    key = RunKey.of(what.run, what.root)
    view = reader.view(seen, what.run) if refs.run_branch(what.run) in seen.found else None
    if not isinstance(view, RunView) or view.key != key:
        seen = with_archived(reader.session, seen, key) or seen
    if refs.run_branch(what.run) not in seen.found:
        msg = f"{said} is gone from the state remote: `dstack tag RUN {need.tag}` names another one"
        raise Invalid(msg)
    view = reader.view(seen, what.run)
    if not isinstance(view, RunView) or view.key != key or view.plan is None:
        msg = f"{said} can't be read, or is another one of that name by now: `dstack tag RUN {need.tag}` mends it"
        raise Invalid(msg)
    return view
