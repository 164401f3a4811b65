"""What a trace or a history says of one job, and what is known of a name. Times are seconds since the epoch. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.contract import reference
from publisher.contract.errors import InvalidReferenceError

if TYPE_CHECKING:
    from collections.abc import Mapping

TRACE, HISTORY = "trace", "history"
"""Sources. A job can be in both, so their counts are not added."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?", re.ASCII)
_DOCKER = "docker://"


@dataclass(frozen=True)
class JobRecord:
    """One job.

    Attributes:
        source: :data:`TRACE` or :data:`HISTORY`.
        time: when it started or ended.
        name: the published name that it used; empty for none.
        digest: digest of the version, empty if it is not known.
        host: where it ran, empty if that is not known.
        candidate: the reference of the unpublished image that it named by ``docker://``; empty for none.
    """

    source: str
    time: int
    name: str = ""
    digest: str = ""
    host: str = ""
    candidate: str = ""


@dataclass(frozen=True)
class UseCount:
    """How often something was used: jobs at least, hosts at least, and the last time."""

    jobs: int = 0
    hosts: int = 0
    last: int = 0


@dataclass(frozen=True)
class NameUsage:
    """The use of a name: of all its versions, and digest -> of one version."""

    total: UseCount
    versions: Mapping[str, UseCount] = field(default_factory=dict)


def job_record(source: str, now: int, *, time: object, image: object, digest: object, host: object) -> JobRecord | None:
    """Return the record of a job from values of a stranger, None if they say nothing that can be counted.

    Args:
        source: where they come from.
        now: the time now.
        time: when the job was; a time in the future is not believed.
        image: the published name, or the ``docker://`` reference of an image that is not published.
        digest: digest of the version.
        host: where it ran, also as HTCondor's name of a slot.
    """
    if not isinstance(image, str) or not isinstance(time, int | float) or isinstance(time, bool) or not 0 < time <= now + 86400:
        return None
    if image.startswith(_DOCKER):
        candidate = normalized(image)
        return None if candidate is None else JobRecord(source, int(time), candidate=candidate)
    known_digest = digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else ""
    known_host = host.rpartition("@")[2] if isinstance(host, str) else ""
    return JobRecord(source, int(time), image, known_digest, known_host if _HOST.fullmatch(known_host) else "")


def normalized(text: str) -> str | None:
    """Return a reference in full, ``docker.io/library/debian:12``; None for a text that is none."""
    try:
        return str(reference.parse(text))
    except InvalidReferenceError:
        return None
