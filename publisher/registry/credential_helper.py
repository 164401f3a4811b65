"""Credential helpers: programs ``docker-credential-NAME`` that are asked for one registry's credentials.

Their protocol (docker-credential-helpers, "Development"): ``get`` reads the server's name and answers with a JSON object, or
says that there are none. Secrets come through a pipe, never in a command line; nothing a helper says is printed.
"""

from __future__ import annotations

import json
import os
import shutil

from publisher.errors import CommandError, UsageError
from publisher.system import command

_ABSENT = b"credentials not found in native keychain"


def ask(name: str, server: str, deadline: float) -> dict[str, str] | None:
    """``Username`` and ``Secret`` for a server, None where the helper has none for it.

    Args:
        name: the helper's, without ``docker-credential-``.
        server: as Docker names it.
        deadline: seconds after which it is killed.

    Raises:
        UsageError: it is missing, fails, hangs or talks nonsense.
    """
    program = f"docker-credential-{name}"
    if shutil.which(program) is None:
        raise UsageError(f"the credential helper {program} is not installed")
    try:
        done = command.run([program, "get"], deadline=deadline, env=os.environ, stdin=server.encode(), accept=range(256))
    except CommandError as error:
        why = error.reason if error.status is None else f"{program} failed"  # what it said stays here
        raise UsageError(f"the credential helper {why}") from None
    if _ABSENT in done.stdout:
        return None
    try:
        answer = json.loads(done.stdout)
        found = {key: answer[key] for key in ("Username", "Secret")}
    except (ValueError, TypeError, KeyError, RecursionError):
        found = {"": 0}
    if done.status or not all(isinstance(value, str) for value in found.values()):
        raise UsageError(f"the credential helper {program} failed for {server}") from None
    return found if any(found.values()) else None
