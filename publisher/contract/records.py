"""The records of the manifest: what is published under each name, and the versions of each platform.

Both sides import this module: the publisher makes records, the execution point reads them from a shard
(:mod:`publisher.contract.manifest`). Times are seconds since the epoch.
"""

from __future__ import annotations

from publisher.contract import fields
from publisher.contract.errors import ManifestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

CURRENT, SUPERSEDED, EXPIRING, BLOCKED = "current", "superseded", "expiring", "blocked"
"""States of a version: the name means it; the name meant it before; it is removed at ``until``; nobody may run it."""
ADOPTED = "adopted"
"""The note of a version whose sandbox another tool made: its value says how the build was recognised."""
SIF_SOURCE, _SIF_FOR = "source", "SIF for "
"""The note of a version that was listed as a SIF: it is published byte for byte, and its config is the SIF's own digest."""
NO_SHELL = "the image has no /bin/sh"
"""The note ``test`` of a version that could not be run for this reason."""
_STATES = (CURRENT, SUPERSEDED, EXPIRING, BLOCKED)


def sif_note(architecture: str) -> str:
    """Return the text of the note :data:`SIF_SOURCE`; the architecture is Go's name of what the SIF was built for."""
    return f"{_SIF_FOR}{architecture}"


def split_platform(platform: str) -> tuple[str, str]:
    """Split a platform of a record, such as ``amd64,x86-64-v3``, into architecture and conditions, which are empty for most."""
    arch, _, conditions = platform.partition(",")
    return arch, conditions


class Chunks:
    """A SIF's chunk table in the origin: ``sha256`` (64 hex digits) and ``size`` of the table in bytes.

    :mod:`publisher.contract.chunk_table` reads it.
    """

    __slots__ = ("sha256", "size")

    def __init__(self, sha256: str, size: int) -> None:
        self.sha256 = sha256
        self.size = size

    @property
    def path(self) -> str:
        """Return the path of the table in the origin, which its own sha256 gives."""
        return f"sif/{self.sha256[:2]}/{self.sha256}.chunks"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"sha256": self.sha256, "size": self.size}

    @classmethod
    def from_json(cls, value: Any) -> Chunks:
        """Return the table that a JSON object names; raise what :meth:`Version.from_json` does."""
        return cls(fields.sha256(value["sha256"]), fields.count(value["size"]))


class Sif:
    """A SIF in the origin.

    Attributes:
        path: its path below the origin's prefix.
        sha256: 64 hex digits.
        size: bytes.
        chunks: its chunk table, None if it has none.
    """

    __slots__ = ("chunks", "path", "sha256", "size")

    def __init__(self, path: str, sha256: str, size: int, chunks: Chunks | None = None) -> None:
        self.path = path
        self.sha256 = sha256
        self.size = size
        self.chunks = chunks

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        value: dict[str, Any] = {"path": self.path, "sha256": self.sha256, "size": self.size}
        return value if self.chunks is None else {**value, "chunks": self.chunks.to_json()}

    @classmethod
    def from_json(cls, value: Any) -> Sif:
        """Return the SIF that a JSON object describes; raise what :meth:`Version.from_json` does."""
        chunks = value.get("chunks")
        return cls(
            fields.safe_path(value["path"]),
            fields.sha256(value["sha256"]),
            fields.count(value["size"]),
            None if chunks is None else Chunks.from_json(chunks),
        )


