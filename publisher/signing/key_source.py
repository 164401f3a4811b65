"""Where a private key is, as settings name it: a file, a PKCS#11 token, or a program that signs."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

TOKEN_SCHEME, PROGRAM_SCHEME = "pkcs11:", "command:"


@dataclass(frozen=True)
class TokenKey:
    """A key in a PKCS#11 token.

    Attributes:
        token: label of the token.
        label: label of the private key and of its public key.
        module: the library that speaks to the token.
    """

    token: str
    label: str
    module: Path

    def __str__(self) -> str:
        """Return the key as settings name it."""
        quoted = {name: urllib.parse.quote(value, safe="/") for name, value in (("token", self.token), ("object", self.label))}
        return f"{TOKEN_SCHEME}token={quoted['token']};object={quoted['object']}?module-path={self.module}"


@dataclass(frozen=True)
class ProgramKey:
    """A key that only a program can use, such as the client of a key management service; ``path`` is the program."""

    path: Path

    def __str__(self) -> str:
        """Return the key as settings name it."""
        return f"{PROGRAM_SCHEME}{self.path}"


KeySource = Path | TokenKey | ProgramKey


def parse_token(text: str) -> TokenKey:
    """Return the key that a PKCS#11 URI (RFC 7512) names by its attributes ``token``, ``object`` and ``module-path``.

    Raises:
        ValueError: an attribute is missing, or there is another one.
    """
    attributes = {}
    for part in re.split("[;?&]", text.removeprefix(TOKEN_SCHEME)):
        name, _, value = part.partition("=")
        attributes[name] = urllib.parse.unquote(value)
    if attributes.keys() != {"token", "object", "module-path"} or not all(attributes.values()):
        raise ValueError(f"{text!r} does not name a key; write pkcs11:token=NAME;object=NAME?module-path=/LIBRARY")
    return TokenKey(attributes["token"], attributes["object"], Path(attributes["module-path"]))
