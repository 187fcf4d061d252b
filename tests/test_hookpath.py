import hashlib
import hmac

from dstack.model.hookpath import hook_path, hook_url


def test_a_path_is_the_first_half_of_an_hmac_over_the_name() -> None:
    expected = hmac.new(b"s3cret", b"acme/models", hashlib.sha256).hexdigest()
    assert hook_path("s3cret", "acme/models") == expected[:32]


def test_each_repository_and_each_secret_has_a_path_of_its_own() -> None:
    paths = {hook_path(secret, name) for secret in ("a", "b", "ä") for name in ("x/y", "x/z", "ü")}
    assert len(paths) == 9
    assert all(len(path) == 32 and path.isalnum() for path in paths)


def test_a_url_has_one_slash_between_its_parts() -> None:
    one = hook_url("https://dstack.example.org/", "s", "n")
    assert one == hook_url("https://dstack.example.org", "s", "n")
    assert one == f"https://dstack.example.org/hooks/{hook_path('s', 'n')}"
