"""The report of a run as a value: the outcome of every image. :mod:`publisher.cli.render.run` shows it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from publisher.errors import ANOTHER_RUN, HOST_NEEDS_ATTENTION, IMAGE_FAILED, AnotherRunError
from publisher.plan.model import with_hint

if TYPE_CHECKING:
    from publisher.errors import PublisherError
    from publisher.plan.model import Removal, UnlistedPattern

_log = logging.getLogger(__name__)


class ImageResult(Enum):
    """The result for one image."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    HELD = "held"
    BLOCKED = "blocked"
    GONE = "gone"
    FAILED = "failed"
    SKIPPED = "not tried"


_QUIET = (ImageResult.UNCHANGED, ImageResult.HELD, ImageResult.BLOCKED)
"""Results of images that nothing happens to."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one image: its CVMFS name, the result, the reason in one line, and the error if it failed."""

    name: str
    result: ImageResult
    reason: str
    error: PublisherError | None = None


@dataclass
class RunReport:
    """The report of a run.

    Attributes:
        outcomes: CVMFS name -> outcome, in the order of the list once the run has ended.
        serial: serial of the manifest when the run ended.
        notes: lines about the run as a whole.
        stopped: why the run ended early, None where it did not.
        removals: published names that leave, each with the reason.
        withheld: why the removals are not carried out, None where they are.
        unlisted: patterns of which the tags could not be listed.
        cleared: lines about what garbage collection removed at the end.
        restored: lines about SIFs that the origin had lost and has again.
        lost: SIFs that the origin has lost and that could not be restored, each with the reason.
        published_size: bytes of the files of the images that were published.
        behind: origin that follows another one -> why it lacks something.
        stored_size: bytes of the SIFs that were built for the origin.
        seconds: how long the run took.
        phases: phase of the run -> seconds.
        transactions: seconds of each transaction of the repository.
        lags: seconds from the change of a tag to its publication, for each image of which that is known.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    serial: int = 0
    notes: list[str] = field(default_factory=list)
    behind: dict[str, str] = field(default_factory=dict)
    stopped: PublisherError | None = None
    removals: tuple[Removal, ...] = ()
    withheld: str | None = None
    unlisted: tuple[UnlistedPattern, ...] = ()
    cleared: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    lost: list[PublisherError] = field(default_factory=list)
    published_size: int = 0
    stored_size: int = 0
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    transactions: list[float] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)

    def add(self, name: str, result: ImageResult, reason: str, error: PublisherError | None = None) -> None:
        """Record the outcome of an image, and log it: at DEBUG level where nothing happens to it, else at INFO level."""
        self.outcomes[name] = Outcome(name, result, reason, error)
        level = logging.DEBUG if result in _QUIET else logging.INFO
        _log.log(level, "%s: %s: %s", name, result.value, reason)

    def fail(self, name: str, error: PublisherError) -> str:
        """Record that an image failed; return the reason with the error's hint."""
        reason = with_hint(error.reason, error)
        self.add(name, ImageResult.FAILED, reason, error)
        return reason

    def count(self, result: ImageResult) -> int:
        """Return the number of images with a result."""
        return sum(outcome.result is result for outcome in self.outcomes.values())

    @property
    def exit_code(self) -> int:
        """Return 0; 4 if the host or the publication needs an operator; 1 if only images failed, or tags are unknown.

        The run stopped, a SIF is lost, removals are withheld, or an image failed through no fault of its own. A run that stopped
        because another publisher host was quicker gives 5, as a run that did not begin: the next one goes on.
        """
        errors = [outcome.error for outcome in self.outcomes.values() if outcome.error is not None]
        if isinstance(self.stopped, AnotherRunError):
            return ANOTHER_RUN
        if self.stopped or self.withheld or self.lost or any(error.exit_code == HOST_NEEDS_ATTENTION for error in errors):
            return HOST_NEEDS_ATTENTION
        return IMAGE_FAILED if self.unlisted or self.count(ImageResult.FAILED) or self.count(ImageResult.SKIPPED) else 0
