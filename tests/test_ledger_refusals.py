"""What remotes say when they refuse, in their own words, becomes a sentence with the way out."""

import pytest

from dstack.ledger.refusals import explain, quoted, retry_after
from dstack.model.errors import Failed, Unavailable

URL = "https://git.example.org/x.git"

# As printed by GitHub, GitLab, git, ssh and curl (found in issues of public projects), and a word of the way out.
LASTING = [
    (
        (
            "refusing to allow a Personal Access Token to create or update workflow `.github/workflows/ci.yml` without "
            "`workflow` scope"
        ),
        "workflow",
    ),
    ("refusing to allow an OAuth App to create or update workflow `.github/a.yml` without `workflow` scope", "sco"),
    (
        (
            "push declined due to repository rule violations: error: GH013: Repository rule violations found for "
            "refs/heads/main. - GITHUB PUSH PROTECTION Resolve the following violations - Push cannot contain secrets"
        ),
        "looks like a secret",
    ),
    (
        "protected branch hook declined: error: GH006: Protected branch update failed for refs/heads/main.",
        "exempt dstack",
    ),
    (
        (
            "push declined due to repository rule violations: error: GH013: Repository rule violations found for "
            "refs/heads/dstack/runs/x. - Cannot create ref due to creations being restricted."
        ),
        "exempt dstack",
    ),
    (
        (
            "pre-receive hook declined: error: File big.zip is 301.74 MB; this exceeds GitHub's file size limit of "
            "100.00 MB error: GH001: Large files detected."
        ),
        "git LFS",
    ),
    ("error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413 Request Entity Too Large", "too large"),
    (
        "ERROR: This repository was archived so it is read-only.\nfatal: Could not read from remote repository.",
        "archived",
    ),
    (
        (
            "remote: This repository was archived so it is read-only.\nfatal: unable to access 'https://x/': "
            "The requested URL returned error: 403"
        ),
        "archived",
    ),
    (
        (
            "remote: The `acme' organization has enabled or enforced SAML SSO. To access this repository, you must "
            "re-authorize the OAuth Application.\nfatal: unable to access: The requested URL returned error: 403"
        ),
        "authorise",
    ),
    (
        (
            "remote: Support for password authentication was removed on August 13, 2021.\n"
            "fatal: Authentication failed for 'https://github.com/x/y.git/'"
        ),
        "personal access token",
    ),
    ("remote: Invalid username or token.\nfatal: Authentication failed for 'https://github.com/x/y.git/'", "helper"),
    ("fatal: could not read Username for 'https://github.com': terminal prompts disabled", "GIT_ASKPASS"),
    (
        (
            "remote: HTTP Basic: Access denied. The provided password or token is incorrect or your account has 2FA "
            "enabled and you must use a personal access token.\nfatal: Authentication failed for 'x'"
        ),
        "token",
    ),
    ("remote: Repository not found.\nfatal: repository 'https://github.com/x/y.git/' not found", "private"),
    (
        (
            "remote: The project you were looking for could not be found or you don't have permission to view it.\n"
            "fatal: repository 'https://gitlab.com/x/y.git/' not found"
        ),
        "private",
    ),
    (
        (
            "remote: Permission to x/y.git denied to ada.\nfatal: unable to access 'https://github.com/x/y.git/': "
            "The requested URL returned error: 403"
        ),
        "right to push",
    ),
    (
        "ERROR: Permission to x/y.git denied to deploy key\nfatal: Could not read from remote repository.",
        "right to push",
    ),
    ("remote: Write access to repository not granted.\nfatal: unable to access: returned error: 403", "right to push"),
    ("fatal: unable to access 'https://x/': The requested URL returned error: 403", "lack a right"),
    (
        "pre-receive hook declined: GitLab: You are not allowed to push code to protected branches on this project.",
        "exempt dstack",
    ),
    ("GitLab: You are not allowed to push code to this project.\nfatal: Could not read from remote", "right to push"),
    ("remote: GitLab: You are not allowed to force push code to a protected branch on this project.", "exempt"),
    ("fatal: remote error: access denied or repository not exported: /x.git", "address"),
    ("shallow update not allowed", "--unshallow"),
    ("missing necessary objects: fatal: bad object refs/dstack/x", "restore that file"),
    ("fatal: remote error: service not enabled: /x.git", "right to push"),
    ("No ED25519 host key is known for [127.0.0.1]:2222 and you have requested strict checking.", "known_hosts"),
    ("Host key verification failed.\nfatal: Could not read from remote repository.", "known_hosts"),
    (
        (
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.\n"
            "fatal: Could not read from remote repository."
        ),
        "ssh-keygen -R",
    ),
    ("git@github.com: Permission denied (publickey).\nfatal: Could not read from remote repository.", "ssh-add"),
    ("fatal: Interactive git shell is not enabled.\nhint: ~/git-shell-commands should exist", "path in the address"),
    ("fatal: unable to access 'x': server certificate verification failed. CAfile: none CRLfile: none", "sslCAInfo"),
    ("fatal: unable to access 'x': SSL certificate problem: self-signed certificate", "sslCAInfo"),
    ("fatal: unable to access 'x': SSL certificate problem: certificate is not yet valid", "clock"),
    ("fatal: unable to access 'x': SSL certificate problem: certificate has expired", "clock"),
    (
        "GitLab: Your push to this repository would cause it to exceed the size limit of 10 GB: above its size limit",
        "raised",
    ),
]
PASSING = [
    "fatal: unable to access 'https://x/': The requested URL returned error: 429",
    "remote: You have exceeded a secondary rate limit.\nfatal: unable to access: The requested URL returned error: 403",
    "error: RPC failed; HTTP 503 curl 22 The requested URL returned error: 503",
    "fatal: unable to access 'https://x/': The requested URL returned error: 502",
    "fatal: unable to access 'https://x/': Could not resolve host: x",
    "ssh: Could not resolve hostname x: Temporary failure in name resolution",
    "ssh: connect to host x port 22: Connection refused\nfatal: Could not read from remote repository.",
    "fatal: unable to access 'http://127.0.0.1:1/': Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect",
    "fatal: unable to connect to 127.0.0.1:\n127.0.0.1[0: 127.0.0.1]: errno=Connection refused",
    "ssh: connect to host x port 22: Operation timed out",
    "fatal: the remote end hung up unexpectedly",
    "fetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF",
    "fatal: unable to access 'x': GnuTLS recv error (-110): The TLS connection was non-properly terminated.",
    "kex_exchange_identification: Connection closed by remote host",
]


