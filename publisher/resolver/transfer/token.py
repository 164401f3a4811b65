"""The bearer token of a job or a host, for namespaces that are not public. It never appears in a message.

A token is sent only if it is a JSON Web Token of an issuer that the site allows for the federation, and that the federation's
director names for the namespace. So a federation that a job names, or another party's namespace, never gets one.

Tokens are found as other clients of a federation find them: in ``BEARER_TOKEN``, in the file ``BEARER_TOKEN_FILE``, in the
``*.use`` files that HTCondor puts into ``_CONDOR_CREDS`` (a plain token, or JSON with one). WLCG bearer token discovery,
https://zenodo.org/record/3937438.
"""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_MAX_BYTES = 1 << 16
_NOT_DELIMITER = r"""[^\s&"'<>;,)]"""  # also within a URL in a message
_LABELLED = re.compile(rf"(authz(?:=|%3D)|bearer(?:[\s+:=]|%20)+)(?:bearer(?:[\s+]|%20)+)?{_NOT_DELIMITER}+", re.IGNORECASE)
_JWT = re.compile(rf"eyJ{_NOT_DELIMITER}+")
_PREFIX_LENGTH = 12  # characters by which a token is recognised, since messages may be cut short


def find(environ: Mapping[str, str], issuers: Collection[str]) -> str | None:
    """Return the first token of one of the issuers, or None. It is read again each time, since other programs renew it."""
    for text in _candidates(environ) if issuers else ():
        token = _parse(text.strip())
        if token.isascii() and token.isprintable() and " " not in token and _issuer(token) in issuers:
            return token
    return None


def redact(text: str, environ: Mapping[str, str]) -> str:
    """Return a text of another program without tokens and what looks like one, whether quoted for a URL or not."""
    for token in filter(None, (_parse(candidate.strip()) for candidate in _candidates(environ))):
        for form in (token, urllib.parse.quote(token, safe="", errors="replace")):
            text = re.sub(re.escape(form[:_PREFIX_LENGTH]) + f"{_NOT_DELIMITER}*", "TOKEN", text)
    return _JWT.sub("TOKEN", _LABELLED.sub(r"\1TOKEN", text))


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the texts that may have a token, in order of precedence."""
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
    """Return the content of a file, empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_BYTES).decode("ascii", "replace")
    except OSError:
        return ""


def _issuer(token: str) -> str | None:
    """Return the issuer that a JSON Web Token names (RFC 7519, "iss"), or None. Its signature is the server's business."""
    payload = token.split(".")[1:2]
    try:
        issuer = json.loads(base64.urlsafe_b64decode(f"{payload[0]}==="))["iss"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return issuer.rstrip("/") if isinstance(issuer, str) else None


def _parse(text: str) -> str:
    """Return the token in a text that is a token or JSON with one."""
    if not text.startswith("{"):
        return text
    try:
        token = json.loads(text).get("access_token")
    except ValueError:
        return ""
    return token if isinstance(token, str) else ""
