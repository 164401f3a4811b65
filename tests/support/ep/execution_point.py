"""An execution point with a repository, an origin and a signed manifest, made without the publisher."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from publisher.contract import manifest
from publisher.contract.manifest import Index
from publisher.contract.records import Record, Sif, Version
from publisher.resolver.config.settings import ResolverSettings
from publisher.resolver.select.resolve import resolve
from publisher.resolver.system.notes import Warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from typing import Optional

    from publisher.resolver.select.preparation import Resolution

NOW = 1_750_000_000
REPOSITORY = "images.example.org"
_FORMAT = serialization.PublicFormat.SubjectPublicKeyInfo


class Key:
    """A signing key, its id and its public half in PEM."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        public = self._private.public_key()
        self.keyid = hashlib.sha256(public.public_bytes(serialization.Encoding.DER, _FORMAT)).hexdigest()
        self.pem = public.public_bytes(serialization.Encoding.PEM, _FORMAT)

    def sign(self, payload: bytes) -> bytes:
        return self._private.sign(payload, ec.ECDSA(hashes.SHA256()))


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def sif_content(text: str, size: int = 1000) -> bytes:
    """Return a file that the resolver takes for a SIF."""
    body = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + text.encode()
    return body + hashlib.shake_128(text.encode()).digest(max(0, size - len(body)))


def sif_of(content: bytes) -> Sif:
    sha256 = hashlib.sha256(content).hexdigest()
    return Sif(f"sif/{sha256[:2]}/{sha256}.sif", sha256, len(content))


def version(text: str, **more: object) -> Version:
    """Return a version with digests derived from ``text``; ``more`` sets fields of :class:`Version`."""
    hexadecimal = digest(text).removeprefix("sha256:")
    sandbox = f".images/{hexadecimal[:2]}/{hexadecimal[2:]}"
    fields = {"sandbox": sandbox, "sif": sif_of(sif_content(text)), "published": NOW - 86400, **more}
    return Version(digest(text), **fields)  # type: ignore[arg-type]  # fields of Version


def record(name: str, source: str = "", /, **versions: Iterable[Version]) -> Record:
    """Return the record of an image with these versions by architecture; by default one for amd64, derived from the name."""
    platforms = versions or {"amd64": [version(name)]}
    return Record(name, source or f"hub.example.org/{name}", digest(f"index of {name}"), platforms)


def envelope(index: Index, *keys: Key) -> bytes:
    payload = index.payload()
    return manifest.seal(payload, {key.keyid: key.sign(payload) for key in keys})


def revision(
    records: Iterable[Record],
    key: Key,
    *,
    serial: int = 1,
    now: int = NOW,
    repository: str = REPOSITORY,
    count: int = 4,
    predecessors: Mapping[str, str] | None = None,
) -> dict[str, bytes]:
    """Return the files of a manifest: name -> content."""
    named: list[dict[str, dict[str, object]]] = [{} for _ in range(count)]
    aliases: list[dict[str, str]] = [{} for _ in range(count)]
    for one in records:
        named[manifest.shard_number(one.name, count)][one.name] = one.to_json()
        for alias in one.aliases():
            aliases[manifest.shard_number(alias, count)][alias] = one.name
    shards = [manifest.make_shard(found, others) for found, others in zip(named, aliases)]
    digests = [hashlib.sha256(shard).hexdigest() for shard in shards]
    index = Index(
        repository,
        serial=serial,
        generated=now,
        expires=now + manifest.LIFETIME,
        sif_prefix="sif",
        shards=digests,
        predecessors=predecessors,
    )
    files = {manifest.shard_name(sha256): shard for sha256, shard in zip(digests, shards)}
    return {**files, manifest.INDEX_NAME: envelope(index, key)}


def with_keys(files: dict[str, bytes], keys: Optional[manifest.Envelope], *cosigners: Key) -> dict[str, bytes]:
    """Return the files of a manifest whose index brings a keys document, and which ``cosigners`` sign as well."""
    opened = manifest.Envelope.parse(files[manifest.INDEX_NAME])
    signatures = [*opened.signatures, *((key.keyid, key.sign(opened.payload)) for key in cosigners)]
    return {**files, manifest.INDEX_NAME: manifest.Envelope(opened.payload, signatures, keys).content()}


def lay_down(files: dict[str, bytes], directory: Path) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class ExecutionPoint:
    """Directories of one execution point, and the resolver run there.

    Attributes:
        repository, origin, cache, keys: its directories; the manifest is in ``repository/.publisher`` and ``origin/manifest``.
        key: what signs; its public half is in ``keys``.
        two_levels: returns the keys document that comes with an index signed at a time; None for one level of keys.
        notes: of the last resolution.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = root / REPOSITORY
        self.origin = root / "origin"
        self.cache = root / "cache"
        self.keys = root / "keys"
        self.key = Key()
        self.two_levels: Optional[Callable[[int], manifest.Envelope]] = None
        self.notes = Warnings()
        self.keys.mkdir()
        (self.keys / "current.pem").write_bytes(self.key.pem)

    def publish(
        self,
        *records: Record,
        serial: int = 1,
        now: int = NOW,
        key: Key | None = None,
        predecessors: Mapping[str, str] | None = None,
    ) -> dict[str, bytes]:
        """Write sandboxes, and the manifest to the repository and the origin; return the manifest's files."""
        for one in records:
            for _, found in one.versions():
                if found.sandbox is not None:
                    (self.repository / found.sandbox / "bin").mkdir(parents=True, exist_ok=True)
        signed = revision(records, key or self.key, serial=serial, now=now, predecessors=predecessors)
        files = with_keys(signed, self.two_levels and self.two_levels(now))
        lay_down(files, self.repository / ".publisher")
        lay_down(files, self.origin / "manifest")
        return files

    def store(self, content: bytes) -> Sif:
        """Write a SIF to the origin."""
        sif = sif_of(content)
        lay_down({sif.path: content}, self.origin)
        return sif

    def settings(self, **changed: str | list[str] | None) -> ResolverSettings:
        """Return the usual settings with changes; None removes one. ``repository_name`` stands for ``repository-name``."""
        usual: dict[str, str | list[str] | None] = {
            "repository": str(self.repository),
            "origin": str(self.origin),
            "cache": str(self.cache),
            "public_key": str(self.keys),
        }
        given = {name.replace("_", "-"): value for name, value in {**usual, **changed}.items() if value is not None}
        return ResolverSettings({name: [value] if isinstance(value, str) else value for name, value in given.items()}, "amd64")

    def resolve(self, name: str, now: float = NOW, **changed: str | list[str] | None) -> Resolution:
        self.notes = Warnings()
        return resolve(name, self.settings(**changed), now, self.notes)
