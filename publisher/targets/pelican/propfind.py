"""What a WebDAV server says of paths: a multistatus document (RFC 4918, section 13) as entries."""

from __future__ import annotations

import email.utils
import re
import urllib.parse
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from publisher.errors import OriginError

_DAV = "{DAV:}"
_FORBIDDEN = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
"""Documents that define entities may grow without end, and no server needs them here."""


@dataclass(frozen=True)
class DavEntry:
    """A file or a directory.

    Attributes:
        path: at the server, ``/`` in front and none at its end.
        directory: it is one.
        size: bytes.
        modified: seconds since the epoch, by the server's clock; None where it does not say.
    """

    path: str
    directory: bool
    size: int
    modified: float | None


def entries(document: bytes, host: str) -> list[DavEntry]:
    """The entries of a multistatus document; ``host`` is who sent it.

    Raises:
        OriginError: it is none.
    """
    if _FORBIDDEN.search(document):
        raise OriginError(f"{host} lists files in a document that defines entities; it is not read")
    try:
        root = ET.fromstring(document)  # noqa: S314 - without entities there is nothing to expand
        return [_entry(response) for response in root.iter(f"{_DAV}response")]
    except (ET.ParseError, ValueError):
        raise OriginError(f"{host} lists files in a form that cannot be read") from None


def _entry(response: ET.Element) -> DavEntry:
    href = urllib.parse.urlsplit(response.findtext(f"{_DAV}href", "")).path
    collection = next(response.iter(f"{_DAV}collection"), None) is not None
    size = _text(response, "getcontentlength")
    modified = _text(response, "getlastmodified")
    when = email.utils.parsedate_to_datetime(modified).timestamp() if modified else None
    return DavEntry(urllib.parse.unquote(href).rstrip("/"), collection, int(size or 0), when)


def _text(response: ET.Element, name: str) -> str:
    found = next(response.iter(f"{_DAV}{name}"), None)
    return "" if found is None else (found.text or "").strip()
