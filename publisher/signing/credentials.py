"""Passphrases of key files and PINs of tokens: from systemd's credentials, else from the person at the terminal.

systemd decrypts ``LoadCredentialEncrypted=NAME:FILE`` of a unit into ``$CREDENTIALS_DIRECTORY/NAME``, which only the unit's
processes can read. The name is that of the key: ``signing.pem.passphrase`` for a file ``signing.pem``, ``NAME.pin`` for an object
of a token.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from publisher.errors import UsageError

Ask = Callable[[str], str | None]
"""Asks the person at the terminal for a secret; None if there is nobody."""
VARIABLE = "CREDENTIALS_DIRECTORY"


def find_secret(name: str, ask: Ask, purpose: str) -> bytes:
    """Return a secret.

    Args:
        name: name of the credential.
        ask: asks for it if there is no such credential.
        purpose: what the secret is for, for the question and the error.

    Raises:
        UsageError: there is no such credential, or it cannot be read, and nobody can be asked.
    """
    directory = os.environ.get(VARIABLE)
    if directory is not None:
        try:
            return (Path(directory) / name).read_bytes().rstrip(b"\r\n")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UsageError(f"the credential {name} cannot be read: {error.strerror}") from None
    answer = ask(purpose)
    if answer is None:
        raise UsageError(
            f"{purpose} is needed, and nobody can be asked",
            hint=f"give the unit the credential {name} (LoadCredentialEncrypted=), see docs/keys.md",
        )
    return answer.encode()
