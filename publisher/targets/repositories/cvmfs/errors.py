"""Errors about a CVMFS repository, with hints that name it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from publisher.errors import AnotherRunError, RepositoryError, SpaceError
from publisher.system import durable

if TYPE_CHECKING:
    from collections.abc import Iterator

SPOOL_FULL_HINT = "free space in /var/spool/cvmfs and run again; a lower batch_size needs less of it"
_MOUNT_HINT = "mount it with `cvmfs_server mount {fqrn}` (after a reboot: `cvmfs_server mount -a`) and run again"


class LeaseBusyError(AnotherRunError):
    """Another publisher host has the lease, or has published while ours was opened; nothing was changed."""

    def __init__(self, fqrn: str, said: str) -> None:
        super().__init__(
            f"repository {fqrn}: another publisher host has the gateway's lease: {said}",
            hint="nothing was published, and finished builds are kept; run again when it has ended. "
            "A host that was killed keeps the lease until its next run, or until that time is over",
        )


class LeaseExpiredError(SpaceError):
    """A transaction that took longer than its lease. It is too much for one transaction, as for a full disk, so it is halved."""

    def __init__(self, fqrn: str, said: str) -> None:
        super().__init__(
            f"repository {fqrn}: the gateway's lease was over before the transaction was published: {said}",
            hint="raise max_lease_time in /etc/cvmfs/gateway/user.json on the gateway's host and restart the gateway; "
            "a lower batch_size needs less time",
        )


def repository_error(fqrn: str, reason: str, hint: str) -> RepositoryError:
    """Return an error about the repository ``fqrn``; ``{fqrn}`` in the hint becomes its name."""
    return RepositoryError(f"repository {fqrn}: {reason}", hint=hint.format(fqrn=fqrn))


def missing(fqrn: str) -> RepositoryError:
    """Return the error for a repository that this host does not have."""
    reason = "there is no such repository on this host"
    return repository_error(fqrn, reason, "`cvmfs_server mkfs {fqrn}`, or correct --repository")


def not_mounted(fqrn: str, reason: str) -> RepositoryError:
    """Return the error for a repository with missing or broken mounts."""
    return repository_error(fqrn, reason, _MOUNT_HINT)


@contextlib.contextmanager
def failures(fqrn: str, action: str) -> Iterator[None]:
    """Turn an OSError of the block into an error about the repository; ``action`` says what could not be done."""
    hint = "run as the repository's owner, or as root"
    try:
        with durable.failures(RepositoryError, f"repository {fqrn}: cannot {action}", hint):
            yield
    except SpaceError as error:
        if isinstance(error.__cause__, OSError):
            error.hint = SPOOL_FULL_HINT
        raise
