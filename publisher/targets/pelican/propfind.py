"""WebDAV multistatus documents (RFC 4918, section 13): a server's answer to PROPFIND, as entries."""

from __future__ import annotations

import email.utils
import re
import urllib.parse
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from publisher.errors import OriginError

_DAV = "{DAV:}"
_FORBIDDEN = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
"""Documents that define entities may expand without limit, and no server needs entities here."""


@dataclass(frozen=True)
class DavEntry:
    """A file or a directory at a WebDAV server.

    Attributes:
        path: the path at the server, with ``/`` at its beginning only.
        is_directory: whether it is a directory.
        size: bytes.
        modified: seconds since the epoch, by the server's clock; None if the server does not say.
    """

    path: str
    is_directory: bool
    size: int
    modified: float | None


def parse_multistatus(document: bytes, host: str) -> list[DavEntry]:
    """Return the entries of a multistatus document; ``host``, which sent it, is named in errors.

    Raises:
        OriginError: it is not a valid multistatus document.
    """
    if _FORBIDDEN.search(document):
        raise OriginError(f"{host} lists files in a document that defines entities, which is not accepted")
    try:
        root = ET.fromstring(document)  # noqa: S314 - without entities there is nothing to expand
        return [_entry(response) for response in root.iter(f"{_DAV}response")]
    except (ET.ParseError, ValueError):
        raise OriginError(f"{host} lists files in a form that cannot be parsed") from None


def _entry(response: ET.Element) -> DavEntry:
    href = urllib.parse.urlsplit(response.findtext(f"{_DAV}href", "")).path
    is_directory = next(response.iter(f"{_DAV}collection"), None) is not None
    size = _text(response, "getcontentlength")
    date = _text(response, "getlastmodified")
    modified = email.utils.parsedate_to_datetime(date).timestamp() if date else None
    return DavEntry(urllib.parse.unquote(href).rstrip("/"), is_directory, int(size or 0), modified)


def _text(response: ET.Element, name: str) -> str:
    element = next(response.iter(f"{_DAV}{name}"), None)
    return "" if element is None else (element.text or "").strip()
