"""A real docker-registry on a loopback port of its own, and images pushed into it over plain HTTP.

It needs only the standard library and zstandard, and not pytest, because ``ci/quickstart`` uses it too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import hashlib
import http.client
import json
import re
import socket
import subprocess
import time
import urllib.parse
from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

OCI = {
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "none": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
DOCKER = {
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "none": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
}
_REMEMBERED = 8 << 20  # bytes of a layer
_READY = 30.0  # seconds for a registry to answer
_PUSHED: dict[tuple[str, str], str] = {}  # address, digest -> the repository where a blob was pushed first
_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<path>/\S*) HTTP/[0-9.]+" (?P<status>[0-9]{3}) ')


@dataclass(frozen=True)
class Request:
    """A request that the registry received: one line of its access log."""

    method: str
    path: str
    status: int


class RegistryServer:
    """A context manager that runs ``docker-registry serve`` with its storage in ``root``.

    Args:
        root: the directory for storage, configuration and log.
        user: the name and password that requests need (basic authentication); None for no authentication.
        port: the port; None for a free one.
        notified: URL and value of the header Authorization of whoever is notified of pushes; None for nobody.
    """

    def __init__(
        self,
        root: Path,
        user: tuple[str, str] | None = None,
        port: int | None = None,
        notified: tuple[str, str] | None = None,
    ) -> None:
        self._root = root
        self._user = user
        self._port = port
        self._notified = notified
        self._seen = 0

    def __enter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True)
        self.port = self._port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        configuration = self._root / "registry.yml"
        configuration.write_text(json.dumps(self._configuration()))  # JSON is YAML
        self._log = self._root / "registry.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(configuration)], stdout=log, stderr=subprocess.STDOUT, cwd=self._root
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the registry; a second call does nothing."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def storage(self) -> Path:
        """The directory with its ``blobs`` and ``repositories`` (distribution's storage layout, version 2)."""
        return self._root / "storage" / "docker" / "registry" / "v2"

    def requests(self) -> list[Request]:
        """Return the requests since the last call. The log line of a request is written before its response ends."""
        lines = [found for line in self._log.read_text("utf-8", "replace").splitlines() if (found := _LINE.search(line))]
        new, self._seen = lines[self._seen :], len(lines)
        return [Request(line["method"], line["path"], int(line["status"])) for line in new]

    def _configuration(self) -> dict[str, object]:
        storage = {"filesystem": {"rootdirectory": str(self._root / "storage")}, "delete": {"enabled": True}}
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": storage,
            "http": {"addr": self.address},
            "validation": {"manifests": {"urls": {"allow": ["^http://127"]}}},  # foreign layers
        }
        if self._notified is not None:
            url, secret = self._notified
            endpoint = {"name": "test", "url": url, "headers": {"Authorization": [secret]}, "timeout": "5s"}
            configuration["notifications"] = {"endpoints": [{**endpoint, "threshold": 3, "backoff": "1s"}]}
        if self._user is not None:
            (self._root / "htpasswd").write_text(f"{self._user[0]}:{bcrypt(self._user[1])}\n")
            configuration["auth"] = {"htpasswd": {"realm": "test", "path": str(self._root / "htpasswd")}}
        return configuration

    def _wait(self) -> None:
        until = time.monotonic() + _READY
        while self.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                if ask(self.address, "GET", "/v2/", user=self._user).status == http.client.OK:
                    self.requests()
                    return
            time.sleep(0.02)
        raise RuntimeError(f"docker-registry does not answer: {self._log.read_text('utf-8', 'replace')[-2000:]}")