@pytest.mark.parametrize(("said", "way"), LASTING)
def test_what_only_a_person_can_mend_says_how(said: str, way: str) -> None:
    error = explain(said, URL, "refused the push")
    assert isinstance(error, Failed)
    assert str(error).startswith(f"{URL} refused the push: ")
    assert way in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("said", PASSING)
def test_what_passes_is_waited_for(said: str) -> None:
    error = explain(said, URL, "can't be reached")
    assert isinstance(error, Unavailable)
    assert error.retry_after is None


def test_the_unknown_stays_unknown() -> None:
    assert explain("fatal: a sentence that nobody has ever seen", URL, "") is None


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("remote: Retry-After: 17\nfatal: The requested URL returned error: 429", 17.0),
        ("remote: slow down, retry after 90 seconds", 90.0),
        ("retry-after: 99999", 3600.0),
        ("The requested URL returned error: 429", None),
    ],
)
def test_the_wait_that_was_asked_for_is_kept(said: str, seconds: float | None) -> None:
    assert retry_after(said) == seconds


def test_no_login_of_a_url_is_repeated() -> None:
    said = "fatal: unable to access 'https://ada:se%40cret@git.example.org/x.git/': Could not resolve host"
    error = explain(said, URL, "can't be reached")
    assert "cret" not in str(error)
    assert "https://git.example.org/x.git/" in quoted(said)
