"""A publisher host that is the access point of a personal pool, in which its images are built."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.support.ep.pool import Pool, command_line
from tests.support.publisher.host import Host, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

SLOTS = 8
_DEADLINE = 1200
_CONFIGURATION = """\
MASTER_BACKOFF_CONSTANT = 1
MASTER_BACKOFF_CEILING = 2
MASTER_NEW_BINARY_RESTART = NEVER
"""


class BuildingPool:
    """The pool and the host, whose directory ``where`` is made below the pool's.

    Attributes:
        pool: the pool.
        host: the host.
        errors: standard error of the last whole run.
    """

    def __init__(self, pool: Pool, name: str, registry: RegistryServer) -> None:
        self.pool = pool
        where = pool.root / name
        where.mkdir(mode=0o755)
        self.host = Host(where, registry)
        self.jobs = self.host.state / "jobs"
        self.errors = ""

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Start ``publisher sync``, with its progress on standard error."""
        account = [f"--condor-account={self.pool.account}"] if self.pool.account else []
        flags = [*self.host.flags(), "--builder=condor", "--condor-sample=0", "--json", *account, *more]
        env = {**environment(self.host.where), "CONDOR_CONFIG": self.pool.environment["CONDOR_CONFIG"]}
        argv = [sys.executable, "-m", "publisher", "sync", *flags]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, env=env, cwd=self.host.where, text=True, **pipes)  # type: ignore[call-overload,no-any-return]  # keywords

    def sync(self, *more: str) -> dict[str, Any]:
        """Run ``publisher sync`` to its end; return its report."""
        with self.start(*more) as process:
            said, self.errors = process.communicate(timeout=_DEADLINE)
        assert process.returncode == 0, self.errors + said
        report: dict[str, Any] = json.loads(said)
        return report

    def history(self) -> list[dict[str, Any]]:
        """Return the ads of the jobs that have left the queue; a schedd that is killed then may write one twice."""
        said = self.pool.run("condor_history", "-json", "-constraint", self._constraint()).strip()
        return list({ad["ClusterId"]: ad for ad in json.loads(said or "[]")}.values())

    def queue(self) -> list[dict[str, Any]]:
        """Return the ads of the jobs in the queue; nothing while the schedd does not answer."""
        said = self.pool.run("condor_q", "-allusers", "-json", "-constraint", self._constraint(), check=False).strip()
        return json.loads(said) if said else []

    def directories(self) -> list[Path]:
        """Return the directories of jobs."""
        return [path for path in self.jobs.iterdir() if path.is_dir()]

    def act(self, program: str, job: dict[str, Any]) -> bool:
        """Remove or hold a job as its user; return whether that was possible."""
        said = self.pool.run(program, f"{job['ClusterId']}.{job['ProcId']}", user=self.pool.account, check=False)
        return " marked for removal" in said or " held" in said

    def kill(self, daemon: str) -> None:
        """Kill a process of HTCondor's, such as ``condor_schedd``, if there is one."""
        for process in self.pool.processes():
            if command_line(process).startswith(daemon.encode()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, 9)
                return

    def _constraint(self) -> str:
        return f'OspoolImageBuild isnt undefined && regexp("{self.jobs}", Iwd)'


@contextlib.contextmanager
def building_pool() -> Iterator[Pool]:
    """Yield a pool of eight slots whose killed daemons are started again at once."""
    with Pool(SLOTS) as pool:
        pool.configuration("60-builds", _CONFIGURATION)
        pool.start({})
        yield pool


def names(report: dict[str, Any], results: Sequence[str] = ("published", "unchanged")) -> set[str]:
    """Return the images of a report with one of these results."""
    return {image["name"] for image in report["images"] if image["result"] in results}
