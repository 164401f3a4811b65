"""Reads the history of access points: the output of ``condor_history -json``, from a file or from the program itself."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.errors import UsageError
from publisher.system import command
from publisher.usage.records import HISTORY, JobRecord, job_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ATTRIBUTES = (
    "GlobalJobId",
    "CompletionDate",
    "EnteredCurrentStatus",
    "ChirpImageName",
    "ChirpImageDigest",
    "LastRemoteHost",
    "ContainerImage",
    "SingularityImage",
)
_DEADLINE = 3600.0


@dataclass(frozen=True)
class HistoryRow:
    """A job that has ended: its access point, its id, and what it used, None if it used nothing that counts."""

    schedd: str
    id: str
    time: int
    record: JobRecord | None


def ask(program: str, schedd: str | None, since: int) -> bytes:
    """Return what ``condor_history`` says of the jobs that have completed since a time.

    Args:
        program: path or name of ``condor_history``.
        schedd: name of the access point's schedd, None for the one on this host.
        since: seconds since the epoch, 0 for all.

    Raises:
        CommandError: the program is missing or failed.
    """
    argv = [program, "-json", "-attributes", ",".join(_ATTRIBUTES), "-completedsince", str(since)]
    named = [] if schedd is None else ["-name", schedd]
    settings = {name: value for name, value in os.environ.items() if name == "CONDOR_CONFIG" or name.startswith("_CONDOR_")}
    return command.run([*argv, *named], deadline=_DEADLINE, env=settings).stdout


def rows(content: bytes, now: int) -> Iterator[HistoryRow]:
    """Yield the jobs in the output of ``condor_history -json`` or ``-jsonl``; what is no job is left out.

    Raises:
        UsageError: the text is neither.
    """
    for ad in _ads(content):
        job, ended = ad.get("GlobalJobId"), ad.get("CompletionDate") or ad.get("EnteredCurrentStatus")
        if isinstance(job, str) and isinstance(ended, int):
            images = [ad.get(name) for name in ("ChirpImageName", "ContainerImage", "SingularityImage")]
            image = images[0] or next((one for one in images if isinstance(one, str) and one.startswith("docker://")), None)
            digest, host = ad.get("ChirpImageDigest"), ad.get("LastRemoteHost")
            record = job_record(HISTORY, now, time=ended, image=image, digest=digest, host=host)
            yield HistoryRow(job.partition("#")[0], job, ended, record)


def _ads(content: bytes) -> Iterable[dict[str, Any]]:
    text = content.decode("utf-8", "replace").strip()
    try:
        values = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    except (ValueError, RecursionError):
        raise UsageError("the history is not what condor_history -json prints") from None
    return [value for value in values if isinstance(value, dict)]
