from hypothesis import given
from hypothesis import strategies as st

from dstack.model.errors import Invalid
from dstack.store import paths

MIB = 1024 * 1024


@given(st.binary())
def test_any_name_is_written_and_read_back(name: bytes) -> None:
    text, raw = paths.written(name)
    text.encode()
    assert paths.exact(text, raw) == name


@given(st.text(st.sampled_from("ab./"), max_size=12), st.text(st.sampled_from("ab./"), max_size=12))
def test_a_resolved_path_never_leaves(working_dir: str, declared: str) -> None:
    try:
        resolved = paths.resolve(working_dir.strip("/"), declared)
    except Invalid:
        return
    paths.names(resolved.encode())
    assert paths.resolve(".", resolved) == resolved


@given(st.text())
def test_any_text_can_name_a_folder_or_is_refused(text: str) -> None:
    try:
        name = paths.as_folder_name(text)
    except (Invalid, UnicodeEncodeError):
        return
    assert paths.names(name) == (name,)
