"""Credentials for registries, as users have them: Docker's configuration file and its credential helpers.

The Docker SDK's ``docker.auth`` reads both and needs no daemon for it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import docker.auth
import docker.errors

from publisher.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Credentials:
    """A user's name and password, or an identity token (an OAuth 2 refresh token) in place of both. Never printed."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


def anonymous(_registry: str) -> None:
    """No credentials for anybody."""


def docker_credentials(config: Path | None = None) -> Callable[[str], Credentials | None]:
    """A function from a registry (``docker.io``, ``host:port``) to the credentials in Docker's configuration.

    Args:
        config: the file; where the SDK finds it (``$DOCKER_CONFIG/config.json``, ``~/.docker/config.json``) when None.

    Raises:
        UsageError: the file is there but unreadable or no JSON (the SDK would go on without credentials); also from the
            returned function, when a credential helper is missing or fails.
    """
    path = config or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    _check(path, wanted=config is not None)
    try:
        loaded = docker.auth.load_config(config_path=str(path) if config else None)
    except docker.errors.DockerException as error:
        raise UsageError(f"{path}: {error}") from None

    def look_up(registry: str) -> Credentials | None:
        helper = loaded.get_credential_store(registry)
        if helper and shutil.which(f"docker-credential-{helper}") is None:
            raise UsageError(f"the credential helper docker-credential-{helper} that {path} names is not installed")
        try:
            return _credentials(loaded.resolve_authconfig(registry))
        except docker.errors.DockerException:  # its text holds what the helper said
            raise UsageError(f"the credential helper that {path} names for {registry} failed") from None

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


def _credentials(found: Mapping[str, str | None] | None) -> Credentials | None:
    """The SDK's keys are ``username`` and so on from the file, ``Username`` and so on from a helper."""
    values = {key.lower(): value or "" for key, value in (found or {}).items()}
    if values.get("identitytoken"):
        return Credentials(identity_token=values["identitytoken"])
    if values.get("username"):
        return Credentials(values["username"], values.get("password", ""))
    return None
