"""Commands that look at what is published: status, diff, verify, origin. Only ``verify --repair`` changes something."""

from __future__ import annotations

import json
import logging
import random
import sys
import time
from typing import TYPE_CHECKING

import click

from publisher.cli.assembly.builder import open_builder
from publisher.cli.assembly.registry import make_intake
from publisher.cli.assembly.run import follow
from publisher.cli.assembly.targets import (
    find_record,
    load_authorization,
    load_snapshot,
    make_origin,
    make_repository,
    trusted_keys,
)
from publisher.cli.console import console
from publisher.cli.options import common, complete_names
from publisher.cli.session import open_publication
from publisher.errors import UsageError
from publisher.fileindex.difference import difference
from publisher.maintain import verify
from publisher.maintain.audit import audit_origin
from publisher.maintain.chunk_tables import replace_table
from publisher.maintain.lost_sifs import SifRestorer
from publisher.state.paths import DEFAULT_ARCHITECTURE
from publisher.targets import published_index
from publisher.targets.published_table import compare_sifs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from publisher.contract.records import Version
    from publisher.fileindex.format import IndexedFile
    from publisher.maintain.verify import VerifiedBuild
    from publisher.settings.settings import PublisherSettings
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Repository

_log = logging.getLogger(__name__)


@click.command("diff", short_help="Print the paths that differ between two builds.")
@click.argument("subject", metavar="NAME|DIGEST", shell_complete=complete_names)
@click.argument("other", metavar="[NAME|DIGEST]", required=False, shell_complete=complete_names)
@click.option("--arch", default=DEFAULT_ARCHITECTURE, show_default=True, help="Platform of a NAME.")
@click.option("--times", is_flag=True, help="Also compare modification times.")
@click.option("--sif", "sifs", is_flag=True, help="Print how large the difference of the SIFs is, and no paths.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per path.")
@common
def diff_command(
    subject: str, other: str | None, *, arch: str, times: bool, sifs: bool, as_json: bool, settings: PublisherSettings
) -> None:
    """Print the paths that differ between two published builds; with one NAME, between its previous and its current build.

    Compares content, as recorded in the builds' file indexes: + added, - removed, ~ changed. It also says how many bytes of the
    second SIF an execution point needs that has the first one, by their chunk tables.

    Example: publisher diff htc/rocky:9
    """
    before, after = _find_builds(load_snapshot(settings), subject, other, arch)
    if sifs:
        _show_sif_difference(settings, before, after, as_json=as_json)
        return
    count, repository = 0, make_repository(settings)
    indexes = (_file_index(repository, version) for version in (before, after))
    for count, change in enumerate(difference(*indexes, times=times), 1):  # noqa: B007
        click.echo(json.dumps(change.to_json()) if as_json else str(change))
    console.tell(f"{count} path(s) differ")
    if before.sif is not None and after.sif is not None and before.sif.chunks is not None and after.sif.chunks is not None:
        console.tell(f"of the SIFs differ {compare_sifs(make_origin(settings), before.sif, after.sif)}")


@click.command("verify", short_help="Verify what is published against the manifest.")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)
@click.option("--sample", type=click.IntRange(min=1), metavar="NUMBER", help="Verify only so many builds, chosen at random.")
@click.option("--repair", is_flag=True, help="Restore SIFs that the origin has lost or damaged, by building their images again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, at the end.")
@common
def verify_command(
    names: tuple[str, ...], sample: int | None, *, repair: bool, as_json: bool, settings: PublisherSettings
) -> None:
    """Verify that what is published matches the manifest: sandboxes, SIFs, links and the manifest itself; or the builds of NAMEs.

    Reads everything and prints a line for each problem. With --sample, the origin is still asked for the names of all SIFs.
    Changes nothing, except with --repair.

    Exit codes: 0 no problems, or all are repaired, 1 there are problems.

    Example: publisher verify --sample 20
    """
    problems = []
    for problem in (_repair if repair else _problems)(settings, names, sample):
        problems.append(problem)
        if not as_json:
            console.show(None, [problem], as_json=False)
    if as_json:
        console.show({"problems": problems}, [], as_json=True)
    console.tell(f"{len(problems)} problem(s)")
    sys.exit(1 if problems else 0)


