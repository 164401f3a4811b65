"""Credentials for registries, as users have them: Docker's configuration file and its credential helpers.

The Docker SDK's ``docker.auth`` reads both and needs no daemon for it.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import docker.auth
import docker.errors

from publisher.errors import UsageError
from publisher.registry import credential_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Credentials:
    """A user's name and password, or an identity token (an OAuth 2 refresh token) in place of both. Never printed.

    ``from_helper`` says that a credential helper gave them, which may make new ones each time.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    from_helper: bool = False

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


def anonymous(_registry: str) -> None:
    """No credentials for anybody.

    ``RegistryClient(credentials=anonymous)``, without mirrors, sees what everybody may pull. Whether an image is public is asked
    with it, and only where :meth:`RegistryClient.privileged` says that the usual client may have seen more.
    """


def docker_credentials(config: Path | None = None, *, deadline: float = 30) -> Callable[[str], Credentials | None]:
    """A function from a registry (``docker.io``, ``host:port``) to the credentials in Docker's configuration.

    Args:
        config: the file; where the SDK finds it (``$DOCKER_CONFIG/config.json``, ``~/.docker/config.json``) when None.
        deadline: seconds that a credential helper may take.

    Raises:
        UsageError: the file is there but unreadable or no JSON (the SDK would go on without credentials); also from the
            returned function, when a credential helper is missing, fails or hangs.
    """
    path = config or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    _check(path, wanted=config is not None)
    try:
        loaded = docker.auth.load_config(config_path=str(path) if config else None)
    except docker.errors.DockerException as error:
        raise UsageError(f"{path}: {error}") from None

    in_file = docker.auth.AuthConfig({"auths": loaded.auths})  # without helpers: the SDK would wait for one for ever

    def look_up(registry: str) -> Credentials | None:
        name, server = loaded.get_credential_store(registry), registry
        if registry == docker.auth.INDEX_NAME:
            name, server = loaded.cred_helpers.get(registry) or name, docker.auth.INDEX_URL
        found = credential_helper.ask(name, server, deadline) if name else None
        if found is not None:
            return _from_helper(found)
        return _credentials(in_file.resolve_authconfig(registry))

    return look_up


def _check(path: Path, *, wanted: bool) -> None:
    try:
        sound = isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:
        if not wanted:
            return
        raise UsageError(f"there is no {path}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(f"{path} is not a Docker configuration: no JSON object")


def _from_helper(found: Mapping[str, str]) -> Credentials:
    if found["Username"] == docker.auth.TOKEN_USERNAME:
        return Credentials(identity_token=found["Secret"], from_helper=True)
    return Credentials(found["Username"], found["Secret"], from_helper=True)


def _credentials(found: Mapping[str, str | None] | None) -> Credentials | None:
    values = {key.lower(): value or "" for key, value in (found or {}).items()}
    if values.get("identitytoken"):
        return Credentials(identity_token=values["identitytoken"])
    if values.get("username"):
        return Credentials(values["username"], values.get("password", ""))
    return None
