"""Probes of what this host can do for containers. Each has a timeout, and its result is yes, no or unknown.

The results are valid for the user who runs the probes: run them as the user who runs the jobs (in a glidein that is always the
same user), or as HTCondor's own account.
"""

from __future__ import annotations

import os
import time

from publisher.resolver.errors import FetchError
from publisher.resolver.host import programs
from publisher.resolver.system.deadline_fork import ForkedCall

_UNPACKING = "temporary sandbox"
"""What Apptainer prints for a SIF that it cannot mount: every job would unpack the whole image first."""
_INDEX = ".publisher/index.json"
_TARGET = "/image-resolver-probe"  # a directory that no image has
_EXEC = ("exec", "--contain", "--ipc", "--cleanenv")  # the options that HTCondor always uses


class HostProbe:
    """The result of a probe.

    Attributes:
        works: True, False, or None for unknown.
        why: why it is not True; empty if it is.
    """

    __slots__ = ("why", "works")

    def __init__(self, works: bool | None, why: str = "") -> None:
        self.works = works
        self.why = why


def probe_user_namespaces(seconds: float) -> HostProbe:
    """Probe whether an ordinary user can create user and mount namespaces, which Apptainer without setuid needs."""
    status, output = programs.run(["unshare", "--user", "--map-root-user", "--mount", "true"], seconds)
    return _result(status, output)


def probe_start(apptainer: str, image: str, seconds: float) -> HostProbe:
    """Probe whether Apptainer starts a shell in the image without unpacking it first."""
    status, output = programs.run([apptainer, *_EXEC, image, "/bin/sh", "-c", ":"], seconds)
    if _UNPACKING in output:
        return HostProbe(works=False, why=f"SIFs are unpacked before each start: {_last_line(output)}")
    return _result(status, output)


def probe_binds(apptainer: str, image: str, seconds: float) -> HostProbe:
    """Probe whether a directory can be bound to a path that the image does not have, as the jobs' scratch directories are."""
    test = ("/bin/sh", "-c", f"[ -d {_TARGET} ]")
    status, output = programs.run([apptainer, *_EXEC, "--bind", f"/etc:{_TARGET}:ro", image, *test], seconds)
    return _result(status, output)


def probe_repository(directory: str, seconds: float) -> HostProbe:
    """Probe whether a repository can be listed and a file of it can be read before the timeout."""

    def read() -> bytes:
        with os.scandir(directory) as entries:
            next(entries, None)
        try:
            with open(os.path.join(directory, _INDEX), "rb", buffering=0) as file:
                file.read(1)
        except FileNotFoundError:  # the manifest may come from elsewhere
            pass
        return b""

    try:
        ForkedCall(read).result(time.monotonic() + seconds)
    except FetchError as error:
        return HostProbe(works=False, why=f"{directory}: {error}")
    return HostProbe(works=True)


def _result(status: int | None, output: str) -> HostProbe:
    """Return the result of a program; one that cannot be run or does not end counts as a failure."""
    if status == 0:
        return HostProbe(works=True)
    return HostProbe(works=False, why=_last_line(output) or f"status {status}")


def _last_line(text: str) -> str:
    """Return the last line that says something: without colours, and the last line may consist of nothing else."""
    import re  # noqa: PLC0415 - no job waits for this

    lines = [" ".join(line.split()) for line in re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text).splitlines()]
    return next(filter(None, reversed(lines)), "")[:300]
