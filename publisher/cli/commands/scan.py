"""The command ``scan``: known vulnerabilities in what is published."""

from __future__ import annotations

import logging
import os
import pwd
import sys
import time
from typing import TYPE_CHECKING

import click

from publisher.cli.assembly.targets import load_snapshot, make_repository
from publisher.cli.console import console
from publisher.cli.options import common
from publisher.cli.session import open_publication
from publisher.errors import UsageError
from publisher.maintain import scans
from publisher.maintain.scanner import VulnerabilityScanner
from publisher.system.command import UnixAccount

if TYPE_CHECKING:
    from publisher.maintain.scans import ScannedBuild
    from publisher.settings.settings import PublisherSettings

_INTERVAL = 7 * 86400
"""Seconds after which an image is scanned again: databases of vulnerabilities grow."""
_DEADLINE = 900
"""Seconds that the scan of one image may take."""


@click.command("scan", short_help="Scan published sandboxes for known vulnerabilities.")
@click.option("--list", "only_list", is_flag=True, help="Only print the last result of every image; nothing is scanned.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def scan_command(only_list: bool, as_json: bool, settings: PublisherSettings) -> None:
    """Scan published sandboxes with the scanner of the settings, trivy or grype, and store the results in the repository.

    One image after another is scanned, scans_per_run at most: first those that never were, then those whose last scan was a week
    ago or longer. publisher status NAME shows the result as well. A result never blocks or removes an image; see publisher block.

    Exit codes: 0 everything due was scanned or waits for the next run, 1 a scan failed.

    Example: publisher scan --scanner /usr/bin/trivy
    """
    repository, snapshot = make_repository(settings), load_snapshot(settings)
    builds = scans.list_builds(snapshot, repository)
    if only_list:
        _show(builds, as_json)
        return
    program = make_scanner(settings)
    run = scans.scan_due(builds, repository, program, now=int(time.time()), interval=_INTERVAL, count=settings.scans_per_run)
    if run.results:
        with open_publication(settings) as (publication, current):
            scans.store(publication.repository, current, run.results)
    _show(run.results, as_json)
    for line in run.problems:
        console.tell(line, logging.ERROR)
    if run.waiting:
        console.tell(f"{run.waiting} more image(s) are due; the next run scans them")
    sys.exit(1 if run.problems else 0)


def make_scanner(settings: PublisherSettings) -> VulnerabilityScanner:
    """Return the scanner of the settings.

    Raises:
        UsageError: the setting ``scanner`` is missing or wrong, or the account that runs it does not exist.
    """
    if settings.scanner is None:
        raise UsageError("no scanner is named", hint="give --scanner PROGRAM: trivy or grype")
    account = None
    if os.geteuid() == 0:
        try:
            entry = pwd.getpwnam(settings.test_account)
        except KeyError:
            raise UsageError(f"the account {settings.test_account!r}, which scans run as, does not exist") from None
        account = UnixAccount(entry.pw_uid, entry.pw_gid)
    return VulnerabilityScanner(settings.scanner, account, settings.scanner_home, _DEADLINE)


def _show(builds: list[ScannedBuild], as_json: bool) -> None:
    results = [(build, build.result) for build in builds]
    value = [
        {"name": build.name, "digest": build.digest, "scan": None if result is None else result.to_json()}
        for build, result in results
    ]
    lines = [f"{build.name}: {'never scanned' if result is None else result.summary()}" for build, result in results]
    console.show(value, lines or ["nothing was due"], as_json)
