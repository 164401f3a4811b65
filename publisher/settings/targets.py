"""Where things are published, as settings say it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from publisher.targets.pelican import address

if TYPE_CHECKING:
    from pydantic import ValidationInfo

    from publisher.targets.pelican.address import OriginAddress

FQRN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)
"""A name of a CVMFS repository."""


class CvmfsTarget(NamedTuple):
    """A CVMFS repository of this host."""

    fqrn: str

    @property
    def mount(self) -> Path:
        """Where everybody reads it."""
        return Path("/cvmfs", self.fqrn)

    def __str__(self) -> str:
        """As it is written in settings."""
        return f"cvmfs:{self.fqrn}"


class PublishTargets(NamedTuple):
    """Where to publish: the repository's directory or its name in CVMFS, and the origin's directory or address."""

    repository: Path | CvmfsTarget
    origin: Path | OriginAddress


def to_path(value: object, info: ValidationInfo) -> Path:
    """A path: relative ones start from the context's ``base``, and ``~`` is its ``home``.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError(f"{value!r} is no path")
    context: dict[str, Any] = info.context or {}
    text, home = str(value), context.get("home")
    if home and (text == "~" or text.startswith("~/")):
        text = f"{home}/{text[2:]}"
    return Path(os.path.normpath(context.get("base", Path.cwd()) / text))


def to_repository(value: object, info: ValidationInfo) -> Path | CvmfsTarget:
    """A repository: ``cvmfs:FQRN``, or a directory.

    Raises:
        ValueError: it is neither.
    """
    scheme, colon, fqrn = str(value).partition(":")
    if scheme != "cvmfs" or not colon:
        return to_path(value, info)
    if not FQRN.fullmatch(fqrn):
        raise ValueError(f"{fqrn!r} is no name of a CVMFS repository; write cvmfs:FQRN, such as cvmfs:images.example.org")
    return CvmfsTarget(fqrn)


def to_origin(value: object, info: ValidationInfo) -> Path | OriginAddress:
    """An origin: a directory, or a place in a federation or on a server.

    Raises:
        ValueError: it is neither.
    """
    return address.parse(str(value)) if "://" in str(value) else to_path(value, info)
