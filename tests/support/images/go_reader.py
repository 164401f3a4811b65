"""Go's ``archive/tar``, the reader of umoci, Apptainer, Docker and containerd: a small program, built where Go is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from types import TracebackType

_SOURCE = Path(__file__).parent / "go" / "read_tar.go"


class ReadEntry(NamedTuple):
    """One entry as a reader finds it.

    Attributes:
        kind: type flag; ``0`` also for GNU's sparse files.
        name: as it is in the archive.
        link: target as it is in the archive.
        size: bytes of the content.
        mode: permission bits.
        mtime: seconds since the epoch, rounded down.
        attributes: extended attributes that are not empty, by name.
        content: sha256.
    """

    kind: bytes
    name: bytes
    link: bytes
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int
    attributes: dict[bytes, bytes]
    content: bytes


def is_available() -> bool:
    """Return whether Go is installed."""
    return shutil.which("go") is not None


class GoReader:
    """A running process that reads archives; use it in a ``with`` statement.

    Args:
        where: directory for the built program and Go's cache.
    """

    def __init__(self, where: Path) -> None:
        program = where / "read_tar"
        env = {**os.environ, "GOCACHE": str(where / "cache"), "GOFLAGS": "", "GO111MODULE": "off", "CGO_ENABLED": "0"}
        subprocess.run(["go", "build", "-o", str(program), str(_SOURCE)], env=env, check=True, timeout=280)
        self._process = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate(timeout=60)

    def read(self, archive: bytes) -> list[ReadEntry] | str | None:
        """Return the entries of an archive, the error with which Go refuses it, or None where a file is larger than 16 MiB."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(b"%08x" % len(archive) + archive)
        stdin.flush()
        answer = json.loads(stdout.readline())
        if answer["TooLarge"]:
            return None
        return answer["Error"] or [_parsed(entry) for entry in answer["Entries"]]


def _parsed(entry: dict[str, object]) -> ReadEntry:
    def unhexed(key: str) -> bytes:
        return bytes.fromhex(str(entry[key]))

    kind = str(entry["Kind"]).encode("latin-1", "replace")
    size, mode, uid, gid, mtime = (int(str(entry[key])) for key in ("Size", "Mode", "Uid", "Gid", "Mtime"))
    attributes = entry["Xattrs"]
    assert isinstance(attributes, dict)
    pairs = {bytes.fromhex(key): bytes.fromhex(value) for key, value in attributes.items()}
    return ReadEntry(kind, unhexed("Name"), unhexed("Link"), size, mode, uid, gid, mtime, pairs, unhexed("Content"))
