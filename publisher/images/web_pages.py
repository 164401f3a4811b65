"""Registries that authors of lists know: their names, and the web pages on which they show images. Pure.

Authors copy the address of a page from their browser, or misspell the name of a registry.
"""

from __future__ import annotations

import difflib
import re

REGISTRIES = (
    "docker.io",
    "ghcr.io",
    "quay.io",
    "registry.gitlab.com",
    "nvcr.io",
    "public.ecr.aws",
    "gcr.io",
    "mcr.microsoft.com",
)
"""Registries that many lists name."""
_SCHEME = re.compile(r"https?://(?:www\.)?", re.IGNORECASE)
_PART = r"([^/]+)"
_PAGES = (
    (rf"hub\.docker\.com/_/{_PART}", "{0}"),
    (rf"hub\.docker\.com/(?:r|u|repository/docker|layers)/{_PART}/{_PART}", "{0}/{1}"),
    (rf"quay\.io/repository/{_PART}/{_PART}", "quay.io/{0}/{1}"),
    (rf"github\.com/(?:orgs|users)/{_PART}/packages/container/package/(.+)", "ghcr.io/{0}/{1}"),
    (rf"github\.com/{_PART}/{_PART}/pkgs/container/{_PART}", "ghcr.io/{0}/{2}"),
    (r"catalog\.ngc\.nvidia\.com/orgs/([^/]+)(?:/teams/[^/]+)?/containers/([^/]+)", "nvcr.io/{0}/{1}"),
)
"""The pages of registries that have other addresses than their images, and what an entry writes instead."""
_SITES = ("hub.docker.com", "github.com", "gitlab.com", "catalog.ngc.nvidia.com")
"""Sites with such pages that are no registries themselves."""


def reference_of_page(text: str) -> str | None:
    """Return the reference of the image on a web page, without a tag; None if the text is not the address of such a page.

    ``https://hub.docker.com/r/htc/rocky/tags`` becomes ``htc/rocky``. The scheme may be missing. An address of a registry
    itself, such as ``https://quay.io/htc/rocky``, only loses its scheme.
    """
    address = _SCHEME.sub("", text)
    path = re.split(r"[?#]", address)[0].replace("%2F", "/").replace("%2f", "/").rstrip("/")
    for page, written in _PAGES:
        found = re.match(rf"{page}(?:/|$)", path)
        if found:
            return written.format(*found.groups()).lower()
    return path if address != text and not is_website(path) else None


def is_website(text: str) -> bool:
    """Return whether a text begins with a web site that shows images and is no registry."""
    return _SCHEME.sub("", text).partition("/")[0].lower() in _SITES


def similar_registry(host: str) -> str | None:
    """Return the well-known registry that a host name was probably meant to be, None if it is like none."""
    return next(iter(difflib.get_close_matches(host.lower(), REGISTRIES, 1, 0.7)), None)
