import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.forge.place import Place, find_place
from dstack.forge.tokens import find_token
from dstack.model import personal
from dstack.model.errors import Failed, Invalid
from dstack.model.forge import ForgeKind, ForgeSettings, Reported
from dstack.model.settings import Settings, parse_settings, settings_text

NONE = ForgeSettings()
GITHUB = find_place("https://github.com/acme/models.git", NONE)


@given(
    st.builds(
        ForgeSettings,
        kind=st.none() | st.sampled_from(ForgeKind),
        api=st.none() | st.just("https://git.example.org/api/v4"),
        report=st.sampled_from(Reported),
        comment=st.booleans(),
        web=st.none() | st.just("https://dstack.example.org/"),
    )
)
def test_what_is_set_reads_back(forge: ForgeSettings) -> None:
    assert parse_settings(settings_text(Settings(forge=forge)).encode()).forge == forge


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: svn", "svn"),
        ("api: ftp://x.org", "https://"),
        ("api: https://token@x.org/api/v4", "https://"),
        ("web: 'https://x.org/?a=b'", "https://"),
        ("web: 'https://x.org/>evil'", "https://"),
        ("colour: red", "colour"),
        ("report: some", "some"),
    ],
)
def test_what_can_not_be_is_told(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        parse_settings(f"forge: {{{text}}}".encode())


def test_a_setting_is_given_as_yaml_and_reaches_no_other_key() -> None:
    assert personal.read("forge", "kind: gitlab", "here") == ForgeSettings(kind=ForgeKind.GITLAB)
    assert personal.read("forge", "{}", "here") == NONE
    with pytest.raises(Invalid, match="here: forge can't be"):
        personal.read("forge", "kind: gitlab\nlease: 5", "here")


@pytest.mark.parametrize(
    ("url", "settings", "api", "path"),
    [
        ("https://github.com/acme/models.git", NONE, "https://api.github.com", "/repos/acme/models"),
        ("git@github.com:acme/models.git", NONE, "https://api.github.com", "/repos/acme/models"),
        ("ssh://git@ssh.github.com:443/acme/models", NONE, "https://api.github.com", "/repos/acme/models"),
        ("https://acme.ghe.com/acme/models", NONE, "https://api.acme.ghe.com", "/repos/acme/models"),
        ("https://gitlab.com/a/b/c.git", NONE, "https://gitlab.com/api/v4", "/projects/a%2Fb%2Fc"),
        ("https://codeberg.org/a/b", NONE, "https://codeberg.org/api/v1", "/repos/a/b"),
        (
            "https://git.example.org:8443/a/b",
            ForgeSettings(kind=ForgeKind.GITLAB),
            "https://git.example.org:8443/api/v4",
            "/projects/a%2Fb",
        ),
        (
            "git@ghe.example.org:a/b.git",
            ForgeSettings(kind=ForgeKind.GITHUB),
            "https://ghe.example.org/api/v3",
            "/repos/a/b",
        ),
        (
            "https://example.org/gitlab/a/b",
            ForgeSettings(kind=ForgeKind.GITLAB, api="https://example.org/gitlab/api/v4"),
            "https://example.org/gitlab/api/v4",
            "/projects/a%2Fb",
        ),
        ("https://github.com/acme/odd%20name#x", NONE, "https://api.github.com", "/repos/acme/odd%2520name"),
    ],
)
def test_a_remote_says_where_its_api_is(url: str, settings: ForgeSettings, api: str, path: str) -> None:
    place = find_place(url, settings)
    assert (place.api, place.path) == (api, path)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "no forge"),
        ("/srv/git/models.git", "no forge"),
        ("https://git.example.org/a/b", "kind: gitlab"),
        ("https://github.com/only-one", "owner/name"),
        ("https://github.com/a/b/c", "owner/name"),
        ("https://gitlab.com/a/../b", "owner/name"),
        ("https://[broken", "no forge"),
        ("C:\\code", "no forge"),
    ],
)
def test_what_is_no_project_on_a_forge_is_told(url: str | None, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        find_place(url, NONE)


def test_shared_settings_send_no_token_to_another_host_nor_unencrypted() -> None:
    url = "https://git.example.org/a/b"
    for api in ("https://evil.example.com/api/v4", "http://git.example.org/api/v4"):
        settings = ForgeSettings(kind=ForgeKind.GITLAB, api=api)
        with pytest.raises(Invalid, match="DSTACK_FORGE_API"):
            find_place(url, settings)
        assert find_place(url, settings, api).api == api


def _nothing() -> None:
    return None


def test_a_token_is_found_in_the_environment_then_asked_of_git() -> None:
    environ = {"GH_TOKEN": "b", "GITHUB_TOKEN": "c", "GITLAB_TOKEN": "d"}
    assert find_token(GITHUB, {**environ, "DSTACK_FORGE_TOKEN": "a"}, _nothing) == "a"
    assert find_token(GITHUB, environ, _nothing) == "b"
    assert find_token(GITHUB, {}, lambda: "e") == "e"
    with pytest.raises(Failed, match="GH_TOKEN or GITHUB_TOKEN"):
        find_token(GITHUB, {"GITLAB_TOKEN": "d", "GH_TOKEN": " "}, _nothing)


def test_a_token_for_github_goes_to_no_other_host() -> None:
    place = Place(kind=ForgeKind.GITHUB, host="ghe.example.org", api="https://ghe.example.org/api/v3", project="a/b")
    with pytest.raises(Failed, match="GH_ENTERPRISE_TOKEN"):
        find_token(place, {"GITHUB_TOKEN": "c"}, _nothing)


def test_what_can_be_no_token_is_not_shown() -> None:
    with pytest.raises(Failed) as caught:
        find_token(GITHUB, {"GH_TOKEN": "se cret\r\nX-Evil: 1"}, _nothing)
    assert "se cret" not in str(caught.value)
