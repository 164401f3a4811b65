"""Credentials for registries from the user's Docker configuration file and its credential helpers.

The Docker SDK's ``docker.auth`` reads the file; it needs no daemon.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import UsageError
from publisher.registry import credential_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TOKEN_USERNAME = "<token>"  # noqa: S105 - by it a helper says that its secret is an identity token


@dataclass(frozen=True)
class Credentials:
    """A user's credentials for a registry. The secrets do not appear in its representation.

    Attributes:
        username: the user's name.
        password: the password.
        identity_token: an OAuth 2 refresh token that replaces name and password, ``""`` for none.
        from_helper: a credential helper returned them, which may create new ones for each call.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    from_helper: bool = False

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header with name and password (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


def anonymous(_registry: str) -> None:
    """Return no credentials for any registry.

    ``RegistryClient(credentials=anonymous)`` without mirrors sees only public images, so it tells whether an image is public. It
    is needed only if :meth:`RegistryClient.sees_private_images` is true for the usual client.
    """


def docker_credentials(config: Path | None = None, *, timeout: float = 30) -> Callable[[str], Credentials | None]:
    """Return a function from a registry (``docker.io``, ``host:port``) to its credentials in Docker's configuration.

    Args:
        config: the configuration file; None for the default (``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``).
        timeout: seconds that a credential helper may take.

    Raises:
        UsageError: the file cannot be read or is not JSON (the SDK would silently continue without credentials). The returned
            function raises it if a credential helper is missing, fails or hangs.
    """
    path = config or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    if not (_is_there(path, must_exist=config is not None) or (Path.home() / ".dockercfg").exists()):
        return lambda _registry: None
    import docker.auth  # noqa: PLC0415 - it brings in an HTTP client, which takes a tenth of the start of every command
    import docker.errors  # noqa: PLC0415

    try:
        loaded = docker.auth.load_config(config_path=str(path) if config else None)
    except docker.errors.DockerException as error:
        raise UsageError(f"{path}: {error}") from None

    in_file = docker.auth.AuthConfig({"auths": loaded.auths})  # without helpers, for which the SDK would wait without a timeout

    def look_up(registry: str) -> Credentials | None:
        helper, server = loaded.get_credential_store(registry), registry
        if registry == docker.auth.INDEX_NAME:
            helper, server = loaded.cred_helpers.get(registry) or helper, docker.auth.INDEX_URL
        fields = credential_helper.get(helper, server, timeout) if helper else None
        if fields is not None:
            return _from_helper(fields)
        return _from_file(in_file.resolve_authconfig(registry))

    return look_up


def _is_there(path: Path, *, must_exist: bool) -> bool:
    """Return whether the configuration file exists; raise UsageError if it is invalid, or has to exist and does not."""
    try:
        is_valid = isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:
        if not must_exist:
            return False
        raise UsageError(f"the Docker configuration file {path} does not exist") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UsageError(f"{path} is not a Docker configuration file: it is not a JSON object")
    return True


def _from_helper(fields: Mapping[str, str]) -> Credentials:
    if fields["Username"] == _TOKEN_USERNAME:
        return Credentials(identity_token=fields["Secret"], from_helper=True)
    return Credentials(fields["Username"], fields["Secret"], from_helper=True)


def _from_file(fields: Mapping[str, str | None] | None) -> Credentials | None:
    values = {key.lower(): value or "" for key, value in (fields or {}).items()}
    if values.get("identitytoken"):
        return Credentials(identity_token=values["identitytoken"])
    if values.get("username"):
        return Credentials(values["username"], values.get("password", ""))
    return None
