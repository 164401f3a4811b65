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


class VariantError(ArchitectureError):
    """A request for an image of which no variant is for this host."""


class FormError(UnknownImageError):
    """A request for an image that is published, but not in the requested form."""


class ShellError(UnknownImageError):
    """A request for an image without /bin/sh from a job that HTCondor's test of the image has sent back."""


class BlockedError(ExpectedError):
    """A request for an image that the operator has blocked."""

    exit_code = 1


class OldManifestError(ManifestError):
    """A request for an image that the manifest does not list, while a newer manifest that may list it cannot be fetched."""


class FetchError(ExpectedError):
    """A file that could not be fetched from any source: absent, truncated, changed, denied or too slow.

    ``retry_after`` is the number of seconds for which a busy server asks for no more requests (429, 503), 0 if it does not.
    """

    retry_after = 0.0


class DeadlineError(FetchError):
    """A call that did not end in time; the other side may still hang."""


class ReadError(FetchError):
    """A file that is there but cannot be read, because its file system is broken."""


class KilledError(FetchError):
    """A process of this program that was killed before it had finished."""


class AbsentError(FetchError):
    """A file that the server does not have."""


class AccessDeniedError(FetchError):
    """A file that the server does not let this host read, whether it exists or not."""


class CorruptError(FetchError):
    """A file whose content is not what the manifest says."""


class RangeError(FetchError):
    """A server that does not send the range of a file that it was asked for."""


class SandboxError(FetchError):
    """A published sandbox that cannot be opened or read on this host, or not in time."""


class HostError(ExpectedError):
    """A host whose capabilities or policy allow no form of the image."""


class UnsignedError(HostError):
    """A request for an image without a verified signature, on a host that refuses such images."""


class CacheError(ExpectedError):
    """A cache directory that cannot be used: no permission, unsafe ownership, a failing disk."""


DISK_ADVICE = "look at the disk of the cache (df, dmesg), or set --cache to a directory on another one"
"""The next step where the disk of the cache fails."""


class CacheSpaceError(CacheError):
    """A cache without enough free space for a file."""


class CacheBusyError(CacheError):
    """A lock of the cache that another process held for too long."""


def is_broken(error: OSError) -> bool:
    """Return whether an error means that a file system or its device is broken: it says nothing about the file itself."""
    import errno  # noqa: PLC0415 - a warm answer meets no error

    return error.errno in (errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.EREMOTEIO, errno.EUCLEAN)