@dataclass(frozen=True)
class Response:
    """A response of the registry; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    address: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    user: tuple[str, str] | None = None,
) -> Response:
    """Send a request and return the response."""
    sent = dict(headers or {})
    if user is not None:
        sent["Authorization"] = "Basic " + b64encode(":".join(user).encode()).decode()
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        return Response(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def push_blob(address: str, repository: str, content: bytes, user: tuple[str, str] | None = None) -> str:
    """Upload a blob, unless the registry still has it in another repository where it was pushed, and return its digest."""
    digest = sha256(content)
    source = _PUSHED.setdefault((address, digest), repository)
    query = "" if source == repository else f"?mount={digest}&from={source}"
    begun = ask(address, "POST", f"/v2/{repository}/blobs/uploads/{query}", b"", user=user)
    if query and begun.status == http.client.CREATED:
        return digest
    begun = _expect(begun, 202)
    where = urllib.parse.urlsplit(begun.headers["location"])
    path = f"{where.path}?{where.query}&digest={digest}" if where.query else f"{where.path}?digest={digest}"
    _expect(ask(address, "PUT", path, content, {"Content-Type": "application/octet-stream"}, user=user), 201)
    return digest


def push_manifest(
    address: str, repository: str, tag: str, document: Mapping[str, object], user: tuple[str, str] | None = None
) -> str:
    """Upload an image manifest or index, under a tag or its digest (tag ``""``); return its digest."""
    body = json.dumps(document, indent=1).encode()
    digest = sha256(body)
    media_type = str(document.get("mediaType", OCI["manifest"]))
    _expect(
        ask(address, "PUT", f"/v2/{repository}/manifests/{tag or digest}", body, {"Content-Type": media_type}, user=user), 201
    )
    return digest


def push_image(
    address: str,
    repository: str,
    tag: str,
    layers: Sequence[bytes],
    config: Mapping[str, object] | None = None,
    *,
    compression: str = "gzip",
    oci: bool = True,
    platform: str = "linux/amd64",
    user: tuple[str, str] | None = None,
) -> str:
    """Push an image made of uncompressed layers and return the digest of its manifest.

    Args:
        address: ``host:port`` of the registry.
        repository: the name there.
        tag: the tag, ``""`` for none.
        layers: tar archives from the bottom up.
        config: fields of the config's ``config`` object: Env, Entrypoint, Cmd, Labels, WorkingDir and so on.
        compression: gzip, zstd or none.
        oci: OCI media types, else Docker's.
        platform: os/architecture[/variant].
        user: name and password, if the registry asks for them.
    """
    types = OCI if oci else DOCKER
    blobs = [compress(layer, compression) for layer in layers]
    parts = [*platform.split("/"), ""]
    document: dict[str, object] = {
        "created": "2024-01-01T00:00:00Z",
        "os": parts[0],
        "architecture": parts[1],
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
        "history": [{"created_by": "test"} for _ in layers],
    }
    if parts[2]:
        document["variant"] = parts[2]
    raw = json.dumps(document).encode()
    for blob in (*blobs, raw):
        push_blob(address, repository, blob, user)
    manifest = {
        "schemaVersion": 2,
        "mediaType": types["manifest"],
        "config": describe(raw, types["config"]),
        "layers": [describe(blob, types[compression]) for blob in blobs],
    }
    return push_manifest(address, repository, tag, manifest, user)


def read_manifest(address: str, repository: str, digest: str) -> dict[str, Any]:
    """Return the image manifest with this digest, as the registry has it."""
    response = ask(address, "GET", f"/v2/{repository}/manifests/{digest}", headers={"Accept": OCI["manifest"]})
    return json.loads(response.body)  # type: ignore[no-any-return]


def push_index(
    address: str, repository: str, tag: str, platforms: Mapping[str, str], *, oci: bool = True, attested: bool = False
) -> str:
    """Push an index of images that the repository already has, and return its digest.

    Args:
        address: ``host:port`` of the registry.
        repository: the name there.
        tag: the tag.
        platforms: os/architecture[/variant] -> digest of the image's manifest.
        oci: OCI media types, else Docker's.
        attested: add an entry like BuildKit's attestations, for each image.
    """
    types = OCI if oci else DOCKER
    entries = []
    for platform, digest in platforms.items():
        accept = {"Accept": f"{OCI['manifest']}, {DOCKER['manifest']}"}
        found = _expect(ask(address, "GET", f"/v2/{repository}/manifests/{digest}", headers=accept), 200)
        entry = {"mediaType": found.headers["content-type"], "digest": digest, "size": len(found.body)}
        entries.append({**entry, "platform": _platform(platform)})
        if attested:
            annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest}
            entries.insert(0, {**entry, "platform": _platform("unknown/unknown"), "annotations": annotations})
    document = {"schemaVersion": 2, "mediaType": types["index"], "manifests": entries}
    return push_manifest(address, repository, tag, document)


def describe(content: bytes, media_type: str) -> dict[str, object]:
    """Return the descriptor of some content."""
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}


def compress(layer: bytes, compression: str) -> bytes:
    """Return a compressed layer. gzip gets no date, so the same layer is always the same blob."""
    return (_compress_once if len(layer) < _REMEMBERED else _compress)(layer, compression)


def _compress(layer: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(layer, 1, mtime=0)  # as fast as it can: most layers have programs of this host
    return zstandard.ZstdCompressor(3).compress(layer) if compression == "zstd" else layer


_compress_once = lru_cache(maxsize=8)(_compress)  # most images begin with the same programs


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bcrypt(password: str) -> str:
    """Return a bcrypt hash, the only kind that docker-registry supports, made by the C library (crypt(3))."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    hashed: bytes | None = library.crypt(password.encode(), b"$2y$05$abcdefghijklmnopqrstuu")
    if hashed is None or not hashed.startswith(b"$2y$"):
        raise RuntimeError("libcrypt.so.1 has no bcrypt")
    return hashed.decode()


def _platform(text: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), text.split("/")))


def _expect(response: Response, status: int) -> Response:
    if response.status != status:
        raise RuntimeError(f"the registry answers {response.status}: {response.body[:500]!r}")
    return response
