"""Commands for looking after what is published, from ``gc`` to ``adopt``."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING

import click

from publisher.cli import assemble
from publisher.cli import render_status as statuses
from publisher.cli.options import common, show, tell
from publisher.errors import UsageError
from publisher.fileindex.difference import difference
from publisher.maintain import audit
from publisher.maintain import block as takedown
from publisher.maintain import verify as verifying
from publisher.maintain.adoption import undo as withdrawal
from publisher.maintain.adoption.apply import Adopter
from publisher.maintain.adoption.judge import LinkVerdict
from publisher.settings.settings import settings
from publisher.state import signing, transitions
from publisher.state.paths import DEFAULT_ARCHITECTURE
from publisher.system.progress import display
from publisher.targets import published_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from publisher.contract.manifest import Version
    from publisher.fileindex.difference import FileChange
    from publisher.fileindex.format import IndexedFile
    from publisher.publish.publication import Publication, PublishResult
    from publisher.settings.settings import PublisherSettings
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Repository

_AT_ONCE = (
    "run again when that has ended; or, at once, when you have stopped it: systemctl stop ospool-image-publisher, where its "
    "timer began it. What it has finished is not lost"
)


@click.command()
@click.argument("one", metavar="NAME|DIGEST")
@click.argument("other", metavar="[NAME|DIGEST]", required=False)
@click.option("--arch", default=DEFAULT_ARCHITECTURE, show_default=True, help="which platform of a name")
@click.option("--times", is_flag=True, help="modification times count as well")
@click.option("--json", "as_json", is_flag=True, help="for programs: an object for each path")
@common
def diff(one: str, other: str | None, arch: str, times: bool, as_json: bool, **flags: object) -> None:
    """Show which paths differ between two published builds; of a NAME alone, between the build before and the one now.

    Compared by content, from the builds' file indexes. + new, - gone, ~ different.
    """
    count = 0
    for count, change in enumerate(_diff(settings(flags, os.environ), one, other, arch, times=times), 1):  # noqa: B007
        click.echo(json.dumps(change.to_json()) if as_json else str(change))
    click.echo(f"{count} path(s) differ", err=True)


@click.command()
@click.option("--dry-run", is_flag=True, help="only say what would go; what a killed run left is finished all the same")
@common
def gc(dry_run: bool, **flags: object) -> None:
    """Remove what was superseded or gone for long enough, within the bounds of one run. Every whole sync does it too."""
    with _opened(flags) as (chosen, publication, snapshot):
        cleared = assemble.clear(chosen, publication, snapshot, dry=dry_run)
    click.echo("\n".join(cleared.lines or ["nothing to do"]))
    if cleared.error is not None:
        raise cleared.error


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--sample", type=click.IntRange(min=1), help="look at so many builds only, chosen by chance")
@common
def verify(names: tuple[str, ...], sample: int | None, **flags: object) -> None:
    """Compare what is published with the manifest: trees, SIFs, links, the manifest itself; all, or that of NAMEs.

    Exit codes: 0 all is well, 1 with a line for everything that is not.
    """
    count = 0
    for count, problem in enumerate(_problems(settings(flags, os.environ), names, sample), 1):  # noqa: B007
        click.echo(problem)
    click.echo(f"{count} problem(s)", err=True)
    sys.exit(1 if count else 0)


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="for programs")
@common
def status(name: str, as_json: bool, **flags: object) -> None:
    """Show what is published under NAME: source, versions, states, paths. No registry is asked."""
    snapshot = assemble.published(settings(flags, os.environ))
    record = assemble.record_of(snapshot, name)
    show(statuses.to_json(record), statuses.lines(record, snapshot.repository), as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="for programs")
@common
def origin(as_json: bool, **flags: object) -> None:
    """Show what the origin holds against what the manifest names: how much, what is missing, what nothing names.

    Exit codes: 0 nothing is missing, 1 something is.
    """
    chosen = settings(flags, os.environ)
    found = audit.take(assemble.origin(chosen), assemble.published(chosen), assemble.repository(chosen).read)
    show(found.to_json(), found.lines(), as_json)
    sys.exit(1 if found.missing else 0)


@click.command()
@click.argument("name")
@click.option("--undo", is_flag=True, help="back to what it was rolled back from")
@common
def rollback(name: str, undo: bool, **flags: object) -> None:
    """Let NAME mean the version before. Syncs leave it so, until --undo."""
    with _opened(flags) as (_, publication, snapshot):
        change = transitions.restored if undo else transitions.rolled_back
        record = change(assemble.record_of(snapshot, name), int(time.time()))
        published = publication.change(snapshot, {name: record})
    click.echo("\n".join(statuses.lines(record, published.snapshot.repository)))
    _raise_if_behind(published)


@click.command()
@click.argument("what", metavar="NAME|DIGEST")
@click.option("--reason", required=True, metavar="TEXT", help="for the users, who are told it")
@click.option("--history", is_flag=True, help="earlier versions of NAME too")
@common
def block(what: str, reason: str, history: bool, **flags: object) -> None:
    """Take down what NAME means now, or the platform manifest DIGEST: under all names that have it, whatever the list says."""
    with _opened(flags) as (_, publication, snapshot):
        found = takedown.take_down(snapshot, what, int(time.time()), reason, history=history)
        published = takedown.carry_out(publication, snapshot, found)
    for name in found.changed:
        click.echo(f"blocked: {name}")
    _raise_if_behind(published)


@click.command()
@click.argument("what", metavar="NAME|DIGEST")
@common
def unblock(what: str, **flags: object) -> None:
    """Lift what block did; the next sync publishes what the list says."""
    with _opened(flags) as (_, publication, snapshot):
        found = takedown.lift(snapshot, what)
        published = takedown.carry_out(publication, snapshot, found)
    for name in found.changed:
        click.echo(f"not blocked any more: {name}; the next sync publishes it again")
    _raise_if_behind(published)


@click.command()
@click.option("--apply", "apply", is_flag=True, help="write the manifest; without it, only say what would be taken in")
@click.option("--anyway", is_flag=True, help="take in, as not current, what no registry can be asked about now")
@click.option("--undo", is_flag=True, help="take it back: names leave the manifest, links show the older tool's sandboxes again")
@common
def adopt(apply: bool, anyway: bool, undo: bool, **flags: object) -> None:
    """Take over a repository that cvmfs-singularity-sync has laid out. Only the manifest is written, nothing built or removed.

    Exit codes: 0 all links are taken in, 1 registries could not be asked about some; run it again.
    """
    if undo and anyway:
        raise UsageError("--undo asks no registry, and takes nothing in: leave out --anyway")
    if undo:
        _give_back(flags, apply=apply)
        return
    chosen = settings(flags, os.environ)
    listed = assemble.listed(chosen)
    with contextlib.ExitStack() as stack:
        if apply:
            _, publication, snapshot = stack.enter_context(_opened(flags))
        else:
            publication, snapshot = None, assemble.published(chosen)
        intake = stack.enter_context(assemble.intake(chosen, stack.enter_context(display())))
        entries, unlisted = assemble.entries_of(listed, (), intake)
        takeover = Adopter(assemble.repository(chosen), intake, entries, unlisted, clock=time.time, anyway=anyway)
        found = takeover.run(snapshot, publication)
    click.echo("\n".join([*found.lines, f"{'taken in' if apply else 'would be taken in (--apply does it)'}: {found.total}"]))
    sys.exit(1 if found.counts[LinkVerdict.UNKNOWN] and not anyway else 0)


def _give_back(flags: dict[str, object], *, apply: bool) -> None:
    """Take an adoption back, or say what that would do."""
    with contextlib.ExitStack() as stack:
        if apply:
            _, publication, snapshot = stack.enter_context(_opened(flags))
            there = publication.repository
        else:
            chosen = settings(flags, os.environ)
            publication, snapshot, there = None, assemble.published(chosen), assemble.repository(chosen)
        found = withdrawal.withdrawal(snapshot, there.links())
        published = None if publication is None else withdrawal.carry_out(publication, found)
    *lines, total = found.lines
    click.echo("\n".join([*lines, f"{'taken back' if apply else 'would be taken back (--apply does it)'}: {total}"]))
    if published is not None:
        _raise_if_behind(published)


@contextlib.contextmanager
def _opened(flags: dict[str, object]) -> Iterator[tuple[PublisherSettings, Publication, Snapshot]]:
    """The publication, with its lock held and what killed runs left mended; and what is published."""
    chosen = settings(flags, os.environ)
    publication = assemble.publication(chosen)
    with assemble.locked(chosen.state, _AT_ONCE):
        snapshot, done = publication.open()
        for line in done:
            tell(line)
        try:
            yield chosen, publication, snapshot
        finally:
            for line in publication.repository.noticed():
                tell(line)


def _raise_if_behind(published: PublishResult) -> None:
    """What is published in the repository, and not yet in the origin, is not all well."""
    if published.behind is not None:
        raise published.behind


def _problems(settings: PublisherSettings, names: Sequence[str], sample: int | None) -> Iterator[str]:
    """A line for everything published that is not as the manifest says: all of it, or what is ``names``.

    Args:
        settings: say where repository and origin are.
        names: of what is looked at; all where none is named, and links and manifest then too.
        sample: how many builds are looked at, by chance; all when None.

    Raises:
        UsageError: nothing is published under a name.
    """
    there, origin, snapshot = assemble.repository(settings), assemble.origin(settings), assemble.published(settings)
    for name in names:
        assemble.record_of(snapshot, name)
    builds = verifying.builds(snapshot, names)
    if sample is not None:
        builds = random.sample(builds, min(sample, len(builds)))
    if not names:
        trusted = signing.trusted(settings.key, settings.trusted_keys)
        if trusted is None:
            tell("the manifest's signature was not checked: neither half of the key can be read (--key)")
        yield from verifying.verify_manifest(there, origin, time.time(), trusted)
        yield from verifying.verify_links(there, snapshot)
        yield from verifying.verify_catalogs(there, snapshot)
    for build in builds:
        yield from verifying.verify_build(there, origin, build)


def _diff(settings: PublisherSettings, one: str, other: str | None, platform: str, *, times: bool) -> Iterator[FileChange]:
    """What changed between two builds; of a name alone, between the build before and the one that it means now.

    Args:
        settings: say where the repository is.
        one: a CVMFS name, or the digest of a platform's manifest.
        other: likewise, None for the second of a name's builds.
        platform: which of a name's platforms.
        times: times count as well.

    Raises:
        UsageError: there is no such build, or its file index is not published.
        PublishedManifestError: a file index is missing or damaged.
    """
    there = assemble.repository(settings)
    snapshot = assemble.published(settings)
    if other is None:
        versions = snapshot.versions(one, platform)
        if len(versions) == 1:
            raise UsageError(f"{one} has one build only", hint="name another image or digest to compare it with")
        before, after = versions[1], versions[0]
    else:
        before, after = (_version(snapshot, text, platform) for text in (one, other))
    return difference(*(_file_index(there, version) for version in (before, after)), times=times)


def _version(snapshot: Snapshot, text: str, platform: str) -> Version:
    if not text.startswith("sha256:"):
        return snapshot.versions(text, platform)[0]
    found = next(
        (version for record in snapshot.records.values() for _, version in record.versions() if version.digest == text), None
    )
    if found is None:
        raise UsageError(f"no build of {text} is published", hint="it is the digest of a platform's manifest that is meant")
    return found


def _file_index(repository: Repository, version: Version) -> Iterator[IndexedFile]:
    if version.file_index is None:
        raise UsageError(f"the file index of {version.digest} is not published")
    published_index.check(repository, version)
    return published_index.lines(repository, version)


COMMANDS = (diff, gc, verify, status, origin, rollback, block, unblock, adopt)
