"""Credential helpers: programs ``docker-credential-NAME`` that return the credentials for one registry.

The protocol is that of docker-credential-helpers ("Development"): ``get`` reads the server's name from standard input and prints
a JSON object, or a message that there are no credentials. Secrets pass through a pipe and never appear in a command line; no
output of a helper is printed or logged.
"""

from __future__ import annotations

import json
import os
import shutil

from publisher.errors import CommandError, UsageError
from publisher.system import command

_NOT_FOUND = b"credentials not found in native keychain"


def get(name: str, server: str, timeout: float) -> dict[str, str] | None:
    """Return ``Username`` and ``Secret`` for a server, None if the helper has no credentials for it.

    Args:
        name: the helper's name without ``docker-credential-``.
        server: the server's name in Docker's configuration.
        timeout: seconds after which the helper is killed.

    Raises:
        UsageError: the helper is missing, fails, hangs or gives an invalid answer.
    """
    program = f"docker-credential-{name}"
    if shutil.which(program) is None:
        raise UsageError(f"the credential helper {program} is not installed")
    try:
        result = command.run([program, "get"], deadline=timeout, env=os.environ, stdin=server.encode(), accept=range(256))
    except CommandError as error:
        reason = error.reason if error.status is None else f"{program} failed"  # its output may contain secrets
        raise UsageError(f"the credential helper {reason}") from None
    if _NOT_FOUND in result.stdout:
        return None
    try:
        output = json.loads(result.stdout)
        fields = {key: output[key] for key in ("Username", "Secret")}
    except (ValueError, TypeError, KeyError, RecursionError):
        fields = {"": 0}
    if result.status or not all(isinstance(value, str) for value in fields.values()):
        raise UsageError(f"the credential helper {program} failed for {server}") from None
    return fields if any(fields.values()) else None
