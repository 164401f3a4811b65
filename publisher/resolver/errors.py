"""Expected failures on the execution point, by who must act.

The class decides what happens to the job: errors that the user must fix hold it, failures of the host or the network send it to
another host. Any exception that is not an :class:`ExpectedError` is a bug.
"""

from __future__ import annotations

from publisher.contract.errors import ExpectedError, ManifestError


class ResolverUsageError(ExpectedError):
    """An error in the command line or the configuration file; nothing was done."""

    exit_code = 2


class UnknownImageError(ExpectedError):
    """A request for an image that no manifest lists."""

    exit_code = 1


class ArchitectureError(UnknownImageError):
    """A request for an image that is published, but not for this architecture."""


class FormError(UnknownImageError):
    """A request for an image that is published, but not in the requested form."""


class BlockedError(ExpectedError):
    """A request for an image that the operator has blocked."""

    exit_code = 1


class OldManifestError(ManifestError):
    """A request for an image that the manifest does not list, while a newer manifest that may list it cannot be fetched."""


class FetchError(ExpectedError):
    """A file that could not be fetched from any source: absent, truncated, changed, denied or too slow."""


class DeadlineError(FetchError):
    """A call that did not end in time; the other side may still hang."""


class AbsentError(FetchError):
    """A file that the server does not have."""


class AccessDeniedError(FetchError):
    """A file that the server does not let this host read, whether it exists or not."""


class CorruptError(FetchError):
    """A file whose content is not what the manifest says."""


class SandboxError(FetchError):
    """A published sandbox that cannot be opened on this host, or not in time."""


class HostError(ExpectedError):
    """A host whose capabilities or policy allow no form of the image."""


class CacheError(ExpectedError):
    """A cache directory that cannot be used: no permission, unsafe ownership, a failing disk."""


class CacheSpaceError(CacheError):
    """A cache without enough free space for a file."""


class CacheBusyError(CacheError):
    """A lock of the cache that another process held for too long."""
