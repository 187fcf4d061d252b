"""What remotes, forges, ssh and curl say when they refuse: in regular expressions, with meaning and way out. Pure."""

from typing import NamedTuple

_CREDENTIALS = (
    "give git credentials: a credential helper (git config credential.helper), GIT_ASKPASS, "
    "or for ssh a key in the agent"
)
_NO_RIGHT = "ask for the right to push there, or use a state remote of your own (dstack init --remote URL)"
_APART = "or keep the state in a repository apart (dstack init --remote URL)"
_LATER = "it is tried again"


class Cause(NamedTuple):
    """`lasting`: a person must act; else waiting helps. `said`: regular expressions, of which one fits.

    `away`: nobody is there, or it has trouble of its own, so that asking again soon disturbs nobody.
    """

    what: str
    way: str
    said: tuple[str, ...]
    lasting: bool
    away: bool = False


def _lasting(what: str, way: str, *said: str) -> Cause:
    return Cause(what, way, said, lasting=True)


def _passing(what: str, way: str, *said: str) -> Cause:
    return Cause(what, way, said, lasting=False)


def _away(what: str, way: str, *said: str) -> Cause:
    return Cause(what, way, said, lasting=False, away=True)


# The first that fits counts: what is said most exactly stands first.
CAUSES = (
    _lasting(
        "it lacks the commit at which this clone's history is cut off",
        "`git fetch --unshallow`, or keep the state in a repository apart (dstack init --remote URL)",
        r"shallow update not allowed",
    ),
    _lasting(
        "the file of a ref there is broken, and git takes no push until it is mended",
        "restore that file in the remote from a copy, or remove it",
        r"missing necessary objects",
    ),
    _lasting(
        "the forge lets nobody push CI files with this token, for it lacks the `workflow` scope",
        f"grant it to the token, push by ssh, {_APART}",
        r"without `?workflows?`? (?:scope|permission)",
    ),
    _lasting(
        "the forge found what looks like a secret in your files",
        "remove it, or name the file in .dstackignore (the lines above the refusal say which)",
        r"push cannot contain secrets",
        r"GITHUB PUSH PROTECTION",
        r"secret[_ -]push[_ -]protection",
        r"secrets? detected",
    ),
    _lasting(
        "a file is too large for the remote",
        "leave it out by .dstackignore, or keep it in git LFS",
        r"GH001",
        r"exceeds GitHub's file size limit",
        r"larger than the (?:file )?size limit",
        r"files? exceeding the size limit",
        r"larger than the allowed size",
        r"File \S+ is larger than",
        r"object exceeds maximum",
    ),
    _lasting(
        "the push, or the repository with it, is too large for the remote",
        "leave out large files by .dstackignore, push by ssh, or have the limit raised",
        r"HTTP(?: code =)? ?413",
        r"error: 413",
        r"Request Entity Too Large",
        r"above its size limit",
        r"size limit of",
        r"pack exceeds maximum",
        r"push is too large",
        r"storage limit",
        r"quota exceeded",
    ),
    _lasting(
        "a rule of the forge protects the branch",
        f"exempt dstack/* from the rule, {_APART}",
        r"GH006",
        r"GH013",
        r"protected branch",
        r"protected branches",
        r"repository rule violations",
        r"protected tag",
        r"cannot create ref due to",
        r"branch is protected",
    ),
    _lasting(
        "the repository is archived or read-only",
        f"have it opened again, {_APART}",
        r"archived",
        r"read-only (?:mode|state|repository)",
        r"is (?:now )?read-only",
        r"in read-only",
    ),
    _lasting(
        "the organisation demands single sign-on (SAML)",
        "authorise the token or key for the organisation in the forge's settings",
        r"SAML SSO",
        r"SAML enforcement",
        r"single sign-on",
    ),
    _lasting(
        "the forge takes no passwords",
        f"make a personal access token and {_CREDENTIALS}",
        r"Support for password authentication was removed",
        r"must use a personal access token",
    ),
    _passing(
        "the remote asks for patience: too many requests",
        _LATER,
        r"rate limit",
        r"error: 429",
        r"HTTP 429",
        r"Too Many Requests",
        r"retry[- ]after",
        r"too many requests",
        r"abuse detection",
    ),
    _away(
        "the remote has trouble of its own",
        _LATER,
        r"error: 50[0-9]",
        r"HTTP 50[0-9]",
        r"error: 52[0-9]",
        r"Internal Server Error",
        r"Bad Gateway",
        r"Service Unavailable",
        r"Gateway Time-?out",
        r"Git is currently unavailable",
        r"under maintenance",
    ),
    _lasting(
        "you may read there but not write",
        _NO_RIGHT,
        r"You are not allowed to (?:force )?push",
        r"not allowed to upload code",
        r"Permission (?:to .+ )?denied to",
        r"Write access to repository",
        r"deploy key does not have write access",
        r"marked as read[ -]only",
        r"does not have permission to push",
        r"remote: (?:ERROR: )?You are not allowed",
        r"service not enabled",
    ),
    _lasting(
        "the forge takes fewer refs in one push",
        f"have the rule changed for this repository, {_APART}",
        r"too many refs",
        r"too many branches",
        r"pushes? (?:can not|cannot) update more than",
        r"cannot update more than",
    ),
    _lasting(
        "it takes no credentials, or not these (they may be wrong or have expired)",
        _CREDENTIALS,
        r"HTTP Basic: Access denied",
        r"Authentication failed",
        r"Invalid username or (?:password|token)",
        r"could not read (?:Username|Password)",
        r"terminal prompts disabled",
        r"error: 401",
        r"HTTP 401",
        r"Bad credentials",
        r"access token (?:is|has) (?:expired|invalid)",
    ),
    _lasting(
        "there is no such repository, or these credentials may not see it",
        f"look at the address; if it is private, {_CREDENTIALS}",
        r"Repository not found",
        r"project you were looking for could not be found",
        r"error: 404",
        r"HTTP 404",
        r"repository '.*' not found",
        r"does not exist or you do not have",
        r"not found or you don't have permission",
        r"does not appear to be a git repository",
        r"access denied or repository not exported",
    ),
    _lasting(
        "the remote forbids it (403): the token may lack a right, or have expired",
        f"{_NO_RIGHT}; or {_CREDENTIALS}",
        r"error: 403",
        r"HTTP 403",
        r"Forbidden",
    ),
    _lasting(
        "the host's key is another than before: somebody may be listening in",
        "ask who runs the host; if it was changed on purpose, `ssh-keygen -R HOST`, then connect once by hand",
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        r"[Hh]ost key for .+ has changed",
    ),
    _lasting(
        "ssh doesn't know the host's key",
        "connect once by hand (`ssh HOST`) as the user that this runs as, or add the key to ~/.ssh/known_hosts",
        r"Host key verification failed",
        r"No \S+ host key is known",
    ),
    _lasting(
        "ssh has no key that the host takes",
        "load the key into the agent (ssh-add), name it in ~/.ssh/config, or have it added on the host",
        r"Permission denied \([\w,-]*(?:publickey|password|keyboard-interactive)",
        r"Too many authentication failures",
        r"no mutual signature",
    ),
    _lasting(
        "the host's login doesn't serve git there",
        "look at the path in the address, and at what the host lets this user run",
        r"Interactive git shell is not enabled",
        r"git-shell",
        r"unrecognized command",
        r"command not found",
    ),
    _lasting(
        "the server's certificate isn't valid now",
        "look at the clock of this machine and at the server's certificate",
        r"certificate is not yet valid",
        r"certificate has expired",
        r"certificate.*expired",
    ),
    _lasting(
        "the server's certificate is for another host than that",
        "give the address the name that the certificate is for, or have that mended",
        r"does not match target host",
        r"no alternative certificate subject name",
    ),
    _lasting(
        "the file of authorities that git is to trust can't be read",
        "look at http.sslCAInfo in git's settings, and at GIT_SSL_CAINFO",
        r"Problem with the SSL CA cert",
        r"error setting certificate verify locations",
        r"error setting certificate file",
        r"error reading ca cert file",
    ),
    # Some builds of git say no more than this where it has expired, too.
    _lasting(
        "the server's certificate can't be verified",
        "have git trust its authority (git config http.sslCAInfo FILE); if it does, the certificate may have expired, "
        "or the clock of this machine is wrong",
        r"server certificate verification failed",
        r"SSL certificate problem",
        r"certificate verify",
        r"SSL peer certificate",
        r"unable to get local issuer",
    ),
    _away(
        "the name of its host can't be resolved",
        f"look at the address and the network; {_LATER}",
        r"Could not resolve (?:host|proxy|hostname)",
        r"Name or service not known",
        r"Temporary failure in name resolution",
        r"unable to look up",
    ),
    _away(
        "nobody answers there",
        _LATER,
        r"Connection refused",
        r"Failed to connect",
        r"Couldn't connect to server",
        r"No route to host",
        r"Network is unreachable",
        r"unable to connect",
    ),
    _away(
        "the connection broke",
        _LATER,
        r"timed out",
        r"[Tt]imeout",
        r"hung up",
        r"early EOF",
        r"Connection (?:reset|closed|to \S+ closed)",
        r"RPC failed",
        r"Broken pipe",
        r"unexpected disconnect",
        r"Empty reply",
        r"Operation too slow",
        r"the remote end",
        r"gnutls_handshake",
        r"SSL_ERROR",
        r"SSL_read",
        r"GnuTLS recv",
        r"[Cc]onnection was",
    ),
    _lasting(
        "you may read there but not write",
        _NO_RIGHT,
        r"unable to create temporary object directory",
        r"insufficient permission for adding an object",
    ),
    _lasting(
        "the remote could not store it",
        "look at its disk space and at who owns its files",
        r"unpack(?:er)?[ -](?:failed|error)",
        r"unpack failed",
        r"No space left on device",
    ),
)
