"""What ssh, curl and TLS say when there is no connection to a remote: in regular expressions. Pure."""

from dstack.ledger.cause import LATER, away, lasting

# The first that fits counts: what is said most exactly stands first.
CONNECTION = (
    lasting(
        "the host's key is another than before: somebody may be listening in",
        "ask who runs the host; if it was changed on purpose, `ssh-keygen -R HOST`, then connect once by hand",
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        r"[Hh]ost key for .+ has changed",
    ),
    lasting(
        "ssh doesn't know the host's key",
        "connect once by hand (`ssh HOST`) as the user that this runs as, or add the key to ~/.ssh/known_hosts",
        r"Host key verification failed",
        r"No \S+ host key is known",
    ),
    lasting(
        "ssh has no key that the host takes",
        "load the key into the agent (ssh-add), name it in ~/.ssh/config, or have it added on the host",
        r"Permission denied \([\w,-]*(?:publickey|password|keyboard-interactive)",
        r"Too many authentication failures",
        r"no mutual signature",
    ),
    lasting(
        "the host's login doesn't serve git there",
        "look at the path in the address, and at what the host lets this user run",
        r"Interactive git shell is not enabled",
        r"git-shell",
        r"unrecognized command",
        r"command not found",
    ),
    lasting(
        "the server's certificate isn't valid now",
        "look at the clock of this machine and at the server's certificate",
        r"certificate is not yet valid",
        r"certificate has expired",
        r"certificate.*expired",
    ),
    lasting(
        "the server's certificate is for another host than that",
        "give the address the name that the certificate is for, or have that mended",
        r"does not match target host",
        r"no alternative certificate subject name",
    ),
    lasting(
        "the file of authorities that git is to trust can't be read",
        "look at http.sslCAInfo in git's settings, and at GIT_SSL_CAINFO",
        r"Problem with the SSL CA cert",
        r"error setting certificate verify locations",
        r"error setting certificate file",
        r"error reading ca cert file",
    ),
    # Some builds of git say no more than this where it has expired, too.
    lasting(
        "the server's certificate can't be verified",
        "have git trust its authority (git config http.sslCAInfo FILE); if it does, the certificate may have expired, "
        "or the clock of this machine is wrong",
        r"server certificate verification failed",
        r"SSL certificate problem",
        r"certificate verify",
        r"SSL peer certificate",
        r"unable to get local issuer",
    ),
    away(
        "the name of its host can't be resolved",
        f"look at the address and the network; {LATER}",
        r"Could not resolve (?:host|proxy|hostname)",
        r"Name or service not known",
        r"Temporary failure in name resolution",
        r"unable to look up",
    ),
    away(
        "nobody answers there",
        LATER,
        r"Connection refused",
        r"Failed to connect",
        r"Couldn't connect to server",
        r"No route to host",
        r"Network is unreachable",
        r"unable to connect",
    ),
    away(
        "the connection broke",
        LATER,
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
)
