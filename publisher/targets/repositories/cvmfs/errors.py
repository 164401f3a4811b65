"""Errors about a CVMFS repository, with hints that name it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from publisher.errors import RepositoryError, SpaceError
from publisher.system import durable

if TYPE_CHECKING:
    from collections.abc import Iterator

SPOOL_FULL_HINT = "free space in /var/spool/cvmfs and run again; a lower batch_size needs less of it"
_MOUNT_HINT = "mount it with `cvmfs_server mount {fqrn}` (after a reboot: `cvmfs_server mount -a`) and run again"


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