@click.command("origin", short_help="Compare the origin's objects with the manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def origin_command(as_json: bool, settings: PublisherSettings) -> None:
    """Compare the origin's objects with the manifest: how many are in place, which are missing, which no manifest names.

    Lists objects without reading them, and changes nothing. publisher verify also reads them.

    Exit codes: 0 nothing is missing, 1 something is missing.
    """
    result = audit_origin(make_origin(settings), load_snapshot(settings), make_repository(settings).read)
    console.show(result.to_json(), result.lines(), as_json)
    sys.exit(1 if result.missing else 0)


def _repair(settings: PublisherSettings, names: Sequence[str], sample: int | None) -> Iterator[str]:
    """Restore lost and damaged SIFs and chunk tables, bring the origin's manifest up to date, and yield the problems that stay.

    Raises:
        UsageError, StateDirectoryError, RepositoryError, OriginError, PublishedManifestError: as
            :func:`publisher.cli.session.open_publication`.
    """
    with (
        open_publication(settings) as (publication, snapshot),
        console.open_display() as display,
        make_intake(settings, display) as intake,
        open_builder(settings) as builder,
    ):
        publication.resend_manifest(snapshot)
        restorer = SifRestorer(publication, snapshot, intake, builder, display)

        def restore(build: VerifiedBuild) -> None:
            restorer.restore(build)
            display.say(f"restored: the SIF of {build.name} {build.platform} {build.version.digest}")

        def restore_table(build: VerifiedBuild) -> None:
            if build.version.sif is not None:
                restorer.snapshot = replace_table(publication, restorer.snapshot, build.version.sif)
            display.say(f"restored: the chunk table of {build.name} {build.platform} {build.version.digest}")

        yield from _problems(settings, names, sample, verify.Repairs(restore, restore_table))


def _problems(
    settings: PublisherSettings, names: Sequence[str], sample: int | None, repairs: verify.Repairs | None = None
) -> Iterator[str]:
    """Yield a line for each difference between the manifest and what is published.

    Args:
        settings: the settings.
        names: names of which the builds are verified; if empty, all builds, the links and the manifest are verified.
        sample: number of builds to verify, chosen at random; None for all.
        repairs: restore SIFs and their tables; None to change nothing.

    Raises:
        UsageError: nothing is published under a name.
    """
    repository, origin, snapshot = make_repository(settings), make_origin(settings), load_snapshot(settings)
    for name in names:
        find_record(snapshot, name)
    builds = verify.select_builds(snapshot, names)
    missing: list[VerifiedBuild] = []
    if sample is not None:
        chosen = random.sample(builds, min(sample, len(builds)))
        missing = verify.select_missing(origin, (build for build in builds if build not in chosen))
        builds = chosen
    if not names:
        _log.info("verifying the manifest and the links")
        trusted = trusted_keys(settings)
        if trusted is None:
            console.tell("the manifest's signature is not verified: no public key can be read (set --key)", logging.WARNING)
        yield from verify.verify_manifest(repository, origin, time.time(), trusted)
        yield from verify.verify_authorization(repository, load_authorization(settings, repository), time.time())
        yield from verify.verify_links(repository, snapshot)
        yield from verify.verify_catalogs(repository, snapshot)
    _log.info("verifying %d build(s)", len(builds))
    for build in builds:
        yield from verify.verify_build(repository, origin, build, repairs)
    for build in missing:
        yield from verify.verify_sif(origin, build, repairs)
    for line in [] if repairs is None else follow(origin, snapshot, deep=True):
        console.tell(line)
    yield from verify.verify_followers(origin, builds, deep=True)


def _show_sif_difference(settings: PublisherSettings, before: Version, after: Version, *, as_json: bool) -> None:
    """Print what a host with the SIF of one build needs for that of another.

    Raises:
        UsageError: a build has no SIF, or its SIF no chunk table.
        OriginError: a chunk table is missing or damaged.
    """
    found = compare_sifs(make_origin(settings), before.sif, after.sif)
    if found is None:
        without = before if before.sif is None or before.sif.chunks is None else after
        raise UsageError(
            f"the build {without.digest} has no SIF with a chunk table",
            hint="each whole sync makes the tables of chunk_tables_per_run SIFs",
        )
    console.show({"size": found.size, "needed": found.needed, "ranges": found.ranges}, [str(found)], as_json)


def _find_builds(snapshot: Snapshot, subject: str, other: str | None, arch: str) -> tuple[Version, Version]:
    """Return two builds to compare; without ``other``, the previous and the current build of a name.

    Args:
        snapshot: the published state.
        subject: a CVMFS name, or the digest of a platform manifest.
        other: the same, for the second build; None for the current build of ``subject``.
        arch: platform of a name.

    Raises:
        UsageError: a build does not exist.
    """
    if other is not None:
        return _find_version(snapshot, subject, arch), _find_version(snapshot, other, arch)
    versions = snapshot.versions(subject, arch)
    if len(versions) == 1:
        raise UsageError(f"{subject} has only one build", hint="give a second name or digest to compare it with")
    return versions[1], versions[0]


def _find_version(snapshot: Snapshot, subject: str, arch: str) -> Version:
    """Return the current version of a name, or the version with a digest."""
    if not subject.startswith("sha256:"):
        return snapshot.versions(subject, arch)[0]
    versions = (version for record in snapshot.records.values() for _, version in record.versions())
    found = next((version for version in versions if version.digest == subject), None)
    if found is None:
        raise UsageError(
            f"no build with the digest {subject} is published",
            hint="give the digest of a platform manifest, as publisher status shows it",
        )
    return found


def _file_index(repository: Repository, version: Version) -> Iterator[IndexedFile]:
    """Return the file index of a build; raise UsageError or PublishedManifestError if it is not published, or damaged."""
    if version.file_index is None:
        raise UsageError(f"the file index of {version.digest} is not published")
    published_index.check(repository, version)
    return published_index.lines(repository, version)


COMMANDS = (diff_command, verify_command, origin_command)
