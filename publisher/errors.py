"""The expected failures of the publisher, by cause.

Every error has the image (if it is about one), the reason and the next step, and prints as one line. A failure of one image is
caught in :mod:`publisher.publish.sync` and becomes a value in the report; any other is caught in :mod:`publisher.cli.main`. An
exception that is not a :class:`PublisherError` is a bug and keeps its traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN = 80  # bytes of a stranger's text in a message


IMAGE_FAILED, HOST_NEEDS_ATTENTION, ANOTHER_RUN = 1, 4, 5
"""Exit statuses: an image of some user failed; an operator has to see to the host or the publication; nothing was done because
another run is active. 2 is wrong usage or configuration, 3 a bug, and 4 also is the resolver's status for host and network."""


def shown(text: bytes) -> str:
    """Return bytes from a stranger as they stand in a message: quoted, and cut where they are long."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text)} bytes)"


class PublisherError(Exception):
    """An expected failure: what happened, to which image, and what to do next.

    Attributes:
        reason: what happened, one line without a full stop at its end.
        image: the image's name or reference, None if the failure is not about one image.
        hint: the next step, None if there is none.
        exit_code: the exit status of the command.
    """

    exit_code = IMAGE_FAILED

    def __init__(self, reason: str, *, image: str | None = None, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.image = image
        self.hint = hint

    def __str__(self) -> str:
        """Return one line: ``image: reason (hint)``."""
        line = self.reason if self.image is None else f"{self.image}: {self.reason}"
        return " ".join((line if self.hint is None else f"{line} ({self.hint})").split())


class UsageError(PublisherError):
    """A wrong command line or configuration file; nothing was done."""

    exit_code = 2


class ListError(UsageError):
    """All problems of the image list or of the settings, each with its file and line, variable or flag."""

    def __init__(self, problems: list[str], where: str = "the image list") -> None:
        super().__init__(f"{len(problems)} problem(s) in {where}")
        self.problems = problems


class RegistryError(PublisherError):
    """A request to a registry that failed."""


class NotFoundError(RegistryError):
    """The registry answered that the image or blob does not exist (404)."""


class DeniedError(RegistryError):
    """The registry refused the credentials (401 after authentication, or 403)."""


class UnavailableError(RegistryError):
    """The registry gave no usable answer: it is down, slow, rate-limited or broken. This must never remove a published image."""


class UnknownHostError(UnavailableError):
    """A host whose name does not exist, as the name servers say. A registry's name may be misspelt; nothing is removed for it.

    Attributes:
        host: the host's name.
    """

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} cannot be found: no host has this name", hint="nothing was changed; the next run tries again")
        self.host = host


class UnsupportedError(RegistryError):
    """An image that cannot be published: schema 1, wrong platform, or not an image."""


class SignatureError(PublisherError):
    """An image without the signature that its entry requires."""


class BlobError(PublisherError):
    """A blob that does not match its digest or size, or exceeds a limit."""


class LayerError(PublisherError):
    """A layer that is not a valid tar archive or contains something forbidden."""


class BuildError(PublisherError):
    """A SIF that could not be built from valid layers."""


class TestRunError(PublisherError):
    """A finished SIF that does not start."""

    __test__ = False  # its name makes pytest take it for a test class


class ScanError(PublisherError):
    """A scan for vulnerabilities that failed; it says nothing about the image."""


class SpaceError(PublisherError):
    """A full device or quota. It stops the run, because the next image would fail too."""

    exit_code = HOST_NEEDS_ATTENTION


class BrokenHostError(PublisherError):
    """A disk, file system or other resource of this host that failed (EIO and the like). It fails one image, not the run."""

    exit_code = HOST_NEEDS_ATTENTION


class RepositoryError(PublisherError):
    """A CVMFS transaction that could not be opened, written or published."""

    exit_code = HOST_NEEDS_ATTENTION


class RemovalError(RepositoryError):
    """Paths that a transaction was to delete and could not.

    Attributes:
        stuck: path -> why it could not be deleted; its content is unchanged.
        published: whether the rest of the transaction was published. If not, it can be repeated without these paths.
    """

    def __init__(self, stuck: Mapping[str, RepositoryError], *, published: bool) -> None:
        first = next(iter(stuck.values()))
        super().__init__(first.reason, hint=first.hint)
        self.stuck = stuck
        self.published = published


class OriginError(PublisherError):
    """An object of an OSDF origin that could not be stored, read or deleted."""

    exit_code = HOST_NEEDS_ATTENTION


class PageError(PublisherError):
    """A file of the status page that could not be written. It never fails a run."""


class NoticeError(PublisherError):
    """A notice that could not be sent. It never fails a run."""


class StateDirectoryError(PublisherError):
    """The state directory cannot be used, or another run is using it."""

    exit_code = HOST_NEEDS_ATTENTION


class AnotherRunError(StateDirectoryError):
    """Another run is active, so this one does nothing."""

    exit_code = ANOTHER_RUN


class ClockError(PublisherError):
    """A clock that must not be signed by. It stops the run, because everything that a run signs and removes depends on it."""

    exit_code = HOST_NEEDS_ATTENTION


class SigningError(PublisherError):
    """A manifest that could not be signed: a token or a signing program failed."""

    exit_code = HOST_NEEDS_ATTENTION


class WitnessError(PublisherError):
    """A witness of the publication log that cannot be used, or that has something else."""

    exit_code = HOST_NEEDS_ATTENTION


class PublishedManifestError(PublisherError):
    """A published manifest, or a key for it, that cannot be used."""

    exit_code = HOST_NEEDS_ATTENTION


class CommandError(PublisherError):
    """An external program that is missing, failed, or passed its deadline.

    Attributes:
        status: exit status, negative for a signal, None if the program did not start or was killed at its deadline.
        stderr: the end of its standard error.
    """

    def __init__(self, reason: str, *, status: int | None = None, stderr: str = "", hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.status = status
        self.stderr = stderr
