"""A session of a command that changes what is published: the lock is held and the publication is open."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from publisher.cli.assembly.targets import make_publication
from publisher.cli.console import console
from publisher.cli.state_directory import lock_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.publish.publication import Publication, PublishResult
    from publisher.settings.settings import PublisherSettings
    from publisher.state.snapshot import Snapshot

_ADVICE = (
    "run again when the other run has ended. If this is urgent, stop the other run first: systemctl stop ospool-image-publisher, "
    "if its timer started it. What it has finished is not lost"
)


@contextlib.contextmanager
def open_publication(settings: PublisherSettings) -> Iterator[tuple[Publication, Snapshot]]:
    """Lock the state directory, recover from killed runs, and return the open publication with the published state.

    Raises:
        StateDirectoryError: another run is under way, with this state directory or another one.
        RepositoryError, OriginError: repository or origin cannot be used.
        PublishedManifestError: the published manifest cannot be trusted.
    """
    publication = make_publication(settings)
    with lock_state(settings.state, _ADVICE), publication.hold():
        snapshot, recovered = publication.open()
        for line in recovered:
            console.tell(line)
        snapshot, restored = publication.restore(snapshot)
        for line in restored:
            console.tell(line)
        try:
            yield publication, snapshot
        finally:
            for line in publication.repository.take_warnings():
                console.tell(line, logging.WARNING)


def raise_if_behind(result: PublishResult) -> None:
    """Raise the error because of which the origin's manifest is behind the repository's, if there is one."""
    if result.behind is not None:
        raise result.behind
