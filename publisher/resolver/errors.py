"""Expected failures on the execution point, by whose fault they are.

The split decides what happens to the job: what the user must mend holds it, what the host or the network did sends it
elsewhere. Anything that is not a :class:`ResolverError` is a bug.
"""

from __future__ import annotations


class ResolverError(Exception):
    """An expected failure: one line that says what happened, and ``hint``, the next step (or None).

    ``exit_code`` is what the command ends with: 1 for the user to mend, 2 usage or configuration, 4 host or network.
    """

    exit_code = 4

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        """One line: ``reason (hint)``."""
        return " ".join((self.reason if self.hint is None else f"{self.reason} ({self.hint})").split())


class UsageError(ResolverError):
    """The command line or the configuration file is wrong; nothing was done."""

    exit_code = 2


class ReferenceError(ResolverError):  # noqa: A001 - the field's term; the builtin is about weak references
    """A text that is no image reference."""

    exit_code = 1


class UnknownImageError(ResolverError):
    """No manifest names this image."""

    exit_code = 1


class ArchitectureError(UnknownImageError):
    """The image is published, but not for this architecture."""


class FormError(UnknownImageError):
    """The image is published, but not in the one form that was asked for."""


class BlockedError(ResolverError):
    """The image was taken down by the operator."""

    exit_code = 1


class ManifestError(ResolverError):
    """A manifest that cannot be trusted or read: signature, repository, hash, schema or age."""


class OldManifestError(ManifestError):
    """The manifest does not name this image, and a newer one that may is not to be had."""


class FetchError(ResolverError):
    """A file could not be had from any place: absent, cut, changed, refused or too slow."""


class LateError(FetchError):
    """There was no answer in time; whoever was asked may still hang."""


class AbsentError(FetchError):
    """The file is not there."""


class DeniedError(FetchError):
    """It is there, or may be, and we may not read it."""


class CorruptError(FetchError):
    """It has other bytes than the manifest says."""


class SandboxError(FetchError):
    """A sandbox that is published does not open on this host, or not in time."""


class HostError(ResolverError):
    """This host's facts or its policy leave no form of the image."""


class CacheError(ResolverError):
    """The cache directory cannot be used: no permission, unsafe ownership, a failing disk."""


class RoomError(CacheError):
    """There is no room for a file in the cache."""


class BusyError(CacheError):
    """Another process has been at it for too long."""
