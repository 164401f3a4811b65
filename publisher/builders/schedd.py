"""The door to HTCondor: the queue of this host's schedd, as the account that jobs belong to."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.builders import schedd_program
from publisher.builders.jobs import ATTRIBUTES, DEPLOYMENT, JobQueue, QueueChanges, QueuedJob
from publisher.errors import UsageError
from publisher.system import command

if TYPE_CHECKING:
    from publisher.system.command import UnixAccount

_DEADLINE = 120.0  # seconds; a schedd that starts or removes many jobs answers late
_NAME = "HTCondor's schedd"
_ENVIRONMENT = ("CONDOR_CONFIG", "HOME")


def check_bindings() -> None:
    """Raise UsageError if HTCondor's Python bindings are not installed."""
    if importlib.util.find_spec("htcondor2") is None:
        hint = "install the extra: pip install 'ospool-image-publisher[condor]'"
        raise UsageError("builds in a pool need HTCondor's Python bindings (htcondor2)", hint=hint)


class ScheddQueue(JobQueue):
    """The jobs of one deployment in the queue of this host's schedd.

    Args:
        deployment: the value of the attribute that all its jobs have.
        account: the account that jobs belong to (needs root), None for this process's.
        deadline: seconds that one request may take.
    """

    def __init__(self, deployment: str, account: UnixAccount | None = None, deadline: float = _DEADLINE) -> None:
        self._constraint = f"{DEPLOYMENT} == {json.dumps(deployment)}"
        self._account = account
        self._deadline = deadline

    def jobs(self) -> list[QueuedJob]:
        """See :meth:`publisher.builders.jobs.JobQueue.jobs`."""
        return [QueuedJob.from_ad(ad) for ad in self._request(QueueChanges())]

    def change(self, changes: QueueChanges) -> None:
        """See :meth:`publisher.builders.jobs.JobQueue.change`."""
        self._request(changes)

    def _request(self, changes: QueueChanges) -> list[dict[str, Any]]:
        request = {
            "remove": changes.remove,
            "submit": changes.submit,
            "requirements": changes.requirements,
            "constraint": self._constraint,
            "attributes": ATTRIBUTES,
        }
        env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        argv = [sys.executable, "-I", str(Path(schedd_program.__file__))]
        stdin = json.dumps(request).encode()
        done = command.run(argv, deadline=self._deadline, env=env, stdin=stdin, account=self._account, name=_NAME)
        ads: list[dict[str, Any]] = json.loads(done.stdout)
        return ads
