"""What follows a change between two syncs: page and notices say it at once. A failure of theirs is a line and fails nothing."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.cli.assembly.known import read_list
from publisher.cli.assembly.notices import send_notices
from publisher.cli.assembly.page import SyncPage
from publisher.cli.state_directory import load_outcomes
from publisher.errors import PublisherError
from publisher.status.answer import Known

if TYPE_CHECKING:
    from publisher.publish.publication import Publication
    from publisher.settings.settings import PublisherSettings
    from publisher.state.snapshot import Snapshot

_log = logging.getLogger(__name__)


def follow_up(settings: PublisherSettings, publication: Publication, snapshot: Snapshot) -> list[str]:
    """Rewrite what changes on the status page, and send notices; the caller holds the lock. Return lines about what failed.

    Nothing is done without the image list, because the page would lose the images that wait; the next sync has it.

    Args:
        settings: the settings.
        publication: the open publication.
        snapshot: the published state after the change.
    """
    try:
        image_list = read_list(settings)
    except PublisherError as error:
        return [f"the status page changes with the next sync: {error}"]
    if image_list is None:
        _log.info("the status page changes with the next sync, because the image list is not at hand")
        return []
    snapshot = replace(snapshot, outcomes=load_outcomes(settings.state, snapshot))
    page = SyncPage(settings, image_list, publication.repository, publication.origin)
    lines = page.finish(snapshot, snapshot.outcomes, {})
    return [*lines, *send_notices(settings, Known(snapshot, image_list, datetime.now(UTC).date()))]
