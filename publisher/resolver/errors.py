"""Expected failures on the execution point, by whose fault they are.

The split decides what happens to the job: what the user must mend holds it, what the host or the network did sends it
elsewhere. Anything that is not a :class:`ExpectedError` is a bug.
"""

from __future__ import annotations

from publisher.contract.errors import ExpectedError, ManifestError


class ResolverUsageError(ExpectedError):
    """The command line or the configuration file is wrong; nothing was done."""

    exit_code = 2


class UnknownImageError(ExpectedError):
    """No manifest names this image."""

    exit_code = 1


class ArchitectureError(UnknownImageError):
    """The image is published, but not for this architecture."""


class FormError(UnknownImageError):
    """The image is published, but not in the one form that was asked for."""


class BlockedError(ExpectedError):
    """The image was taken down by the operator."""

    exit_code = 1


class OldManifestError(ManifestError):
    """The manifest does not name this image, and a newer one that may is not to be had."""


class FetchError(ExpectedError):
    """A file could not be had from any place: absent, cut, changed, refused or too slow."""


class DeadlineError(FetchError):
    """There was no answer in time; whoever was asked may still hang."""


class AbsentError(FetchError):
    """The file is not there."""


class AccessDeniedError(FetchError):
    """It is there, or may be, and we may not read it."""


class CorruptError(FetchError):
    """It has other bytes than the manifest says."""


class SandboxError(FetchError):
    """A sandbox that is published does not open on this host, or not in time."""


class HostError(ExpectedError):
    """This host's facts or its policy leave no form of the image."""


class CacheError(ExpectedError):
    """The cache directory cannot be used: no permission, unsafe ownership, a failing disk."""


class CacheSpaceError(CacheError):
    """There is no room for a file in the cache."""


class CacheBusyError(CacheError):
    """Another process has been at it for too long."""
