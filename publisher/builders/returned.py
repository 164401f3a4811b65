"""What a job has returned: read from a directory of another account, and verified before it counts as a build.

Verified is what can be verified without the layers: the digests, the SIF's header, that the SIF has exactly the files of its file
index, and the numbers of the record. Whether these are the image's files is what the sample is for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import struct
from typing import TYPE_CHECKING

import zstandard

from publisher.build import readback
from publisher.build.readback import ExpectedFiles, ReadbackError
from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.builders.jobs import ERROR, LOG
from publisher.builders.orders import BUILT, FILE_INDEX, REPORT, SIF, JobError, JobReport
from publisher.chunks.cutter import cut_file
from publisher.errors import BuildError
from publisher.fileindex.format import read_file_index
from publisher.state.built import BuiltImage
from publisher.system.logs import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader
    from pathlib import Path

    from publisher.build.builder import BuildRequest
    from publisher.layers.limits import LayerLimits

_TABLE = "image.chunks"
_CHUNK = 1 << 20
_MAX_REPORT = 1 << 20  # bytes
_MAX_LOG = 16 << 20  # bytes
_LAST_WORDS = 500  # bytes
_CREATED = 64  # offset of the creation time in a SIF's header
_INDEX_PER_ENTRY = 8 << 10  # bytes of a file index, at most
_SLOT = re.compile(rb"^\s*SlotName: (\S+)", re.MULTILINE)


def read_report(directory: Path) -> JobReport:
    """Return the report that a job has returned.

    Raises:
        JobError: there is none, or it is not valid.
    """
    with _opened(directory, REPORT) as file:
        return JobReport.parse(file.read(_MAX_REPORT + 1))


def is_complete(directory: Path) -> bool:
    """Return whether a directory has all that a finished job returns, as far as sizes tell."""
    try:
        report = read_report(directory)
        if report.outcome != BUILT or report.uploaded:
            return True
        with _opened(directory, SIF) as file:
            size: int = report.build["size"]
            return os.fstat(file.fileno()).st_size == size
    except JobError:
        return False


def read_machine(directory: Path) -> str:
    """Return the machine that a job ran on last, as the event log says, which the access point writes; empty if unknown."""
    try:
        with _opened(directory, LOG) as file:
            slots = _SLOT.findall(file.read(_MAX_LOG))
    except JobError:
        return ""
    return slots[-1].decode("utf-8", "replace").rpartition("@")[2] if slots else ""


def last_words(directory: Path) -> str:
    """Return the last line of a job's standard error, for people; empty if there is none."""
    try:
        with _opened(directory, ERROR) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_WORDS))
            lines = file.read(_LAST_WORDS).decode("utf-8", "replace").split("\n")
    except JobError:
        return ""
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), ""))


def digest_of_sif(directory: Path) -> str:
    """Return the sha256 of the SIF that a job has returned.

    Raises:
        JobError: there is none.
    """
    with _opened(directory, SIF) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def collect(
    directory: Path,
    report: JobReport,
    target: Path,
    request: BuildRequest,
    *,
    limits: LayerLimits,
    deadline: float,
    fetch: Callable[[Path, int], str] | None = None,
) -> BuiltImage:
    """Copy what a job has returned into a directory of this host's and verify the copies; return the build.

    Args:
        directory: the job's directory.
        report: its report.
        target: an existing directory for the SIF and the file index.
        request: what was to be built.
        limits: the limits of one image.
        deadline: seconds that the readback may take.
        fetch: copies the SIF into a new file, which may have that size, from where the job has put it instead; it returns the
            sha256, or raises JobError.

    Raises:
        JobError: the files are not what the report says, or not those of the image.
        OSError: they cannot be copied.
    """
    facts = report.build
    if facts["config"] != request.image.content:
        raise JobError("the job has built another image than the one it was to build")
    if facts["unpacked_size"] > limits.unpacked_size or facts["files"] > limits.entries:
        raise JobError("the job's SIF exceeds the limits of one image")
    sif, index = target / SIF, target / FILE_INDEX
    sha256 = _copy(directory, sif, facts["size"], "SIF") if fetch is None else fetch(sif, facts["size"])
    if sha256 != facts["sha256"]:
        raise JobError("the job's SIF does not have the digest that its report says")
    if _copy(directory, index, facts["files"] * _INDEX_PER_ENTRY, "file index") != report.file_index_sha256:
        raise JobError("the job's file index does not have the digest that its report says")
    table = _check_sif(sif, request, facts["sha256"])
    _check_numbers(index, facts["files"], facts["unpacked_size"])
    try:
        readback.check(sif, ExpectedFiles.of(index), deadline=deadline)
    except ReadbackError as error:
        raise JobError(f"the job's SIF is not valid: {error.reason}") from None
    if table is None:
        return BuiltImage(sif=sif, file_index=index, **facts)
    (target / _TABLE).write_bytes(table)
    chunks: dict[str, str | int] = {"sha256": hashlib.sha256(table).hexdigest(), "size": len(table)}
    return BuiltImage(sif=sif, file_index=index, chunk_table=target / _TABLE, chunks=chunks, **facts)


def _check_sif(sif: Path, request: BuildRequest, sha256: str) -> bytes | None:
    """Raise JobError unless a SIF keeps its digest when this program writes its header again; return its chunk table.

    Only the time in it, which is that of the newest file, is taken from the SIF.
    """
    with sif.open("rb") as file:
        head = file.read(DATA_OFFSET)
    if len(head) < DATA_OFFSET:
        raise JobError("the job's SIF is too short")
    (epoch,) = struct.unpack_from("<q", head, _CREATED)
    identity = bytes.fromhex(request.image.content.removeprefix("sha256:"))
    with sif.open("r+b") as file:
        file.write(bytes(DATA_OFFSET))
    try:
        write_sif_header(sif, architecture=request.image.platform.architecture, identity=identity, epoch=epoch)
    except BuildError as error:
        raise JobError(f"the job's SIF is not valid: {error.reason}") from None
    actual, table = cut_file(sif)
    if actual != sha256:
        raise JobError("the job's SIF has another header than it should")
    return table


def _check_numbers(index: Path, files: int, unpacked_size: int) -> None:
    """Raise JobError unless a file index has as many entries and bytes as the report says."""
    count = size = 0
    try:
        with index.open("rb") as file:
            for line in read_file_index(file):
                count += 1
                size += line.size if line.kind == "f" else 0
                if count > files or size > unpacked_size:
                    break
    except (ValueError, LookupError, zstandard.ZstdError):
        raise JobError("the job's file index is not valid") from None
    if (count, size) != (files, unpacked_size):
        raise JobError("the job's file index does not have the number and sizes of files that its report says")


def _copy(directory: Path, target: Path, limit: int, what: str) -> str:
    """Copy a job's file of the same name; return its sha256. Raise JobError if it has more bytes than the limit."""
    digest, size = hashlib.sha256(), 0
    with _opened(directory, target.name) as source, target.open("xb") as copy:
        while data := source.read(_CHUNK):
            size += len(data)
            if size > limit:
                raise JobError(f"the job's {what} has more bytes than its report says")
            digest.update(data)
            copy.write(data)
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(directory: Path, name: str) -> Iterator[BufferedReader]:
    """Open a file of a job, which may be any account's: no link is followed, and nothing is waited for.

    Raises:
        JobError: there is none, or it is not a regular file.
    """
    try:
        above = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
        finally:
            os.close(above)
    except OSError as error:
        raise JobError(f"the job has returned no {name}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise JobError(f"the job has returned a {name} that is not a file")
        yield file
