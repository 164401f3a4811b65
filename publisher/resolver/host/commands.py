"""The commands that set up a host: ``pilot-start``, ``startd-cron`` and ``condor-config``."""

from __future__ import annotations

import os
import random
import sys
import time

from publisher.contract.errors import ExpectedError
from publisher.resolver.cache import start_failures
from publisher.resolver.config.settings import OSPOOL
from publisher.resolver.errors import CacheError, HostError, ResolverUsageError
from publisher.resolver.host import all_users, cache_admin, clock, condor_config, pilot
from publisher.resolver.host.glidein import Glidein
from publisher.resolver.select import facts, resolve
from publisher.resolver.system import classad, log, stop_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from publisher.resolver.config.commandline import CommandLine
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.host.pilot import HostMeasurement
    from publisher.resolver.system.notes import Warnings

    Attributes = dict[str, Union[str, int, bool]]

_ACCESS_POINT, _FAILURES = "access-point", "failures"


def pilot_start(line: CommandLine, notes: Warnings) -> str:
    """Run ``pilot-start``: measure the host, draw the default image, write the facts; return the pilot's configuration."""
    settings, flags = _glidein_settings(line, notes)
    default_image = pilot.draw_default_image(settings, os.environ, random.random())  # noqa: S311 - not a secret
    settings.default_image = default_image
    _ask_all_places(settings, notes)
    measurement = _measure(settings, notes)
    comments = [f"# Measured by 'image-resolver pilot-start' at {pilot.format_time(measurement.when)}, valid for this pilot."]
    comments += [f"# {text}" for text in (*measurement.problems(), *notes.all)]
    drawn = {"ImageResolverDefaultImage": default_image} if default_image else {}
    attributes: Attributes = {**measurement.attributes(), **drawn}
    binds = pilot.existing_binds(settings)
    forbidden = settings.profile == OSPOOL and Glidein(os.environ).forbids_pid_namespaces()
    if default_image:
        flags = {"default-image": [default_image], **flags}
    text = condor_config.pilot(binds, _format(attributes), flags, has_default=bool(default_image), pid_namespaces=not forbidden)
    return "\n".join([*comments, text])


def _glidein_settings(line: CommandLine, notes: Warnings) -> tuple[ResolverSettings, dict[str, list[str]]]:
    """Return the settings with those of the glidein that this runs in, and these alone; none in the profile ``plain``."""
    settings = line.settings(os.environ)
    if settings.profile != OSPOOL:
        return settings, {}
    found = Glidein(os.environ).flags(settings, notes)
    flags = {name: values for name, values in found.items() if name not in line.flags}
    line.flags.update(flags)
    return line.settings(os.environ), flags


def _ask_all_places(settings: ResolverSettings, notes: Warnings) -> None:
    """Remember the highest serial of all places, since an empty cache believes any; note what is wrong, and a wrong clock."""
    now = time.time()
    try:
        resolve.load_manifest(settings, now, notes)
    except ResolverUsageError:
        raise
    except ExpectedError as error:
        notes.warn(str(error))
    for line in clock.problems(settings, now):
        notes.warn(line)


def startd_cron(line: CommandLine, notes: Warnings) -> str:
    """Run ``startd-cron``: measure the host, write the facts; return machine attributes, with the cache's statistics.

    With ``failures`` measure nothing, and return what jobs reported since a probe last started an image.
    """
    settings = line.settings(os.environ)
    if line.words[1:] == [_FAILURES]:
        return "\n".join(_format(_start_failures(settings)))
    measurement = _measure(settings, notes)
    statistics: Attributes = {}
    if settings.cache:
        try:
            found = cache_admin.run(["statistics"], settings, notes)
            statistics = {name: value if isinstance(value, str) else round(value) for name, value in found.items()}
        except CacheError as error:
            notes.add(str(error))
    if measurement.is_usable() is False and settings.stop_file and _start_failures(settings)["ImageResolverFailing"]:
        stop_file.request(settings.stop_file, f"no image starts on this host: {'; '.join(measurement.problems())}")
    problems = "; ".join([*measurement.problems(), *notes.all])
    return "\n".join(_format({**measurement.attributes(), **statistics, "ImageResolverProblems": problems}))


def _start_failures(settings: ResolverSettings) -> Attributes:
    """Return the machine attributes about images that failed to start."""
    now = time.time()
    reasons = start_failures.recent(all_users.caches(settings), facts.read(settings.facts, now).started, now)
    failing = 0 < settings.max_failures <= len(reasons)
    last = {"ImageResolverLastFailure": reasons[-1]} if reasons else {}
    stopped = {"ImageResolverStopped": stop_file.exists(settings.stop_file)} if settings.stop_file else {}
    return {"ImageResolverFailures": len(reasons), "ImageResolverFailing": failing, **last, **stopped}


def condor_configuration(line: CommandLine, notes: Warnings) -> str:
    """Run ``condor-config``: return the configuration of an execution point, or of an access point for ``access-point``.

    Raises:
        ResolverUsageError: no configuration file was given.
        HostError: this host has no Apptainer.
    """
    words, (settings, _) = line.words[1:], _glidein_settings(line, notes)
    if words == [_ACCESS_POINT]:
        return condor_config.access_point(settings)
    config = line.config or os.environ.get("IMAGE_RESOLVER_CONFIG")
    if words or not config:
        raise ResolverUsageError(
            "usage: image-resolver condor-config [access-point] --config FILE", hint="the hook reads its settings from that file"
        )
    apptainer = pilot.find_apptainer(settings)
    if apptainer is None:
        raise HostError("there is no Apptainer on this host", hint="--apptainer FILE sets where HTCondor will find it")
    program, config = os.path.abspath(sys.argv[0]), os.path.abspath(config)
    return condor_config.execution_point(
        settings, apptainer=apptainer, binds=pilot.wanted_binds(settings), program=program, config=config
    )


def _measure(settings: ResolverSettings, notes: Warnings) -> HostMeasurement:
    """Measure the host and write the facts for the hook."""
    measurement = pilot.measure(settings, time.time(), notes)
    for problem in measurement.problems():
        log.info("measured: %s", problem)
    if settings.facts:
        try:
            earlier = facts.read(settings.facts, measurement.when)
            started = measurement.when if measurement.has_started() else earlier.started
            facts.write(settings.facts, measurement.facts(), measurement.when, started)
        except OSError as error:
            notes.add(f"cannot write {settings.facts}: {error.strerror}")
    return measurement


def _format(attributes: Attributes) -> list[str]:
    """Return a line ``Name = value`` for each attribute."""
    return classad.serialize(attributes).decode("utf-8", "replace").splitlines()
