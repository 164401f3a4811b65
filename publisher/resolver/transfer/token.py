"""The bearer token of a job or a host, for namespaces that not everybody may read. Never in a message.

Found as by other clients of a federation: ``BEARER_TOKEN``, the file ``BEARER_TOKEN_FILE``, the ``*.use`` files that HTCondor
puts into ``_CONDOR_CREDS`` (a token, or JSON with one). WLCG bearer token discovery, https://zenodo.org/record/3937438.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MOST_BYTES = 1 << 16
_REST = r"""[^\s&"'<>;,)]"""  # what it goes on with, in a URL that somebody prints
_SAID = re.compile(rf"(authz(?:=|%3D)|bearer(?:[\s+:=]|%20)+)(?:bearer(?:[\s+]|%20)+)?{_REST}+", re.IGNORECASE)
_JWT = re.compile(rf"eyJ{_REST}+")
_TELLTALE = 12  # characters of a token that give it away: texts are cut short


def found(environ: Mapping[str, str]) -> str | None:
    """The token, read anew each time since others renew it; None where there is none."""
    for text in _texts(environ):
        token = _token_in(text.strip())
        if token and token.isascii() and token.isprintable() and " " not in token:
            return token
    return None


def hidden(text: str, environ: Mapping[str, str]) -> str:
    """A text of somebody else's without what is a token there, or looks like one, quoted for a URL or not."""
    for token in filter(None, (_token_in(text.strip()) for text in _texts(environ))):
        for form in (token, urllib.parse.quote(token, safe="", errors="replace")):
            text = re.sub(re.escape(form[:_TELLTALE]) + f"{_REST}*", "TOKEN", text)
    return _JWT.sub("TOKEN", _SAID.sub(r"\1TOKEN", text))


def _texts(environ: Mapping[str, str]) -> Iterator[str]:
    yield environ.get("BEARER_TOKEN", "")
    yield _read(environ.get("BEARER_TOKEN_FILE", ""))
    directory = environ.get("_CONDOR_CREDS", "")
    try:
        names = sorted(os.listdir(directory)) if directory else []
    except OSError:
        names = []
    for name in names:
        if name.endswith(".use"):
            yield _read(os.path.join(directory, name))


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES).decode("ascii", "replace")
    except OSError:
        return ""


def _token_in(text: str) -> str:
    if not text.startswith("{"):
        return text
    try:
        token = json.loads(text).get("access_token")
    except ValueError:
        return ""
    return token if isinstance(token, str) else ""
