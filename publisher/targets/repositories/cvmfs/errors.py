"""Errors about a CVMFS repository, with hints that name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import RepositoryError
from publisher.system import durable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

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


def failures(fqrn: str, action: str) -> AbstractContextManager[None]:
    """Turn an OSError of the block into an error about the repository; ``action`` says what could not be done."""
    hint = "run as the repository's owner, or as root"
    return durable.failures(RepositoryError, f"repository {fqrn}: cannot {action}", hint)
