"""Measurements of what a host can do for containers, for HTCondor's configuration at a pilot's start and for its startd cron.

Each measurement has a timeout. The results are also written to the file of facts, which the hook reads for every job.
"""

from __future__ import annotations

import copy
import os
import time

from publisher.contract.errors import ExpectedError
from publisher.resolver.config.settings import OSPOOL, SANDBOX, SIF, UNPACKED
from publisher.resolver.errors import ResolverUsageError
from publisher.resolver.host import default_image, probes
from publisher.resolver.host.default_image import ImageOffer
from publisher.resolver.host.glidein import Glidein
from publisher.resolver.host.probes import HostProbe
from publisher.resolver.select import capacity
from publisher.resolver.system import path_probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.system.notes import Warnings

_APPTAINER = ("apptainer", "singularity")
_CVMFS = "/cvmfs"
_OSPOOL_BINDS = ("/etc/hosts", "/etc/localtime", "/etc/OpenCL/vendors")


class HostMeasurement:
    """The results of all probes.

    Attributes:
        when: when they were run, seconds since the epoch.
        userns: user namespaces work.
        sif: SIFs run without being unpacked.
        overlay: directories can be bound to paths that an image does not have.
        cvmfs: the repository can be read.
    """

    __slots__ = ("cvmfs", "overlay", "sif", "userns", "when")

    def __init__(self, when: int, *, userns: HostProbe, sif: HostProbe, overlay: HostProbe, cvmfs: HostProbe) -> None:
        self.when = when
        self.userns = userns
        self.sif = sif
        self.overlay = overlay
        self.cvmfs = cvmfs

    def has_started(self) -> bool:
        """Return whether an image was started."""
        return bool(self.sif.works or self.overlay.works)

    def facts(self) -> dict[str, bool | None]:
        """Return ``fact -> True, False or None`` for the hook."""
        return {name: getattr(self, name).works for name in ("sif", "userns", "overlay", "cvmfs")}

    def problems(self) -> list[str]:
        """Return one line for everything that does not work or is unknown."""
        results = [("user namespaces", self.userns), ("SIFs", self.sif), ("bind mounts", self.overlay), ("CVMFS", self.cvmfs)]
        return [f"{name}: {probe.why}" for name, probe in results if probe.why]

    def attributes(self) -> dict[str, str | int | bool]:
        """Return attributes for the machine ad. Unknown results are left out, and so are undefined there."""
        probes_by_name = {"HasSIF": self.sif, "ImageResolverSIF": self.sif, "ImageResolverUserNamespaces": self.userns}
        probes_by_name |= {"ImageResolverBinds": self.overlay, "ImageResolverCVMFS": self.cvmfs}
        attributes: dict[str, str | int | bool] = {
            name: probe.works for name, probe in probes_by_name.items() if probe.works is not None
        }
        usable = self.is_usable()
        if usable is not None:
            attributes["ImageResolverUsable"] = usable
        return {**attributes, "ImageResolverMeasured": self.when}

    def is_usable(self) -> bool | None:
        """Return whether the host can run any image: True if one ran in either form, False if none can in either."""
        if self.has_started():
            return True
        no_sandbox = self.overlay.works is False or self.cvmfs.works is False
        return False if self.sif.works is False and no_sandbox else None


def measure(settings: ResolverSettings, now: float, notes: Warnings) -> HostMeasurement:
    """Run all probes. Problems with the image that they need are noted."""
    seconds = settings.probe_time
    apptainer = find_apptainer(settings)
    userns = probes.probe_user_namespaces(seconds)
    cvmfs = probes.probe_repository(settings.repository, seconds)
    if apptainer is None:
        missing = HostProbe(works=False, why=f"there is no {' or '.join(_APPTAINER)} on this host")
        return HostMeasurement(int(now), userns=userns, sif=missing, overlay=missing, cvmfs=cvmfs)
    sif = overlay = HostProbe(works=None, why="not measured, since there is no image to try (setting probe)")
    image = _find_image(settings, SIF, now, notes)
    if image:
        sif = probes.probe_start(apptainer, image, seconds)
    sandbox = _find_image(settings, SANDBOX, now, notes) if cvmfs.works or not sif.works else None
    if sif.works and sandbox:  # Apptainer works, so a sandbox that does not start is CVMFS's fault
        started = probes.probe_start(apptainer, sandbox, seconds)
        cvmfs = started if started.works else HostProbe(works=False, why=f"the sandbox {sandbox} does not start: {started.why}")
    if not sif.works:
        image = sandbox or (_find_image(settings, UNPACKED, now, notes) if sif.works is False and settings.unpacks else None)
    if image:
        overlay = probes.probe_binds(apptainer, image, seconds)
    return HostMeasurement(int(now), userns=userns, sif=sif, overlay=overlay, cvmfs=cvmfs)


def draw_default_image(settings: ResolverSettings, environ: Mapping[str, str], draw: float) -> str:
    """Return the image of this pilot's jobs that name none; empty if the site offers none for this host.

    Args:
        settings: with ``default-image``, or else ``default-images``.
        environ: CUDA_VISIBLE_DEVICES tells whether there is a GPU for jobs.
        draw: a random number, 0 <= draw < 1.

    Raises:
        ResolverUsageError: the setting ``default-images`` is not valid.
    """
    if settings.default_image:
        return settings.default_image
    return default_image.choose(map(ImageOffer, settings.default_images), capacity.read(settings.arch, environ), draw)


def find_apptainer(settings: ResolverSettings) -> str | None:
    """Return the path of Apptainer on this host, or None if it has none."""
    if settings.apptainer:
        return settings.apptainer
    return path_probe.find_program(_APPTAINER, settings.probe_time)


def wanted_binds(settings: ResolverSettings) -> list[str]:
    """Return what the jobs' containers shall show of the host, as Apptainer's ``--bind`` takes it.

    The parent directory of the repository is among them, as ``/cvmfs``.
    """
    parent = os.path.dirname(settings.repository)
    usual: list[str] = []
    if settings.profile == OSPOOL:
        usual = [*_OSPOOL_BINDS, *Glidein(os.environ).binds()]
    return [*settings.binds, *usual, _CVMFS if parent == _CVMFS else f"{parent}:{_CVMFS}:ro"]


def existing_binds(settings: ResolverSettings) -> list[str]:
    """Return those of :func:`wanted_binds` whose source exists on this host now."""
    wanted = wanted_binds(settings)
    existing = path_probe.existing_paths([bind.partition(":")[0] for bind in wanted], settings.probe_time)
    return [bind for bind in wanted if bind.partition(":")[0] in existing]


def format_time(seconds: int) -> str:
    """Return a time in ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _find_image(settings: ResolverSettings, form: str, now: float, notes: Warnings) -> str | None:
    """Return the path of an image in this form to run probes with, or None; a failure is noted and not raised."""
    probe = settings.probe or settings.default_image
    if not probe:
        return None
    if os.path.isabs(probe) and path_probe.existing_paths([probe], settings.probe_time, os.path.isfile):
        return probe if form == SIF else None
    from publisher.resolver.select.resolve import resolve  # noqa: PLC0415 - not if the image is a file

    changed = copy.copy(settings)
    changed.form, changed.never = form, "none"
    changed.facts = None  # an earlier measurement must not decide what is measured now
    try:
        return resolve(probe, changed, now, notes).path
    except ResolverUsageError:
        raise
    except ExpectedError as error:
        notes.add(f"the probe's image {probe} is not available as a {form}: {error}")
        return None
