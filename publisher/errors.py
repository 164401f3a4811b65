"""Expected failures, by whose fault they are.

Every error carries the image (where there is one), the reason and the next step, and prints as one line. A failure of one
image is caught once, in :mod:`publisher.publish.sync`, and becomes a value in the report; whatever else escapes is caught once, in
:mod:`publisher.cli.main`. Anything that is not a :class:`PublisherError` is a bug and keeps its traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class PublisherError(Exception):
    """An expected failure: what happened, to which image, and what to do next.

    Attributes:
        reason: what happened, one line without a full stop at its end.
        image: the image's name or reference, None where the failure is not about one image.
        hint: the next step, None where there is none to give.
    """

    exit_code = 1

    def __init__(self, reason: str, *, image: str | None = None, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.image = image
        self.hint = hint

    def __str__(self) -> str:
        """One line: ``image: reason (hint)``."""
        line = self.reason if self.image is None else f"{self.image}: {self.reason}"
        return " ".join((line if self.hint is None else f"{line} ({self.hint})").split())


class UsageError(PublisherError):
    """The command line or a configuration file is wrong; nothing was done."""

    exit_code = 2


class ListError(UsageError):
    """A file of ours has problems: all of them, each with the file and line, variable or flag where it stands."""

    def __init__(self, problems: list[str], where: str = "the image list") -> None:
        super().__init__(f"{len(problems)} problem(s) in {where}")
        self.problems = problems


class RegistryError(PublisherError):
    """A registry's answer, or the lack of one."""


class NotFoundError(RegistryError):
    """The registry says explicitly that it has no such thing (404)."""


class DeniedError(RegistryError):
    """The registry wants other credentials (401 after authentication, or 403)."""


class UnavailableError(RegistryError):
    """Could not tell: a registry that is down, slow, over its limits or talking nonsense. Nothing may be deleted for it."""


class UnsupportedError(RegistryError):
    """The image is of a kind that cannot be published (schema 1, wrong platform, not an image)."""


class BlobError(PublisherError):
    """A blob's bytes are not what its digest or size says, or it exceeds a limit."""


class LayerError(PublisherError):
    """A layer is not a sound tar archive, or asks for something that no layer may."""


class BuildError(PublisherError):
    """A SIF could not be made from sound layers."""


class TestRunError(PublisherError):
    """The finished SIF did not start."""

    __test__ = False  # not a test class, whatever its name looks like to pytest


class SpaceError(PublisherError):
    """No room left on a device. Stops the run: the next image would meet the same wall."""


class RepositoryError(PublisherError):
    """The CVMFS side: a transaction could not be opened, written or published."""


class RemovalError(RepositoryError):
    """What a transaction was to take away could not be.

    Attributes:
        stuck: each such path, with its reason; what stands there is as it was.
        published: all else of the transaction is; otherwise nothing of it is, and it can be repeated without these paths.
    """

    def __init__(self, stuck: Mapping[str, RepositoryError], *, published: bool) -> None:
        first = next(iter(stuck.values()))
        super().__init__(first.reason, hint=first.hint)
        self.stuck = stuck
        self.published = published


class OriginError(PublisherError):
    """The OSDF side: an object could not be stored or read back."""


class PublishedManifestError(PublisherError):
    """The published manifest, or the key that signs it, cannot be used."""


class CommandError(PublisherError):
    """An outside program is missing, failed, or ran into its deadline.

    Attributes:
        status: exit status, negative for a signal, None when it never started or was killed at its deadline.
        stderr: the end of what it said.
    """

    def __init__(self, reason: str, *, status: int | None = None, stderr: str = "", hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.status = status
        self.stderr = stderr
