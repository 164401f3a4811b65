"""The targets of publication as settings name them: a CVMFS repository or a directory, and an origin."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from publisher.targets.pelican.federation import address

if TYPE_CHECKING:
    from pydantic import ValidationInfo

    from publisher.targets.pelican.federation.address import OriginAddress

FQRN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)
"""Pattern of the fully qualified name of a CVMFS repository."""


PAGE_IN_ORIGIN, NO_PAGE = "origin", "none"
"""The values of the setting ``page`` that are no directory."""


class CvmfsTarget(NamedTuple):
    """A CVMFS repository that this host publishes."""

    fqrn: str

    @property
    def mount(self) -> Path:
        """Return the directory at which clients mount the repository."""
        return Path("/cvmfs", self.fqrn)

    def __str__(self) -> str:
        """Return the repository as it is written in settings."""
        return f"cvmfs:{self.fqrn}"


class GitTarget(NamedTuple):
    """A git repository, as ``git clone`` takes it; commits are pushed to its branch ``main``."""

    url: str

    def __str__(self) -> str:
        """Return the repository as it is written in settings."""
        return f"git:{self.url}"


class PublishTargets(NamedTuple):
    """The two targets of a publication: a directory or CVMFS repository for sandboxes, a directory or address for SIFs."""

    repository: Path | CvmfsTarget
    origin: Path | OriginAddress


def to_path(value: object, info: ValidationInfo) -> Path:
    """Return an absolute path; a relative one starts at the context's ``base``, and ``~`` is the context's ``home``.

    Raises:
        ValueError: the value is not a path.
    """
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError(f"{value!r} is not a valid path")
    context: dict[str, Any] = info.context or {}
    text, home = str(value), context.get("home")
    if home and (text == "~" or text.startswith("~/")):
        text = f"{home}/{text[2:]}"
    return Path(os.path.normpath(context.get("base", Path.cwd()) / text))


def to_repository(value: object, info: ValidationInfo) -> Path | CvmfsTarget:
    """Return the repository that ``cvmfs:FQRN`` or a directory names.

    Raises:
        ValueError: the value is neither.
    """
    scheme, colon, fqrn = str(value).partition(":")
    if scheme != "cvmfs" or not colon:
        return to_path(value, info)
    if not FQRN.fullmatch(fqrn):
        raise ValueError(
            f"{fqrn!r} is not a valid name of a CVMFS repository; write cvmfs:FQRN, such as cvmfs:images.example.org"
        )
    return CvmfsTarget(fqrn)


def to_origin(value: object, info: ValidationInfo) -> Path | OriginAddress:
    """Return the origin that a directory or a URL (``pelican://``, ``osdf://``, ``https://``) names.

    Raises:
        ValueError: the value is neither.
    """
    return address.parse(str(value)) if "://" in str(value) else to_path(value, info)


def to_page(value: object, info: ValidationInfo) -> Path | str:
    """Return where the status page is written to: :data:`PAGE_IN_ORIGIN`, :data:`NO_PAGE`, or a directory.

    Raises:
        ValueError: the value is none of these.
    """
    return str(value) if value in {PAGE_IN_ORIGIN, NO_PAGE} else to_path(value, info)


def to_witness(value: object, info: ValidationInfo) -> Path | OriginAddress | GitTarget:
    """Return the witness that ``git:URL``, a directory or the URL of an origin names.

    Raises:
        ValueError: the value is none of these.
    """
    scheme, _, url = str(value).partition(":")
    if scheme != "git":
        return to_origin(value, info)
    if not url or url.startswith("-"):
        raise ValueError(f"{str(value)!r} does not name a git repository; write git:URL")
    return GitTarget(url if "://" in url or "@" in url else str(to_path(url, info)))
