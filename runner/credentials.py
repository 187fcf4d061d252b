"""The login for a registry, as `docker login` left it for the user we are: in a file, or with a credential helper."""

import shutil

import docker.auth
from docker import errors

HELPER = "docker-credential-"


def login(repository: str) -> tuple[bytes | None, str]:
    """The header that logs in to the registry of this repository, if there is a login; and what is wrong with it.

    Read anew each time: a `docker login` counts from then on. What a helper says is not repeated: it may be a secret.
    """
    try:
        registry, _ = docker.auth.resolve_repository_name(repository)
        known = docker.auth.load_config()
        helper = known.get_credential_store(registry)
        if helper and shutil.which(HELPER + helper) is None:
            return None, f"the credential helper {HELPER}{helper} isn't installed on the runner, or not in its PATH"
        found = docker.auth.resolve_authconfig(known, registry)
    except errors.DockerException:
        return None, "the Docker login of the runner's user (~/.docker/config.json) can't be read"
    except (OSError, ValueError, KeyError):
        return None, "the credential helper in ~/.docker/config.json doesn't answer as it should"
    return (docker.auth.encode_header(found) if found else None), ""
