"""Reads what a job has measured: the metrics files among its artifacts, and no others."""

from collections.abc import Sequence

from dstack.model.errors import DstackError, Failed, Invalid, Unavailable
from dstack.model.folder_paths import joined
from dstack.model.metrics import LIMIT, Measured, merged, parse_metrics
from dstack.store.artifacts import Missing, load
from dstack.store.single import read_file
from dstack.store.store import Store


def measured(
    store: Store, digest: str, folder: str, paths: Sequence[str]
) -> tuple[dict[str, Measured], tuple[str, ...]]:
    """The values of the files at `paths` below `folder` in the artifact set, and what is wrong with them, in sentences.

    Raises Unavailable, Failed where the store as a whole can't be read.
    """
    files: dict[str, dict[str, Measured]] = {}
    problems: list[str] = []
    try:
        manifest = load(store, digest)
    except (Invalid, Missing) as error:
        return {}, (str(error),)
    for path in paths:
        try:
            data = read_file(store, manifest, joined(folder, path), limit=LIMIT)
            if data is None:
                problems.append(f"{path} is not among its artifacts")
            else:
                files[path] = parse_metrics(data)
        except (Unavailable, Failed) as error:
            if not isinstance(error, Missing):
                raise
            problems.append(str(error))
        except DstackError as error:
            problems.append(f"{path}: {error}")
    return merged(files), tuple(problems)
