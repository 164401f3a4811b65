"""The tree that was ingested and is not completed yet.

A file that is published beside the tree says so to every reader. Our note in the repository's spool says it to the next run,
which removes the tree if this one was killed before it could complete it: no record names the tree, so nobody else would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.targets.repositories.cvmfs.errors import failures

if TYPE_CHECKING:
    from pathlib import Path

NOTE_NAME = "ingested"
"""The name of the note in our directory of the repository."""


def incomplete(path: str) -> str:
    """Return the path of the file that is published with a tree as long as the tree is not complete."""
    return f"{path}.incomplete"


class IngestedTree:
    """The note of a tree; ``area`` is our directory of the repository ``fqrn``. All methods raise RepositoryError."""

    def __init__(self, area: Path, fqrn: str) -> None:
        self._note = area / NOTE_NAME
        self._fqrn = fqrn

    def note(self, path: str) -> None:
        """Note the path of a tree, durably, before it is ingested."""
        with failures(self._fqrn, "note a tree"):
            files.replace(str(self._note), path.encode())

    def path(self) -> str | None:
        """Return the path that was noted, None if there is none."""
        with failures(self._fqrn, "look for an ingested tree"):
            try:
                return self._note.read_text()
            except FileNotFoundError:
                return None

    def forget(self) -> None:
        """Remove the note, once the tree is complete or gone."""
        with failures(self._fqrn, "forget an ingested tree"):
            self._note.unlink(missing_ok=True)
