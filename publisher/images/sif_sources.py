"""SIFs as sources: ``oras://REGISTRY/REPOSITORY:TAG``, ``osdf:///PATH/FILE.sif`` and ``https://HOST/PATH/FILE.sif``. Pure.

A SIF in a registry has a tag that leads to a digest, like an image. A SIF at a URL has neither: its entry has a name for it, and
the sha256 that pins it.
"""

from __future__ import annotations

import re

from publisher.contract import reference as references
from publisher.contract.errors import InvalidReferenceError
from publisher.contract.reference import Reference

ORAS, OSDF, HTTPS = "oras", "osdf", "https"
"""The schemes of references to SIFs."""
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?"
_URL = re.compile(rf"(?P<scheme>osdf|https)://(?P<host>{_HOST})?(?P<path>(?:/[A-Za-z0-9._~+=,-]+)+\.sif)", re.ASCII)
_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})", re.ASCII)


def is_url(reference: Reference) -> bool:
    """Return whether a reference is the URL of a SIF, which has no tag."""
    return reference.scheme in {OSDF, HTTPS}


def is_written_as_url(text: str) -> bool:
    """Return whether a text was meant as the URL of a SIF, and not as the address of a web page."""
    return text.startswith(f"{OSDF}:") or (text.startswith(("https://", "http://")) and text.endswith(".sif"))


def parse(text: str) -> Reference:
    """Return the reference of a SIF, or of an image, that a text describes.

    Raises:
        InvalidReferenceError: the text is neither; the reason says why.
    """
    if text.startswith(f"{ORAS}://"):
        image = references.parse(text.removeprefix(f"{ORAS}://"))
        return Reference(image.registry, image.repository, image.tag, image.digest, ORAS)
    if not is_written_as_url(text.partition("@")[0]):
        return references.parse(text)
    url, at, digest = text.partition("@")
    pinned = _DIGEST.fullmatch(at + digest)
    match = _URL.fullmatch(url)
    if match is None or (at and pinned is None) or any(part in {".", ".."} for part in url.split("/")):
        raise InvalidReferenceError(
            f"{text!r} is not the URL of a SIF: that is https://HOST/PATH/FILE.sif or osdf:///PATH/FILE.sif, without a user,"
            " a query or characters that need quoting"
        )
    scheme, host = match["scheme"], match["host"] or ""
    if bool(host) != (scheme == HTTPS):
        hint = "osdf:/// has three slashes and no host" if host else "https:// needs a host"
        raise InvalidReferenceError(f"{text!r} is not the URL of a SIF: {hint}")
    return Reference(host, match["path"][1:], None, pinned[1] if pinned else None, scheme)
