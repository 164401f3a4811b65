"""The fate of one image that is built in the pool: what its jobs met with, and when it is given up."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.errors import PublisherError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.build.builder import BuildRequest
    from publisher.builders.jobs import QueuedJob

    Progress = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)

_TRIES = 3  # of one image in the pool
_REFUSALS = 2  # of an image, by two jobs: then it is the image
_UNSUITABLE = 20  # machines that one image may meet
_LARGEST = 16  # times the usual memory and disk


@dataclass
class PoolBuild:
    """One image that is being built in the pool.

    Attributes:
        request: what is built.
        content: its config, 64 hex digits.
        progress: shows progress.
        factor: how many times the usual memory and disk its job asks for.
        returned: the directory of the job that has ended, to be looked at; None while there is none.
        machine: the machine of that job; empty if it is not known.
        problems: why its jobs have failed so far.
        refusals: failures that jobs blame on the image.
        unsuitable: number of machines that could not build it.
        elsewhere: machines on which it has failed.
        error: why it is given up.
        is_waiting: it waits for its job.
    """

    request: BuildRequest
    content: str
    progress: Progress
    factor: int = 1
    returned: Path | None = None
    machine: str = ""
    problems: list[str] = field(default_factory=list)
    refusals: list[PublisherError] = field(default_factory=list)
    unsuitable: int = 0
    elsewhere: set[str] = field(default_factory=set)
    error: PublisherError | None = None
    is_waiting: bool = False

    @property
    def where(self) -> str:
        """The machine of the job that has ended, for people."""
        return self.machine or "an unknown machine"

    def note_unsuitable(self, reason: str) -> None:
        """Count a machine whose programs cannot build.

        Raises:
            UnavailableError: there were too many.
        """
        _log.warning("%s does not build: %s", self.where, reason)
        self.unsuitable += 1
        if self.unsuitable >= _UNSUITABLE:
            raise UnavailableError(f"{self.unsuitable} machines of the pool could not build it, the last because {reason}")

    def note_refusal(self, error: PublisherError) -> None:
        """Count a failure that a job blames on the image.

        Raises:
            PublisherError: the failure itself, once another job has said so too.
        """
        self.refusals.append(error)
        self.elsewhere.add(self.machine)
        if len(self.refusals) >= _REFUSALS:
            raise error
        _log.info("%s: it is built once more, because on %s %s", self.request.name, self.where, error)

    def note_failure(self, reason: str) -> None:
        """Count a failure of a job for which the image is not to blame.

        Raises:
            UnavailableError: there were too many.
        """
        self.problems.append(f"{self.where}: {reason}")
        self.elsewhere.add(self.machine)
        _log.info("%s: its job has failed on %s", self.request.name, self.problems[-1])
        if len(self.problems) >= _TRIES:
            raise self._given_up()

    def note_hold(self, job: QueuedJob) -> None:
        """Count a job that is held; too many of them give the image up."""
        self.problems.append(f"{job.machine or 'the queue'}: its job was held: {job.reason}")
        if job.is_too_small:
            self.factor = min(2 * self.factor, _LARGEST)
        else:
            self.elsewhere.add(job.machine)
        _log.info("%s: its job %s is made anew: it was held: %s", self.request.name, job.id, job.reason)
        if len(self.problems) >= _TRIES:
            self.error = self._given_up()

    def _given_up(self) -> PublisherError:
        reason = f"the pool did not build it in {len(self.problems)} tries; {'; '.join(dict.fromkeys(self.problems))}"
        return UnavailableError(reason, hint="the next run tries again; --builder local builds on this host")
