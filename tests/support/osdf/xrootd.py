"""A real XRootD as OSDF runs it: an HTTPS origin that takes tokens, and a cache (XrdPfc) before it. From Debian's packages.

Both listen on every address, so they run in an :class:`~tests.support.osdf.network_namespace.Island`. They refuse to run as
root: then it is
Debian's account ``xrootd``. The origin knows its issuer's keys beforehand, so nothing is asked anywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.osdf.network_namespace import HOST, Island
from tests.support.osdf.tokens import AUDIENCE, Issuer
from tests.support.registries.scripted_http import certificate

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self

NAMESPACE = "/images"
_PORTS = 4
_ACCOUNT = "xrootd"
_KEYS_LIVE = 86400  # seconds

_COMMON = """\
all.export {namespace}
all.adminpath {where}/admin
all.pidpath {where}/run
oss.localroot {where}/data
xrd.port {root_port}
xrd.tls {pki}/authority.pem {where}/key.pem
xrd.tlsca certdir {pki}/authorities
xrd.protocol http:{port} libXrdHttp.so
"""
_ORIGIN = """\
http.header2cgi Authorization authz
http.listingdeny no
xrootd.chksum max 4 {digests}
ofs.authorize 1
acc.authdb {where}/authdb
ofs.authlib ++ libXrdAccSciTokens.so config={where}/scitokens.cfg
"""
_SCITOKENS = """\
[Global]
audience = {audience}
onmissing = passthrough
[Issuer test]
issuer = {issuer}
base_path = {namespace}
default_user = {account}
"""
_CACHE = """\
ofs.osslib libXrdPss.so
pss.cachelib libXrdPfc.so
pss.origin localhost:{origin_port}
pfc.ram 1g
pfc.blocksize 128k
pfc.prefetch 0
pfc.diskusage 0.98 0.99
"""


class Servers:
    """A context manager: an origin for ``/images``, which everybody may read, and a cache before it.

    Args:
        public: whether reading needs no token. A cache can only read what does not.
        digests: the checksums that the origin knows, the first of them for who asks for others.
        env: further variables of the servers.

    Attributes:
        where: a directory of theirs alone; others can enter it.
        authority: PEM file of the authority that signed their certificate, ``localhost``.
        tls: the same certificate, for further servers.
        issuer: whose tokens the origin takes; their scopes are relative to the namespace.
        origin: URL of the origin, without a path.
        cache: URL of the cache.
        data: the origin's files, as ``data / "images" / name``.
    """

    def __init__(self, *, public: bool = True, digests: str = "adler32 crc32c md5", env: Mapping[str, str] | None = None) -> None:
        self._public = public
        self._env = env or {}
        self._digests = digests
        self._stack = ExitStack()
        self._running: dict[str, int] = {}

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xrd-", dir="/tmp")))  # short: sockets
            self.where.chmod(0o755)
            self._island = stack.enter_context(Island(_PORTS))
            self._port, self._root_port, self._cache_port, cache_root_port = self._island.ports
            self._pki = self.where / "pki"
            self._pki.mkdir()
            self.authority, self.tls = _authority(self._pki)
            self.issuer = Issuer()
            self.origin, self.cache = (f"https://{HOST}:{port}" for port in (self._port, self._cache_port))
            self.data = self.where / "origin/data"
            origin = _ORIGIN.format(where=self.where / "origin", digests=self._digests)
            self._lay_out("origin", self._port, self._root_port, origin)
            self._lay_out("cache", self._cache_port, cache_root_port, _CACHE.format(origin_port=self._root_port))
            self._trust()
            self.start("origin")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def start(self, name: str) -> None:
        """Start ``origin`` or ``cache``. The cache does not run until it is started."""
        port = {"origin": self._port, "cache": self._cache_port}[name]
        where = self.where / name
        home = str(where / "home")
        env = {"PATH": "/usr/bin:/bin", "HOME": home, "XDG_CACHE_HOME": home, "X509_CERT_DIR": str(self._pki / "authorities")}
        env |= self._env
        argv = ["xrootd", "-c", str(where / "xrootd.cfg"), "-n", name, "-l", str(where / "log")]
        self._running[name] = self._island.start(argv, port=port, env=env, where=where, account=_account())

    def stop(self, name: str) -> None:
        """Kill ``origin`` or ``cache``."""
        self._island.stop(self._running.pop(name))

    def empty(self) -> None:
        """Delete all files of the origin and the cache, while they run."""
        for name in ("origin", "cache"):
            for path in _children(self.where / name / "data"):
                shutil.rmtree(path)
            self._mine(self.where / name / "data" / NAMESPACE.lstrip("/"))

    def files(self) -> dict[str, bytes]:
        """Return all files of the origin: name below the namespace -> content."""
        top = self.data / NAMESPACE.lstrip("/")
        return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}

    def log(self, name: str = "origin") -> str:
        """Return the log of a server."""
        return "".join(path.read_text(errors="replace") for path in (self.where / name).rglob("log"))

    def _lay_out(self, name: str, port: int, root_port: int, more: str) -> None:
        where = self.where / name
        self._mine(where / "home", where / "admin", where / "run", where / "data" / NAMESPACE.lstrip("/"))
        common = _COMMON.format(namespace=NAMESPACE, where=where, port=port, root_port=root_port, pki=self._pki)
        (where / "xrootd.cfg").write_text(common + more)
        (where / "key.pem").touch(mode=0o600)
        (where / "key.pem").write_bytes((self._pki / "key.pem").read_bytes())
        _give(where / "key.pem")
        (where / "authdb").write_text(f"u * {NAMESPACE} rl\n" if self._public else "")

    def _trust(self) -> None:
        """Write the issuer's keys where libscitokens keeps those that it has fetched (the name is spelt so)."""
        where = self.where / "origin"
        account = _account() or "user"
        text = _SCITOKENS.format(audience=AUDIENCE, issuer=self.issuer.url, namespace=NAMESPACE, account=account)
        (where / "scitokens.cfg").write_text(text)
        known = where / "home/scitokens"
        self._mine(known)
        until = int(time.time()) + _KEYS_LIVE
        keys = json.dumps({"expires": until, "next_update": until, "jwks": self.issuer.jwks()})
        with closing(sqlite3.connect(known / "scitokens_cpp.sqllite")) as database, database:
            database.execute("CREATE TABLE keycache (issuer text UNIQUE PRIMARY KEY NOT NULL, keys text NOT NULL)")
            database.execute("INSERT INTO keycache VALUES (?, ?)", (self.issuer.url, keys))
        _give(known / "scitokens_cpp.sqllite")

    def _mine(self, *directories: Path) -> None:
        """Create directories that belong to the servers' account, and their parents."""
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            for path in (directory, *directory.parents):
                if path == self.where:
                    break
                _give(path)


def _authority(pki: Path) -> tuple[Path, ssl.SSLContext]:
    """Create a certificate for ``localhost``, in a directory of authorities in which OpenSSL finds it too."""
    authority, tls = certificate(pki, HOST)
    (pki / "authorities").mkdir()
    argv = ["openssl", "x509", "-hash", "-noout", "-in", str(authority)]
    name = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    (pki / "authorities" / f"{name}.0").write_bytes(authority.read_bytes())
    return authority, tls


def _account() -> str | None:
    return _ACCOUNT if os.geteuid() == 0 else None


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, _ACCOUNT, _ACCOUNT)


def _children(directory: Path) -> Iterator[Path]:
    return directory.iterdir() if directory.is_dir() else iter(())
