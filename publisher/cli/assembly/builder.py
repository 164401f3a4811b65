"""Assembles the builder of this host from the settings."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from publisher.build.local import LocalBuilder
from publisher.build.parallel import ParallelBuilder, default_builds, lock_builds
from publisher.build.squash.find import find_squasher
from publisher.build.testrun import TestRunner
from publisher.cli.assembly.targets import secret_files
from publisher.cli.state_directory import empty_scratch
from publisher.system import accounts
from publisher.system.confinement import ResourceLimits
from publisher.system.memory import available_memory
from publisher.system.shield import Shield

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.build.builder import Builder
    from publisher.publish.intake import Intake
    from publisher.settings.settings import PublisherSettings
    from publisher.system.command import UnixAccount
    from publisher.targets.origins.base import Origin

_BUILD_ACCOUNT = "image-build"
"""The account that ``ci/install-system`` makes for the programs of a build."""


@contextlib.contextmanager
def open_builder(settings: PublisherSettings) -> Iterator[ParallelBuilder]:
    """Yield the builder of this host, with an empty directory for temporary files; the caller holds the lock of the state.

    Raises:
        PublisherError: a program or an account that it needs is missing, or processes of a killed run do not end.
    """
    Shield(secret_files(settings)).check()  # before hours of work that could not be unpacked
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(lock_builds(settings.state / "builds"))
        scratch, account = empty_scratch(settings.state), build_account(settings)
        tester = TestRunner(
            settings.test_account,
            scratch,
            settings.test_deadline,
            limits=ResourceLimits(memory=settings.test_memory, cpu=max(1, int(settings.test_deadline / 4))),
        )
        local = LocalBuilder(
            settings.state / "builds",
            find_squasher(settings.compression, account, level=settings.compression_level),
            tester,
            account=account,
            scratch=accounts.first_enterable(account, (scratch, accounts.WORLD_WRITABLE)),
            limits=settings.limits,
            deadline=settings.build_deadline,
            accepted=settings.accepted_tools,
        )
        builder = ParallelBuilder(local, settings.builds or _default_builds(settings), lock)
        stack.callback(builder.close)
        yield builder


def choose_builder(settings: PublisherSettings, here: ParallelBuilder, intake: Intake, origin: Origin) -> Builder:
    """Return the builder of a run: that of this host, or that of the pool, which makes use of it.

    Raises:
        PublisherError: as :func:`publisher.cli.assembly.pool.make_pool_builder`.
    """
    if settings.builder == "local":
        return here
    from publisher.cli.assembly.pool import make_pool_builder  # noqa: PLC0415 - most hosts build by themselves

    return make_pool_builder(settings, here.local, intake, origin, build_account(settings))


def _default_builds(settings: PublisherSettings) -> int:
    return default_builds(
        cores=len(os.sched_getaffinity(0)),
        memory=available_memory(),
        disk=shutil.disk_usage(settings.state).free,
        test_memory=settings.test_memory,
    )


def build_account(settings: PublisherSettings) -> UnixAccount | None:
    """Return the account that the programs of a build run as, None if this process is not root.

    Raises:
        UsageError: the account does not exist, or is root.
    """
    if os.geteuid() != 0:
        return None
    default = _BUILD_ACCOUNT if accounts.exists(_BUILD_ACCOUNT) else settings.test_account
    return accounts.find_account(settings.build_account or default, "images are built as", "build_account")
