"""Reads traces of execution points (``image-resolver --trace``): what was appended since the last time, also after a rotation."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from publisher.errors import UsageError
from publisher.usage.records import TRACE, JobRecord, job_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_LONGEST_LINE = 1 << 16
_MOST_LINES = 5_000_000


class TraceFile:
    """A trace, known by its first line: a rotation renames it, and its offset stays right.

    Args:
        path: the file.
        offsets: sha256 of a first line -> bytes that were read before.

    Attributes:
        key: sha256 of its first line, None if it has no whole line yet.
        offset: bytes that have been read once the records are consumed.

    Raises:
        UsageError: it cannot be read.
    """

    def __init__(self, path: Path, offsets: Mapping[str, int]) -> None:
        self._path = path
        self.key: str | None = None
        try:
            with path.open("rb") as file:
                first = file.readline(_LONGEST_LINE)
        except OSError as error:
            raise UsageError(f"the trace {path} cannot be read: {error.strerror}") from None
        if first.endswith(b"\n"):
            self.key = hashlib.sha256(first).hexdigest()
        self.offset = 0 if self.key is None else offsets.get(self.key, 0)

    def records(self, now: int) -> Iterator[JobRecord]:
        """Yield the jobs of new whole lines that started with an image; lines that are no decisions are left out."""
        if self.key is None:
            return
        with self._path.open("rb") as file:
            file.seek(self.offset)
            for _ in range(_MOST_LINES):
                line = file.readline(_LONGEST_LINE)
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                found = _record(line, now)
                if found is not None:
                    yield found


def _record(line: bytes, now: int) -> JobRecord | None:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("code") != 0:
        return None
    image = value.get("name") or value.get("candidate") or value.get("image")
    if value.get("name") is None and not str(image).startswith("docker://"):
        return None
    return job_record(TRACE, now, time=value.get("time"), image=image, digest=value.get("digest"), host=value.get("host"))
