"""What this host can do for containers, tried out: each try has a deadline, and its answer is yes, no or not known.

They speak for the user who runs them: run them as who runs jobs (in a glidein everybody is), or as HTCondor's own account.
"""

from __future__ import annotations

import os
import time

from publisher.resolver.errors import FetchError
from publisher.resolver.host import programs
from publisher.resolver.system.deadline_fork import ForkedCall

_UNPACKED = "temporary sandbox"
"""Apptainer's words for a SIF that cannot be mounted: every job would unpack the whole image first."""
_TARGET = "/image-resolver-probe"  # a directory that no image has
_CONTAINED = ("exec", "--contain", "--ipc", "--cleanenv")  # what HTCondor asks for at least


class HostProbe:
    """A try's answer: ``yes`` True, False or None for not known; ``why`` it is not True, else empty."""

    __slots__ = ("why", "yes")

    def __init__(self, yes: bool | None, why: str = "") -> None:
        self.yes = yes
        self.why = why


def user_namespaces(seconds: float) -> HostProbe:
    """Whether an ordinary user's program may have user and mount namespaces: what Apptainer without setuid stands on."""
    status, said = programs.run(["unshare", "--user", "--map-root-user", "--mount", "true"], seconds)
    return _probe(status, said)


def runs(apptainer: str, image: str, seconds: float) -> HostProbe:
    """Whether Apptainer starts a shell in the image, without unpacking it first."""
    status, said = programs.run([apptainer, *_CONTAINED, image, "/bin/sh", "-c", ":"], seconds)
    if _UNPACKED in said:
        return HostProbe(yes=False, why=f"SIFs are unpacked before each start: {_last_line(said)}")
    return _probe(status, said)


def binds_anywhere(apptainer: str, image: str, seconds: float) -> HostProbe:
    """Whether a directory can be bound to where the image has none, by overlay or underlay: jobs' scratch directories are."""
    look = ("/bin/sh", "-c", f"[ -d {_TARGET} ]")
    status, said = programs.run([apptainer, *_CONTAINED, "--bind", f"/etc:{_TARGET}:ro", image, *look], seconds)
    return _probe(status, said)


def opens(directory: str, seconds: float) -> HostProbe:
    """Whether a directory is there and can be read; one that hangs is not."""

    def read() -> bytes:
        with os.scandir(directory) as entries:
            next(entries, None)
        return b""

    try:
        ForkedCall(read).result(time.monotonic() + seconds)
    except FetchError as error:
        return HostProbe(yes=False, why=f"{directory}: {error}")
    return HostProbe(yes=True)


def _probe(status: int | None, said: str) -> HostProbe:
    """A program that could not be run or did not end says nothing for sure but that one cannot rely on it."""
    return HostProbe(yes=True) if status == 0 else HostProbe(yes=False, why=_last_line(said) or f"status {status}")


def _last_line(text: str) -> str:
    return " ".join((text.splitlines() or [""])[-1].split())[:300]
