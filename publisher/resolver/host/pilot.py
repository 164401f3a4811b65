"""What a host can do for jobs' containers, measured: for HTCondor's configuration at a pilot's start, and for its startd cron.

Each measurement has a deadline. What came out is also written to the file of facts, which the hook reads in every job.
"""

from __future__ import annotations

import copy
import glob
import os
import time

from publisher.contract.errors import ExpectedError
from publisher.resolver.config.settings import SANDBOX, SIF
from publisher.resolver.errors import ResolverUsageError
from publisher.resolver.host import default_image as defaults
from publisher.resolver.host import probes
from publisher.resolver.host.default_image import HostCapacity, ImageOffer
from publisher.resolver.host.probes import HostProbe
from publisher.resolver.system import path_probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.system.notes import Warnings

_APPTAINER = ("apptainer", "singularity")
_GPU_DEVICES = ("/dev/nvidia[0-9]*", "/dev/kfd")
_CVMFS = "/cvmfs"


class HostMeasurement:
    """What was found: each a :class:`~publisher.resolver.host.probes.HostProbe`, and ``when``, seconds since the epoch."""

    __slots__ = ("cvmfs", "overlay", "sif", "userns", "when")

    def __init__(self, when: int, *, userns: HostProbe, sif: HostProbe, overlay: HostProbe, cvmfs: HostProbe) -> None:
        self.when = when
        self.userns = userns
        self.sif = sif
        self.overlay = overlay
        self.cvmfs = cvmfs

    def facts(self) -> dict[str, bool | None]:
        """For the hook: fact -> yes, no, or None for not known."""
        return {name: getattr(self, name).yes for name in ("sif", "userns", "overlay", "cvmfs")}

    def problems(self) -> list[str]:
        """Why something is not to be had, in a line each."""
        found = [("user namespaces", self.userns), ("SIFs", self.sif), ("bind mounts", self.overlay), ("CVMFS", self.cvmfs)]
        return [f"{what}: {probe.why}" for what, probe in found if probe.why]

    def attributes(self) -> dict[str, str | int | bool]:
        """For the machine's ad. What is not known is left out: undefined there."""
        named = {"HasSIF": self.sif, "ImageResolverSIF": self.sif, "ImageResolverUserNamespaces": self.userns}
        named |= {"ImageResolverBinds": self.overlay, "ImageResolverCVMFS": self.cvmfs}
        found: dict[str, str | int | bool] = {name: probe.yes for name, probe in named.items() if probe.yes is not None}
        usable = self._is_usable()
        if usable is not None:
            found["ImageResolverUsable"] = usable
        return {**found, "ImageResolverMeasured": self.when}

    def _is_usable(self) -> bool | None:
        """Whether any image can be run here: one was, in one of the forms, or none could be in either."""
        if self.sif.yes or self.overlay.yes:
            return True
        return False if self.sif.yes is False and (self.overlay.yes is False or self.cvmfs.yes is False) else None


def measure(settings: ResolverSettings, now: float, notes: Warnings) -> HostMeasurement:
    """Try out what jobs will need. What the probe's image needed is noted."""
    seconds = settings.probe_time
    program = apptainer(settings)
    userns = probes.user_namespaces(seconds)
    cvmfs = probes.opens(settings.repository, seconds)
    nothing = HostProbe(yes=None, why="not tried: no image to try it with")
    if program is None:
        missing = HostProbe(yes=False, why=f"no {' or '.join(_APPTAINER)} on this host")
        return HostMeasurement(int(now), userns=userns, sif=missing, overlay=missing, cvmfs=cvmfs)
    sif, overlay = nothing, nothing
    image = _image(settings, SIF, now, notes)
    if image:
        sif = probes.runs(program, image, seconds)
    if not sif.yes:
        image = _image(settings, SANDBOX, now, notes)
    if image:
        overlay = probes.binds_anywhere(program, image, seconds)
    return HostMeasurement(int(now), userns=userns, sif=sif, overlay=overlay, cvmfs=cvmfs)


def default_image(settings: ResolverSettings, environ: Mapping[str, str], draw: float) -> str:
    """The image of this pilot's jobs that name none; empty where the site has none for this host.

    Args:
        settings: ``default-image`` counts, else ``default-images``.
        environ: CUDA_VISIBLE_DEVICES says whether there is a GPU for jobs.
        draw: a random number, 0 <= draw < 1.

    Raises:
        ResolverUsageError: one of the default images cannot be read.
    """
    if settings.default_image:
        return settings.default_image
    devices = [path for pattern in _GPU_DEVICES for path in glob.glob(pattern)]
    host = HostCapacity(settings.arch, _level(), gpu=defaults.has_gpu(environ, devices))
    return defaults.choose(map(ImageOffer, settings.default_images), host, draw)


def apptainer(settings: ResolverSettings) -> str | None:
    """The path of Apptainer on this host, None where it has none."""
    if settings.apptainer:
        return settings.apptainer
    return path_probe.program(_APPTAINER, settings.probe_time)


def wanted_binds(settings: ResolverSettings) -> list[str]:
    """What jobs are to see in their containers beside the image, as Apptainer's --bind takes it.

    The repository's parent directory is one of them, as ``/cvmfs``.
    """
    parent = os.path.dirname(settings.repository)
    return [*settings.binds, _CVMFS if parent == _CVMFS else f"{parent}:{_CVMFS}:ro"]


def binds(settings: ResolverSettings) -> list[str]:
    """Of :func:`wanted_binds`, those that exist here now."""
    wanted = wanted_binds(settings)
    there = path_probe.existing([bind.partition(":")[0] for bind in wanted], settings.probe_time)
    return [bind for bind in wanted if bind.partition(":")[0] in there]


def _image(settings: ResolverSettings, form: str, now: float, notes: Warnings) -> str | None:
    """A path to try containers with in this form; None where there is none. A failure is noted, not raised."""
    probe = settings.probe or settings.default_image
    if not probe:
        return None
    if os.path.isabs(probe) and path_probe.existing([probe], settings.probe_time, os.path.isfile):
        return probe if form == SIF else None
    from publisher.resolver.select.resolve import resolve  # noqa: PLC0415 - not where the image is a file

    wanted = copy.copy(settings)
    wanted.form, wanted.never = form, "none"
    wanted.facts = None  # what was measured before must not decide what is measured now
    try:
        return resolve(probe, wanted, now, notes).path
    except ResolverUsageError:
        raise
    except ExpectedError as error:
        notes.add(f"{probe} as a {form}: {error}")
        return None


def _level() -> int:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return defaults.level(file.read())
    except OSError:
        return 0


def clock(seconds: int) -> str:
    """A time for people: UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
