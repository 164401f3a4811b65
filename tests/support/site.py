"""A site of the pool: images that were really published, the one-file resolver, and a pool set up by what that writes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.file_server import FileServer
from tests.support.host import Host
from tests.support.layers import directory, file, tar
from tests.support.pool import ACCOUNT, Jobs, Pool
from tests.support.registry import push_image
from tests.support.runnable import runnable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.registry import RegistryServer

ROOT = Path(__file__).parents[2]
REPOSITORY = "images.example.org"
IMAGES = ("htc/small:1", "htc/other:1")
"""What is published: each has ``/etc/motd`` with its own name, and GREETING in its environment."""
_CONFIGURATION = """\
[resolver]
repository = {repository}
origin = {origin}
cache = {cache}
public-key = {keys}
trace = {cache}/trace.json
probe = htc/small:1
deadline = 60
"""


class Site:
    """All of it, below ``pool.root``.

    Attributes:
        host: the publisher's. web: its origin, over HTTP. pool: where jobs run.
        program: image-resolver.pyz. configuration: its file. cache: its cache. keys: its trusted keys.
    """

    def __init__(self, registry: RegistryServer, slots: int = 16) -> None:
        self.pool = Pool(slots)
        with contextlib.ExitStack() as stack:
            stack.callback(self.pool.close)
            self._set_up(registry, stack)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _set_up(self, registry: RegistryServer, stack: contextlib.ExitStack) -> None:
        root = self.pool.root / "site"
        root.mkdir()
        self.program = root / "image-resolver.pyz"
        subprocess.run([ROOT / "ci/release", "--output", self.program], check=True, capture_output=True)
        self.host = Host(root, registry)
        for name in IMAGES:
            repository, _, tag = name.partition(":")
            own = tar([directory("etc"), file("etc/motd", f"{name}\n".encode())])
            push_image(
                registry.address,
                repository,
                tag,
                [tar(runnable("/usr/bin/ls", "/usr/bin/id")), own],
                {"Env": ["GREETING=hello", "PATH=/bin"]},
            )
        self.host.images(*IMAGES)
        self.host.sync()
        self.web = stack.enter_context(FileServer(self.host.origin))
        self.cache = root / "cache"
        self.cache.mkdir()
        if self.pool.account:
            shutil.chown(self.cache, ACCOUNT)
        self.keys = root / "keys"
        self.keys.mkdir()
        shutil.copy(root / "key.pem.pub", self.keys / "key.pub")
        self.repository = self.pool.cvmfs / REPOSITORY
        self.configuration = root / "resolver.conf"
        self.configure()
        self.pool.configuration("50-image-resolver", self.run("condor-config"))
        self.pool.start({REPOSITORY: self.host.repository})

    def configure(self, **more: str) -> None:
        """Write the resolver's configuration: the usual settings, and more."""
        usual = _CONFIGURATION.format(repository=self.repository, origin=self.web.url, cache=self.cache, keys=self.keys)
        self.configuration.write_text(usual + "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in more.items()))

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.program, *arguments, "--config", self.configuration], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def image(self, description: Mapping[str, object], count: int = 1) -> Jobs:
        """Submit a job whose shell says where it is: outside a container there is no GREETING."""
        usual = {"executable": "/bin/sh", "arguments": "\"-c 'cat /etc/motd; echo $GREETING; ls /cvmfs'\""}
        return self.pool.submit({**usual, **description}, count)
