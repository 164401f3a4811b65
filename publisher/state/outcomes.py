"""What became of each image of the list in the last runs, kept beside the manifest: failing, gone, waiting, and why.

The manifest says what is published. The outcomes say the rest: why an image of the list is not published, or why its published
version is not the newest. An image that is published as its registry has it needs no outcome. The signed index names the document
by its sha256, so that nobody can forge it. Times are seconds since the epoch. Pure.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from publisher.contract import manifest
from publisher.errors import PublishedManifestError

if TYPE_CHECKING:
    from collections.abc import Mapping

FAILING, GONE, WAITING = "failing", "gone", "waiting"
"""States: publishing it failed; its registry says that it does not exist; no run has come to it yet."""
_SCHEMA = 1
_FIRST_DELAY, _MAX_DELAY = 900, 86400  # seconds


@dataclass(frozen=True)
class LastOutcome:
    """What became of one image.

    Attributes:
        state: :data:`FAILING`, :data:`GONE` or :data:`WAITING`.
        reason: why, for the researcher who wants the image.
        since: when the state began.
        tries: number of runs that tried since then.
        last_try: when the last of them was.
        next_try: when a run tries again at the earliest; 0 for the next run.
        attempt: names what was tried, that is the digest and the entry's demands; another one is tried at once.
        passing: the cause is not the image but a registry or the publisher's host, so it is expected to pass.
    """

    state: str
    reason: str
    since: int
    tries: int = 0
    last_try: int = 0
    next_try: int = 0
    attempt: str = ""
    passing: bool = False

    def again(self, reason: str, now: int, attempt: str, *, backs_off: bool = False, passing: bool = False) -> LastOutcome:
        """Return the outcome after one more failure of the same state.

        Args:
            reason: why it failed this time.
            now: the time of the failure.
            attempt: what was tried.
            backs_off: whether the next try is delayed, exponentially, if the same was tried before.
            passing: as the attribute.
        """
        tries = self.tries + 1 if attempt == self.attempt else 1
        delay = min(_FIRST_DELAY << min(tries - 2, 10), _MAX_DELAY) if backs_off and tries > 1 else 0
        return LastOutcome(self.state, reason, self.since, tries, now, now + delay if delay else 0, attempt, passing)


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of all images of the list that are not simply published.

    Attributes:
        images: CVMFS name -> what became of it.
        patterns: pattern of the list, as text -> the names that it stood for in the last run, the newest first.
        started: when the last run of the whole list began, 0 if there was none.
        finished: when it ended.
        problem: why it ended early, None if it did not.
    """

    images: Mapping[str, LastOutcome] = field(default_factory=dict)
    patterns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    started: int = 0
    finished: int = 0
    problem: str | None = None

    def encode(self) -> bytes:
        """Return the document to publish; :meth:`decode` reads it."""
        return manifest.canonical({"schema": _SCHEMA, **asdict(self)})

    @classmethod
    def decode(cls, content: bytes) -> Outcomes:
        """Return the outcomes of a document.

        Raises:
            PublishedManifestError: the document is damaged, or of a newer schema.
        """
        try:
            value: dict[str, Any] = json.loads(content)
            if value.pop("schema") != _SCHEMA:
                raise PublishedManifestError(
                    "the outcomes of the images were written by a newer publisher", hint="update this one"
                )
            images = {str(name): LastOutcome(**outcome) for name, outcome in value.pop("images").items()}
            patterns = {str(text): tuple(map(str, names)) for text, names in value.pop("patterns").items()}
            return cls(images, patterns, **value)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PublishedManifestError(f"the outcomes of the images are damaged: {error!r}") from None

    def says_the_same(self, other: Outcomes) -> bool:
        """Return whether both say the same of each image.

        Numbers of tries, times and counts in reasons do not matter, and neither do causes that are expected to pass: a registry
        that is down for an hour need not change the manifest twice.
        """
        return self._gist() == other._gist()

    def _gist(self) -> tuple[object, object]:
        images = {
            name: (found.state, re.sub(r"\d+", "0", found.reason)) for name, found in self.images.items() if not found.passing
        }
        return images, dict(self.patterns)