class Version:
    """A published build of an image for one platform.

    Attributes:
        digest: digest of the platform's image manifest, ``sha256:<64 hex>``.
        config: digest of the image's config, which names the uncompressed layers; None if it is not known. Images with one config
            have the same tree, whatever their manifests say of compression.
        sandbox: path of the sandbox in the repository, None if no sandbox is published.
        sif: the SIF, None if no SIF is published.
        state: one of :data:`CURRENT`, :data:`SUPERSEDED`, :data:`EXPIRING`, :data:`BLOCKED`.
        since: when ``state`` began.
        until: when an expiring version is removed, else None.
        reason: why the version is blocked, else None.
        published: when the version was first published.
        unpacked_size: bytes of all its files.
        files: number of entries in its tree.
        file_index: sha256 (64 hex digits) of its file index, None if it has none; only the publisher reads it.
        test: ``ran`` or ``structure``: how the SIF was tested.
        tools: name -> version of the programs that built it.
        notes: what the build changed in the tree, name -> count or text.
        attached: what its registry had attached to the image (signatures, attestations, SBOMs): objects with the ``digest`` of
            the attached manifest, its ``kind`` and its ``type``; None if nothing was.
        signed: whose signature of the image the publisher verified: ``identity`` and ``issuer``, or ``key`` (sha256 of the
            public key); None if it verified none.
        reference: the image's complete reference, if it is not that of the record: a variant is an image of its own.
    """

    __slots__ = (
        "attached", "config", "digest", "file_index", "files", "notes", "published", "reason", "reference", "sandbox", "sif",
        "signed", "since", "state", "test", "tools", "unpacked_size", "until",
    )  # fmt: skip

    def __init__(
        self,
        digest: str,
        *,
        sandbox: str | None,
        sif: Sif | None,
        published: int,
        config: str | None = None,
        unpacked_size: int = 0,
        files: int = 0,
        file_index: str | None = None,
        test: str = "",
        tools: Mapping[str, str] | None = None,
        notes: Mapping[str, int | str] | None = None,
        state: str = CURRENT,
        since: int | None = None,
        until: int | None = None,
        reason: str | None = None,
        attached: Sequence[Mapping[str, str]] | None = None,
        signed: Mapping[str, str] | None = None,
        reference: str | None = None,
    ) -> None:
        self.digest = digest
        self.config = config
        self.sandbox = sandbox
        self.sif = sif
        self.published = published
        self.unpacked_size = unpacked_size
        self.files = files
        self.file_index = file_index
        self.test = test
        self.tools = dict(tools or {})
        self.notes = dict(notes or {})
        self.state = state
        self.since = published if since is None else since
        self.until = until
        self.reason = reason
        self.attached = attached or None
        self.signed = signed or None
        self.reference = reference

    @property
    def content(self) -> str:
        """Return the digest that sandbox and file index are stored under: the config's, or the image manifest's without one."""
        return self.config or self.digest

    @property
    def identities(self) -> tuple[str, ...]:
        """Return the digests that the image is known by: its image manifest's, and its config's."""
        return (self.digest,) if self.config is None else (self.digest, self.config)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object; attributes that are None are left out."""
        value = {name: getattr(self, name) for name in self.__slots__} | {"sif": self.sif and self.sif.to_json()}
        return {name: content for name, content in value.items() if content is not None}

    @classmethod
    def from_json(cls, value: Any) -> Version:
        """Return the version that a JSON object describes.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the object does not describe a version, or has an unsafe path or
                a malformed digest. :meth:`Record.from_json` turns these into a ManifestError.
        """
        sif = value.get("sif")
        state = fields.one_of(value["state"], _STATES)
        return cls(
            fields.digest(value["digest"]),
            sandbox=None if value.get("sandbox") is None else fields.safe_path(value["sandbox"]),
            sif=None if sif is None else Sif.from_json(sif),
            published=fields.count(value["published"]),
            config=None if value.get("config") is None else fields.digest(value["config"]),
            unpacked_size=fields.count(value.get("unpacked_size", 0)),
            files=fields.count(value.get("files", 0)),
            file_index=None if value.get("file_index") is None else fields.sha256(value["file_index"]),
            test=str(value.get("test", "")),
            tools=value.get("tools"),
            notes=value.get("notes"),
            state=state,
            since=fields.count(value.get("since", value["published"])),
            until=None if value.get("until") is None else fields.count(value["until"]),
            reason=None if value.get("reason") is None else str(value["reason"]),
            attached=fields.texts(value.get("attached", ())),
            signed=next(iter(fields.texts((value.get("signed", {}),)))),
            reference=None if value.get("reference") is None else str(value["reference"]),
        )


class Record:
    """What is published under one name.

    Attributes:
        name: the CVMFS name, ``htc/rocky:9``.
        reference: the image's complete reference in its registry, ``hub.opensciencegrid.org/htc/rocky:9``.
        digest: the digest that the tag had when it was last published (of an OCI index, or of the only image manifest).
        platforms: ``amd64``, ``arm64``, ``arm/v7`` … -> versions, the current one first, superseded ones newest first. A variant
            has its conditions after the architecture: ``amd64,x86-64-v3`` (:mod:`publisher.contract.conditions`).
        rollback: what the publisher remembers of a name that was rolled back (key ``held`` in the JSON), else None;
            execution points ignore it.
    """

    __slots__ = ("digest", "name", "platforms", "reference", "rollback")

    def __init__(
        self,
        name: str,
        reference: str,
        digest: str,
        platforms: Mapping[str, Iterable[Version]],
        rollback: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.reference = reference
        self.digest = digest
        self.platforms = {platform: tuple(versions) for platform, versions in platforms.items()}
        self.rollback = rollback

    def versions(self) -> Iterator[tuple[str, Version]]:
        """Yield every version as ``(platform, version)``."""
        for platform, versions in self.platforms.items():
            for version in versions:
                yield platform, version

    def current(self, platform: str) -> Version | None:
        """Return what the name means on a platform: its first version, None if that one is superseded or missing."""
        versions = self.platforms.get(platform, ())
        return versions[0] if versions and versions[0].state != SUPERSEDED else None

    def aliases(self) -> Iterator[str]:
        """Yield the other keys of this record: its reference, its digest, and each version's digests, sandbox and SIF.

        The reference of a SIF is no key: no job names the source of what it runs.
        """
        if "://" not in self.reference:
            yield f"docker://{self.reference}"
        yield self.digest
        for _, version in self.versions():
            yield from version.identities
            if version.sandbox is not None:
                yield version.sandbox
            if version.sif is not None:
                yield f"sha256:{version.sif.sha256}"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object; the name is its key in the shard."""
        platforms = {platform: [version.to_json() for version in versions] for platform, versions in self.platforms.items()}
        value = {"reference": self.reference, "digest": self.digest, "platforms": platforms}
        return value if self.rollback is None else {**value, "held": dict(self.rollback)}

    @classmethod
    def from_json(cls, name: str, value: Any) -> Record:
        """Return the record of ``name`` that a JSON object describes.

        Raises:
            ManifestError: the object does not describe a record.
        """
        try:
            platforms = {str(key): tuple(map(Version.from_json, versions)) for key, versions in value["platforms"].items()}
            digest = fields.digest(value["digest"])
            return cls(fields.safe_path(name), str(value["reference"]), digest, platforms, value.get("held"))
        except fields.SHAPE_ERRORS as error:
            raise ManifestError(f"the manifest's record of {name!r} is not valid: {error!r}") from None
