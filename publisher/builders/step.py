"""The build step, as a job of a pool runs it: the trial, the layers from their registry, the build, and the report.

It runs as an ordinary user in the job's directory, with an order beside it, and knows no key and no credentials, and no token but
that for its own upload. Its files are the report, the SIF and the file index; they exist in any case, because HTCondor holds a
job whose output is missing.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.build.builder import BuildRequest
from publisher.build.local import LocalBuilder
from publisher.build.squash.find import find_squasher
from publisher.build.testrun import TestRunner
from publisher.builders.orders import BUILT, FAILED, FILE_INDEX, ORDER, REPORT, SIF, UNSUITABLE, BuildOrder, JobReport
from publisher.builders.trial import trial_digest
from publisher.contract import reference
from publisher.errors import PublisherError
from publisher.net.retry import RetryPolicy
from publisher.publish.fetch import fetch_layers
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.registry.transport import RegistryTimeouts
from publisher.system.confinement import ResourceLimits

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.build.squash.programs import Squasher
    from publisher.builders.orders import StepOptions
    from publisher.state.built import BuiltImage
    from publisher.targets.origins.job_uploads import UploadGrant

_log = logging.getLogger(__name__)


def _is_root() -> bool:
    return os.geteuid() == 0


def main(directory: Path | None = None) -> int:
    """Carry out the order in a directory (the current one) and write what the job returns.

    Returns:
        The exit status, for people who look at the queue: 0 built, 1 failed, 2 unsuitable. The publisher reads the report.
    """
    here = Path.cwd() if directory is None else directory
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in (REPORT, SIF, FILE_INDEX):
        (here / name).touch()
    order = BuildOrder.parse((here / ORDER).read_bytes())
    (here / ORDER).unlink()  # its token is not for the image's code, which is run
    report = carry_out(order, here)
    _log.info("the build step ends: %s %s", report.outcome, report.reason)
    (here / REPORT).write_bytes(report.to_bytes())
    return {BUILT: 0, FAILED: 1}.get(report.outcome, 2)


def carry_out(order: BuildOrder, here: Path, trial: Callable[[Squasher, Path], str] | None = None) -> JobReport:
    """Build what an order asks for, in a directory; return the report.

    Args:
        order: the order.
        here: the job's directory, which gets the SIF and the file index.
        trial: returns the digest of this machine's trial SIF; None for :func:`publisher.builders.trial.trial_digest`.
    """
    scratch = here / "scratch"
    scratch.mkdir(exist_ok=True)
    try:
        if _is_root():
            return JobReport(UNSUITABLE, reason="its jobs run as root")
        squasher = find_squasher(order.options.compression, level=order.options.level)
        made = (trial or trial_digest)(squasher, scratch)
        if made != order.trial:
            programs = ", ".join(f"{name} {version}" for name, version in squasher.versions.items())
            return JobReport(UNSUITABLE, reason=f"its programs give other bytes of the trial image ({programs}): {made}")
        builder = _make_builder(order, squasher, scratch)
    except PublisherError as error:
        return JobReport(UNSUITABLE, reason=f"it cannot build the trial image: {error.reason}")
    try:
        request = asyncio.run(_fetch(order, scratch))
        build = builder.build(request, lambda step, *_: _log.debug("%s", step))
    except PublisherError as error:
        return JobReport.of_error(error)
    build.file_index.replace(here / FILE_INDEX)
    report = JobReport.of_build(replace(build, file_index=here / FILE_INDEX))
    if order.upload is not None:
        report = _upload(order.upload, build, order.options, report)
    if not report.uploaded:
        build.sif.replace(here / SIF)
    return report


def _upload(grant: UploadGrant, build: BuiltImage, options: StepOptions, report: JobReport) -> JobReport:
    """Upload a SIF and return the report that says so; where that is not possible, file transfer returns it."""
    from publisher.builders.upload import upload  # noqa: PLC0415 - most jobs upload nothing

    problem = upload(grant, build, options)
    if problem is not None:
        _log.info("the SIF cannot be uploaded: %s", problem)
    return replace(report, uploaded=problem is None, upload_problem=problem or "")


def _make_builder(order: BuildOrder, squasher: Squasher, scratch: Path) -> LocalBuilder:
    options = order.options
    limits = ResourceLimits(memory=options.test_memory, cpu=max(1, int(options.test_deadline / 4)))
    tester = TestRunner("nobody", scratch, options.test_deadline, limits=limits)
    deadline = options.build_deadline
    return LocalBuilder(scratch / "builds", squasher, tester, scratch=scratch, limits=options.limits, deadline=deadline)


async def _fetch(order: BuildOrder, scratch: Path) -> BuildRequest:
    """Return the request for the local builder, with the layers on this machine.

    Raises:
        RegistryError, BlobError, LayerError, SpaceError: as :func:`publisher.publish.fetch.fetch_layers`.
    """
    options, source = order.options, reference.parse(order.reference)
    client = RegistryClient(
        insecure=frozenset(options.insecure),
        mirrors=options.mirrors,
        timeouts=RegistryTimeouts(small=options.request_deadline, slowest=options.slowest_fetch),
        retry=RetryPolicy(max_retry_after=options.longest_pause),
        networks=tuple(map(ipaddress.ip_network, options.networks)),
    )
    store = BlobStore(scratch / "blobs", limits=options.limits)
    async with client:
        layers, indexes = await fetch_layers(client, store, order.image, source, functools.partial(_log.debug, "%d of %d bytes"))
    return BuildRequest(order.name, order.image, layers, indexes)
