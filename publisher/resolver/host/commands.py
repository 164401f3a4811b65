"""The commands that set a host up: ``pilot-start``, ``startd-cron`` and ``condor-config``."""

from __future__ import annotations

import os
import random
import sys
import time

from publisher.resolver.errors import CacheError, HostError, ResolverUsageError
from publisher.resolver.hook import classad as ads
from publisher.resolver.host import cache_admin, condor_config, pilot
from publisher.resolver.select import facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from publisher.resolver.config.commandline import CommandLine
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.host.pilot import HostMeasurement
    from publisher.resolver.system.notes import Warnings

    Attributes = dict[str, Union[str, int, bool]]

_ACCESS_POINT = "access-point"


def start(line: CommandLine, notes: Warnings) -> str:
    """``pilot-start``: measure, draw the default image, write the facts; HTCondor's configuration of this pilot."""
    settings = line.settings(os.environ)
    chosen = pilot.default_image(settings, os.environ, random.random())  # noqa: S311 - which image, not a secret
    settings.default_image = chosen
    found = _measured(settings, notes)
    said = [f"# Measured by 'image-resolver pilot-start' at {pilot.clock(found.when)}, for the time of this pilot."]
    said += [f"# {text}" for text in (*found.problems(), *notes.all)]
    attributes: Attributes = {**found.attributes(), **({"ImageResolverDefaultImage": chosen} if chosen else {})}
    return "\n".join([*said, condor_config.pilot(chosen, pilot.binds(settings), _lines(attributes))])


def cron(line: CommandLine, notes: Warnings) -> str:
    """``startd-cron``: measure, write the facts; the attributes of the machine, with the cache in numbers."""
    settings = line.settings(os.environ)
    found = _measured(settings, notes)
    cache: Attributes = {}
    if settings.cache:
        try:
            cache = {name: round(value) for name, value in cache_admin.run(["statistics"], settings, notes).items()}
        except CacheError as error:
            notes.add(str(error))
    problems = [*found.problems(), *notes.all]
    return "\n".join(_lines({**found.attributes(), **cache, "ImageResolverProblems": "; ".join(problems)}))


def configuration(line: CommandLine, notes: Warnings) -> str:  # noqa: ARG001 - every command has these arguments
    """``condor-config``: an execution point's configuration; ``condor-config access-point``: an access point's.

    Raises:
        ResolverUsageError: no configuration file was given.
        HostError: there is no Apptainer.
    """
    words, settings = line.words[1:], line.settings(os.environ)
    if words == [_ACCESS_POINT]:
        return condor_config.access_point(settings)
    config = line.config or os.environ.get("IMAGE_RESOLVER_CONFIG")
    if words or not config:
        raise ResolverUsageError(
            "usage: image-resolver condor-config [access-point] --config FILE", hint="the hook reads that file"
        )
    apptainer = pilot.apptainer(settings)
    if apptainer is None:
        raise HostError("no Apptainer on this host", hint="--apptainer FILE, where HTCondor will find it")
    program, config = os.path.abspath(sys.argv[0]), os.path.abspath(config)
    return condor_config.execution_point(
        settings, apptainer=apptainer, binds=pilot.wanted_binds(settings), program=program, config=config
    )


def _measured(settings: ResolverSettings, notes: Warnings) -> HostMeasurement:
    found = pilot.measure(settings, time.time(), notes)
    if settings.facts:
        try:
            facts.write(settings.facts, found.facts(), found.when)
        except OSError as error:
            notes.add(f"cannot write {settings.facts}: {error.strerror}")
    return found


def _lines(attributes: Attributes) -> list[str]:
    return ads.written(attributes).decode("utf-8", "replace").splitlines()
