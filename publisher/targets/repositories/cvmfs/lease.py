"""The lease of a repository behind a gateway: the right to publish there, which one publisher host has at a time.

``cvmfs_server transaction`` takes it and keeps its token in the spool; publish and abort give it back. It is a lease of the whole
repository, because every transaction of ours replaces the manifest. It ends when the gateway's ``max_lease_time`` is over, and
nothing renews it. All of this was measured on a real gateway.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from publisher.targets.repositories.cvmfs.errors import LeaseBusyError, failures

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.targets.repositories.cvmfs.host import CvmfsHost
    from publisher.targets.repositories.cvmfs.server import CvmfsServer

T = TypeVar("T")
_log = logging.getLogger(__name__)
_POLL = 2.0  # seconds between two attempts to get the lease; each asks the gateway


class Lease:
    """The lease of a repository behind a gateway.

    Args:
        server: the tool.
        host: the repository's files on this host.
        patience: seconds to wait for a lease that another host has.
    """

    def __init__(self, server: CvmfsServer, host: CvmfsHost, patience: float) -> None:
        self._fqrn = server.fqrn
        self._server = server
        self._host = host
        self._patience = patience

    def wait(self, attempt: Callable[[], T | None]) -> T:
        """Return what ``attempt`` returns; repeat it while another host has the lease, or has just published (None).

        Raises:
            LeaseBusyError: that is so for longer than the patience.
        """
        deadline = time.monotonic() + self._patience
        said = False
        while True:
            try:
                opened = attempt()
                if opened is not None:
                    return opened
                busy = LeaseBusyError(self._fqrn, "it publishes again and again")
            except LeaseBusyError as error:
                busy = error
            if time.monotonic() >= deadline:
                raise busy
            if not said:
                said = True
                _log.warning("waiting for the lease, for %.0f s at most: %s", self._patience, busy.reason)
            time.sleep(_POLL)

    def give_back(self) -> None:
        """Give back the lease of a run that was killed before its transaction was open, or after it was over.

        The tool would take its token for a lease, open a transaction and fail to publish it. While a transaction is opened, the
        token comes after the flag file, so that a token alone belongs to nobody at work.

        Raises:
            RepositoryError: the gateway does not answer.
        """
        if not self._host.lease_token.exists() or self._host.has_transaction():
            return
        self._server.give_back_lease()
        with failures(self._fqrn, "remove the token of a lease"):
            self._host.lease_token.unlink(missing_ok=True)
        _log.info("repository %s: gave back the lease of an interrupted run", self._fqrn)
