"""The command adopt, which takes over a repository of the older tool (cvmfs-singularity-sync), and its undo."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import click

from publisher.cli.assembly.registry import make_intake
from publisher.cli.assembly.run import load_list, select_entries
from publisher.cli.assembly.targets import load_snapshot, make_repository
from publisher.cli.console import console
from publisher.cli.options import common
from publisher.cli.session import open_publication, raise_if_behind
from publisher.errors import UsageError
from publisher.maintain.adoption import undo as adoption_undo
from publisher.maintain.adoption.apply import Adopter
from publisher.maintain.adoption.judge import LinkVerdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.publish.publication import Publication
    from publisher.settings.settings import PublisherSettings
    from publisher.state.snapshot import Snapshot


@click.command("adopt", short_help="Adopt a repository of cvmfs-singularity-sync.")
@click.option("--apply", "apply", is_flag=True, help="Write the manifest. Without it, only print what would be adopted.")
@click.option("--anyway", is_flag=True, help="Also adopt, as not current, images about which no registry can be asked now.")
@click.option("--undo", is_flag=True, help="Undo: adopted names leave the manifest, links point to the older tool's sandboxes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def adopt_command(*, apply: bool, anyway: bool, undo: bool, as_json: bool, settings: PublisherSettings) -> None:
    """Adopt a repository that cvmfs-singularity-sync has filled, so that its images need not be built again.

    Compares the links of the older tool with the registries and the image list. With --apply, the manifest is written; sandboxes
    and links stay as they are. SIFs are built by later syncs (adopt_sifs_per_run).

    Exit codes: 0 everything was adopted, 1 registries could not be asked about some images: run it again.
    """
    if undo and anyway:
        raise UsageError("--undo adopts nothing and asks no registry: leave out --anyway")
    if undo:
        _undo_adoption(settings, apply=apply, as_json=as_json)
        return
    image_list = load_list(settings)
    with contextlib.ExitStack() as stack:
        publication, snapshot = _open_if(stack, settings, apply=apply)
        intake = stack.enter_context(make_intake(settings, stack.enter_context(console.open_display())))
        selected = select_entries(image_list, (), intake)
        adopter = Adopter(make_repository(settings), intake, selected.entries, selected.unlisted, clock=time.time, anyway=anyway)
        report = adopter.run(snapshot, publication)
    done = "adopted" if apply else "would be adopted (add --apply to do it)"
    _show(report.lines, f"{done}: {report.total}", applied=apply, as_json=as_json)
    sys.exit(1 if report.counts[LinkVerdict.UNKNOWN] and not anyway else 0)


def _show(lines: Sequence[str], total: str, *, applied: bool, as_json: bool) -> None:
    console.show({"applied": applied, "lines": list(lines), "total": total}, [*lines, total], as_json)


def _undo_adoption(settings: PublisherSettings, *, apply: bool, as_json: bool) -> None:
    """Undo an adoption, or print what that would change."""
    result = None
    with contextlib.ExitStack() as stack:
        publication, snapshot = _open_if(stack, settings, apply=apply)
        repository = make_repository(settings) if publication is None else publication.repository
        plan = adoption_undo.plan_undo(snapshot, repository.links())
        if publication is not None:
            result = adoption_undo.apply(publication, plan)
    *lines, total = plan.lines
    undone = "undone" if apply else "would be undone (add --apply to do it)"
    _show(lines, f"{undone}: {total}", applied=apply, as_json=as_json)
    if result is not None:
        raise_if_behind(result)


def _open_if(stack: contextlib.ExitStack, settings: PublisherSettings, *, apply: bool) -> tuple[Publication | None, Snapshot]:
    """Return the open publication and the published state; without ``apply``, None and the state read without a lock."""
    if apply:
        return stack.enter_context(open_publication(settings))
    return None, load_snapshot(settings)
