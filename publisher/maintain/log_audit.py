"""Verification of the publication log against the manifest, and of both against a witness. Read-only, without a network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import Envelope, Index
from publisher.errors import PublishedManifestError
from publisher.state import publication_log, signing
from publisher.state.publication_log import LogEntry, entry_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from publisher.contract.records import Record
    from publisher.state.signing import PublicKey

    Read = Callable[[str], bytes | None]
    """Returns the content of a file below the manifest's directory, None if there is none."""


@dataclass(frozen=True)
class PublicationLog:
    """A log that was read: its ``entries``, the oldest first, and the ``problems`` of its chain."""

    entries: tuple[LogEntry, ...]
    problems: tuple[str, ...]


def read_log(read: Read, index: Index) -> PublicationLog:
    """Read a log backwards from the entry that an index names, checking that each entry is the one that the next one names."""
    entries: list[LogEntry] = []
    problems: list[str] = []
    sha256, serial = index.log or None, index.serial
    if sha256 is None:
        problems.append("the manifest names no log; the next publication begins one")
    while sha256 is not None:
        entry = _read_entry(read, serial, sha256)
        if isinstance(entry, str):
            problems.append(entry)
            break
        if entry.serial != serial or entry.repository != index.repository or not entry.previous_serial < serial:
            problems.append(f"{entry_name(serial)} does not fit where it is")
            break
        if entries and entry.time > entries[-1].time:
            problems.append(f"serial {entries[-1].serial} was published earlier than serial {serial}, according to its clock")
        entries.append(entry)
        sha256, serial = entry.previous, entry.previous_serial
    if entries and entries[0].shards != publication_log.shards_sha256(index.shards):
        problems.append(f"{entry_name(index.serial)} is about other shards than the manifest's")
    return PublicationLog(tuple(reversed(entries)), tuple(problems))


def verify_log(log: PublicationLog, records: Iterable[Record]) -> Iterator[str]:
    """Verify a log: its chain, and that what it says is published is what the manifest says.

    Yields:
        A line for each problem.
    """
    yield from log.problems
    if log.problems:
        return
    says, is_published = publication_log.replay(log.entries), publication_log.published(records)
    for name, platform in sorted(says[0].keys() | is_published[0].keys()):
        logged, current = (digests.get((name, platform)) for digests in (says[0], is_published[0]))
        if logged != current:
            yield f"{name} {platform} is {current or 'not published'}, but {logged or 'not published'} according to the log"
    for name, platform, digest in sorted(says[1] ^ is_published[1]):
        where = "manifest" if (name, platform, digest) in is_published[1] else "log"
        yield f"{name} {platform} {digest} is blocked only according to the {where}"


def compare_with_witness(
    log: PublicationLog, index: Index, witnessed: Iterable[tuple[str, bytes]], trusted: Collection[PublicKey] | None
) -> Iterator[str]:
    """Compare the log with every index that a witness has.

    Two valid indexes of one serial that name different entries prove that the publisher, or a thief of its keys, showed different
    manifests to different readers.

    Args:
        log: the log, verified.
        index: the published index.
        witnessed: name and content of each index of the witness.
        trusted: keys of which one must have signed an index; None to skip the signature check.

    Yields:
        A line for each problem.
    """
    entries = {entry.serial: hashlib.sha256(entry.content()).hexdigest() for entry in log.entries}
    first, serials = min(entries, default=0), set()
    for name, content in witnessed:
        try:
            other = Index.parse(_payload(content, trusted), index.repository)
        except (ManifestError, PublishedManifestError) as error:
            yield f"the witness's {name} proves nothing: {error.reason}"
            continue
        serials.add(other.serial)
        entry = entries.get(other.serial, "none")
        if other.serial > index.serial:
            yield f"the witness has serial {other.serial}, but serial {index.serial} is published: {name} was taken back"
        elif other.log and other.serial >= first and other.log != entry:
            yield (
                f"EQUIVOCATION: the witness's signed index {name} names the log entry {other.log}, and the log has {entry} "
                f"for serial {other.serial}; keep both files"
            )
    if index.serial not in serials:
        yield f"the witness lacks serial {index.serial}; the next run sends it"


def _payload(content: bytes, trusted: Collection[PublicKey] | None) -> bytes:
    envelope = Envelope.parse(content)
    if trusted is not None:
        signing.verify(envelope.payload, envelope.signatures, trusted)
    return envelope.payload


def _read_entry(read: Read, serial: int, sha256: str) -> LogEntry | str:
    """Return an entry of the log, or what is wrong with it."""
    name = entry_name(serial)
    content = read(name)
    if content is None:
        return f"{name} is missing"
    if hashlib.sha256(content).hexdigest() != sha256:
        return f"{name} was changed: its sha256 is not the one that the entry after it, or the manifest, names"
    try:
        return LogEntry.parse(content)
    except ManifestError as error:
        return f"{name} cannot be read: {error.reason}"
