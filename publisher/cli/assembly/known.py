"""All that this host knows of the images, for answers: the published state, the last runs, the list and the run under way."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.cli.assembly.run import load_list
from publisher.cli.assembly.targets import load_snapshot
from publisher.cli.console import console
from publisher.cli.state_directory import load_outcomes
from publisher.errors import ListError
from publisher.status.answer import Known
from publisher.status.running import running_steps

if TYPE_CHECKING:
    from publisher.images.reader import ImageList
    from publisher.settings.settings import PublisherSettings


def know(settings: PublisherSettings) -> Known:
    """Return all that this host knows: the published state, its own memory of the last runs, the list, and the run under way."""
    snapshot = load_snapshot(settings)
    snapshot = replace(snapshot, outcomes=load_outcomes(settings.state, snapshot))
    return Known(snapshot, read_list(settings), datetime.now(UTC).date(), running_steps(settings.state))


def read_list(settings: PublisherSettings) -> ImageList | None:
    """Return the list; None if there is none, or if it is not valid: what is published is known all the same."""
    if not settings.images.exists():
        return None
    try:
        return load_list(settings)
    except ListError as error:
        text = f"{settings.images} is left out because {error}; publisher check --all names them"
        console.tell(text, logging.WARNING)
        return None
