"""Assembles the builder that builds in an HTCondor pool. Imported only where it is asked for."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

from publisher.build.squash.find import find_squasher
from publisher.builders.bundle import architecture, write_bundle
from publisher.builders.condor import CondorBuilder
from publisher.builders.jobs import longest_run
from publisher.builders.machines import MachineMemory
from publisher.builders.orders import StepOptions
from publisher.builders.pool_jobs import PoolOptions
from publisher.builders.sample import open_sample
from publisher.builders.schedd import ScheddQueue, check_bindings
from publisher.builders.trial import trial_digest
from publisher.errors import StateDirectoryError, UsageError
from publisher.system import accounts
from publisher.system.durable import failures

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.build.local import LocalBuilder
    from publisher.publish.intake import Intake
    from publisher.settings.settings import PublisherSettings
    from publisher.system.command import UnixAccount
    from publisher.targets.origins.base import Origin
    from publisher.targets.origins.job_uploads import JobUploads


def make_pool_builder(
    settings: PublisherSettings, local: LocalBuilder, intake: Intake, origin: Origin, build_account: UnixAccount | None
) -> CondorBuilder:
    """Return the builder of the pool whose access point this host is; the caller holds the lock of the state directory.

    Args:
        settings: the settings.
        local: the builder of this host.
        intake: fetches the layers of what is built on this host.
        origin: where the SIFs of the run are stored.
        build_account: the account of the programs of a build, None if this process is not root.

    Raises:
        UsageError: HTCondor's bindings are missing, or the jobs' account cannot enter their directory.
        StateDirectoryError, SpaceError: the directory cannot be used.
        BuildError: this host cannot build the trial image.
    """
    check_bindings()
    account = build_account
    if account is not None and settings.condor_account is not None:
        account = accounts.find_account(settings.condor_account, "build jobs belong to", "condor_account")
    directory = _make_directory(settings.condor_directory or settings.state / "jobs", account)
    scratch = settings.state / "tmp"
    options = PoolOptions(
        deployment=_deployment(settings),
        program=write_bundle(directory, settings.condor_python),
        architecture=architecture(),
        step=_step_options(settings),
        trial=trial_digest(
            find_squasher(settings.compression, build_account, level=settings.compression_level),
            scratch,
            account=build_account,
            enterable=accounts.first_enterable(build_account, (scratch, accounts.WORLD_WRITABLE)),
        ),
        jobs=settings.condor_jobs,
        requirements=settings.condor_requirements,
        wait=settings.condor_wait,
        account=account,
        checks=os.cpu_count() or 1,
    )
    return CondorBuilder(
        local,
        ScheddQueue(options.deployment, account),
        directory,
        options,
        with_layers=intake.with_layers,
        machines=MachineMemory(settings.state / "machines.json", time.time),
        sample=open_sample(settings.state / "sample-secret", settings.condor_sample),
        uploads=job_uploads(settings, origin),
    )


def job_uploads(settings: PublisherSettings, origin: Origin) -> JobUploads | None:
    """Return where jobs upload their SIFs, with tokens for as long as they may wait and run; None for file transfer."""
    if settings.token_key is None and settings.condor_token_command is None:
        return None
    from publisher.cli.assembly.pelican import make_job_uploads  # noqa: PLC0415 - half of a command's start

    return make_job_uploads(settings, origin, int(settings.condor_wait) + longest_run(settings.build_deadline))


def _make_directory(directory: Path, account: UnixAccount | None) -> Path:
    with failures(StateDirectoryError, f"{directory} cannot be made"):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    if accounts.first_enterable(account, (directory,)) is None:
        hint = "set condor_directory to a directory that it can enter"
        raise UsageError(f"the account that build jobs belong to cannot enter {directory}", hint=hint)
    return directory


def _deployment(settings: PublisherSettings) -> str:
    """Return the name by which the jobs of this publisher are known; it is another one for other targets or another state."""
    targets = settings.targets()
    identity = f"{targets.repository}\n{targets.origin}\n{settings.state}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _step_options(settings: PublisherSettings) -> StepOptions:
    return StepOptions(
        compression=settings.compression,
        level=settings.compression_level,
        limits=settings.limits,
        build_deadline=settings.build_deadline,
        test_deadline=settings.test_deadline,
        test_memory=settings.test_memory,
        insecure=tuple(sorted(settings.insecure_registries)),
        networks=tuple(map(str, settings.allowed_networks)),
        mirrors=dict(settings.mirrors),
        request_deadline=settings.request_deadline,
        slowest_fetch=settings.slowest_fetch,
        longest_pause=settings.longest_pause,
    )
