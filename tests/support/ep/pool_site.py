"""A site: images published by the publisher, the single-file resolver, and a pool with the configuration that it writes."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.checkout import ROOT
from tests.support.ep.pool import ACCOUNT, Jobs, Pool, children, command_line
from tests.support.ep.release import release
from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.machine.hanging_mount import overwrite_data
from tests.support.osdf.file_server import FileServer
from tests.support.publisher.host import Host
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Self

    from tests.support.registries.registry import RegistryServer

REPOSITORY = "images.example.org"
SMALL, LARGE, ELSEWHERE = "htc/small:1", "htc/large:1", "htc/elsewhere:1"
"""What is published: each has ``/etc/motd`` with its own name, and GREETING in its environment. LARGE has PADDING bytes more than
SMALL, and ELSEWHERE is for another architecture."""
PADDING = 20_000_000
LOOK = "cat /etc/motd; echo $GREETING $APPTAINER_CONTAINER; ls /cvmfs"
"""The script of a job: it prints its image, that image's environment and form, and what CVMFS shows."""
_CONFIGURATION = """\
[resolver]
repository = {repository}
origin = {origin}
cache = {caches}/{{uid}}
facts = {facts}
public-key = {keys}
probe = htc/small:1
deadline = 5 min
"""


def recipe() -> tuple[list[str], list[str]]:
    """The commands of docs/ep.md that switch a glidein over, and back."""
    text = (ROOT / "docs" / "ep.md").read_text().partition("### Coming from the OSG scripts")[2].partition("\n### ")[0]
    commands = re.findall(r"^    (.+)$", text, re.MULTILINE)
    over, back = commands[:2], commands[2:]
    assert ([" --profile ospool " in command for command in over], len(back)) == ([True, True], 2)
    return over, back


def squash(directory: Path, image: Path, *options: str) -> None:
    """Make a squashfs of a directory."""
    command: list[str | Path] = ["mksquashfs", directory, image, "-comp", "zstd", *options, "-noappend", "-quiet", "-no-progress"]
    subprocess.run(command, check=True, capture_output=True)


class Site:
    """The whole site, below ``pool.root``.

    Attributes:
        host: the host of the publisher. web: its origin over HTTP. pool: where jobs run.
        program: image-resolver.pyz. configuration: its configuration file. cache: its cache. keys: its trusted keys.
    """

    def __init__(self, registry: RegistryServer, slots: int = 200) -> None:
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
        self.program = release(root / "image-resolver.pyz")
        self.host = Host(root, registry)
        for name in (SMALL, LARGE, ELSEWHERE):
            self.push(name)
        self.host.images(SMALL, LARGE, {"image": ELSEWHERE, "platforms": ["linux/arm64"]})
        self.host.sync()
        self.web = stack.enter_context(FileServer(self.host.origin))
        self.caches = root / "caches"
        self.caches.mkdir()
        self.caches.chmod(0o1777)
        owner = pwd.getpwnam(ACCOUNT).pw_uid if self.pool.account else os.geteuid()
        self.cache = self.caches / str(owner)
        self.facts = root / "facts" / "facts.json"
        self.facts.parent.mkdir()
        if self.pool.account:
            shutil.chown(self.facts.parent, "condor")
        self.keys = root / "keys"
        self.keys.mkdir()
        shutil.copy(root / "key.pem.pub", self.keys / "key.pub")
        self.repository = self.pool.cvmfs / REPOSITORY
        self.configuration = root / "resolver.conf"
        self.configure()
        self.pool.configuration("50-image-resolver", self.run("condor-config"))
        self.pool.configuration("51-access-point", self.run("condor-config", "access-point"))
        self.pool.start({REPOSITORY: self.host.repository})

    def push(self, name: str, motd: str | None = None) -> None:
        """Push an image into the registry; its ``/etc/motd`` has the image's name unless a text is given."""
        repository, _, tag = name.partition(":")
        padding = [file("padding", random.Random(1).randbytes(PADDING))] if name == LARGE else []
        own = tar([directory("etc"), file("etc/motd", f"{motd or name}\n".encode()), *padding])
        layers = [tar(runnable("/usr/bin/ls", "/usr/bin/id")), own]
        platform = "linux/arm64" if name == ELSEWHERE else "linux/amd64"
        config = {"Env": ["GREETING=hello", "PATH=/bin"]}
        push_image(self.host.registry.address, repository, tag, layers, config, platform=platform)

    def configure(self, **more: str) -> None:
        """Write the resolver's configuration: the usual settings and additional ones."""
        usual = _CONFIGURATION.format(
            repository=self.repository, origin=self.web.url, caches=self.caches, facts=self.facts, keys=self.keys
        )
        self.configuration.write_text(usual + "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in more.items()))

    def run(self, *arguments: str, user: str | None = None) -> str:
        """Return the output of image-resolver, run in the pool's mount namespace once it exists; as ``user`` if this is root."""
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user and self.pool.account else []
        command = [*self.pool.enter(), *become, str(self.program), *arguments, "--config", str(self.configuration)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def resolves(self, name: str) -> bool:
        """Return whether jobs of the pool get an image now."""
        try:
            self.run("resolve", name, user=self.pool.account)
        except AssertionError:
            return False
        return True

    def submit(self, description: Mapping[str, object], count: int = 1, script: str = LOOK) -> Jobs:
        """Submit jobs that run a shell script; by default one that prints its image."""
        return self.pool.submit({"executable": "/bin/sh", "arguments": f"\"-c '{script}'\"", **description}, count)

    def sif(self, name: str) -> Path:
        """Return the path of a SIF in the jobs' cache."""
        published = self.host.sif(name)
        return self.cache / "sif" / published.name[:2] / published.name

    def downloads(self, name: str) -> int:
        """Return the number of requests for an image's SIF so far; the host's own probe fetches another one."""
        return sum(path.endswith(self.host.sif(name).name) for path, _ in self.web.requests)

    def hooks(self) -> list[int]:
        """Return the processes of running hooks."""
        return [pid for pid in self.pool.processes() if b"prepare-job" in command_line(pid)]

    def starters(self) -> list[int]:
        """Return the processes that run a job each, without their children that have not begun another program yet."""
        found = {pid for pid in self.pool.processes() if command_line(pid).startswith(b"condor_starter")}
        return sorted(found - {child for pid in found for child in children(pid)})

    def empty_cache(self) -> None:
        shutil.rmtree(self.cache, ignore_errors=True)

    @contextlib.contextmanager
    def overridden(self, text: str) -> Iterator[None]:
        """Add lines to HTCondor's configuration, which are read after the site's, for the duration of the context."""
        self.pool.configuration("90-test", text)
        try:
            yield
        finally:
            self.pool.configuration("90-test", "")

    def unmount(self) -> None:
        """Remove CVMFS."""
        if self.pool.account:
            self.pool.inside("umount", "--lazy", self.repository)
        self.repository.unlink() if self.repository.is_symlink() else self.pool.inside("rmdir", self.repository)

    def mount(self, shown: Path | None = None) -> None:
        """Restore CVMFS and forget its outages; it shows the repository, or another directory."""
        shutil.rmtree(self.cache / "failures", ignore_errors=True)
        self.facts.unlink(missing_ok=True)  # what the cron found meanwhile
        shown = shown or self.host.repository
        if self.pool.account:
            self.pool.inside("mkdir", self.repository)
            self.pool.inside("mount", "--bind", shown, self.repository)
        else:
            self.repository.symlink_to(shown)

    @contextlib.contextmanager
    def without_cvmfs(self) -> Iterator[None]:
        self.unmount()
        try:
            yield
        finally:
            self.mount()

    @contextlib.contextmanager
    def lagging_cvmfs(self, before: Path) -> Iterator[None]:
        """Make CVMFS show an old copy of the repository."""
        self.unmount()
        self.mount(before)
        try:
            yield
        finally:
            self.unmount()
            self.mount()

    @contextlib.contextmanager
    def without_fuse(self) -> Iterator[None]:
        """Make a host that cannot mount SIFs, and measure it."""
        self.pool.inside("mount", "--bind", "/dev/null", "/dev/fuse")
        try:
            self.run("startd-cron", user="condor")
            yield
        finally:
            self.pool.inside("umount", "/dev/fuse")
            self.run("startd-cron", user="condor")

    @contextlib.contextmanager
    def half_broken_cvmfs(self) -> Iterator[None]:
        """Make CVMFS a FUSE mount whose directories open and whose files cannot be read."""
        image = self.pool.root / "site" / "half-broken.squashfs"
        squash(self.host.repository, image)
        overwrite_data(image)
        self.unmount()
        self.pool.inside("mkdir", self.repository)
        options = "attr_timeout=0,entry_timeout=0" + (",allow_other" if self.pool.account else "")
        with self.pool.running("squashfuse", "-f", "-o", options, image, self.repository):
            self.pool.until(lambda: self.pool.is_mounted(self.repository), lambda: "squashfuse does not mount")
            try:
                yield
            finally:
                self.pool.inside("umount", "--lazy", self.repository)
        self.pool.inside("rmdir", self.repository)
        self.mount()

    @contextlib.contextmanager
    def hanging_cvmfs(self) -> Iterator[None]:
        """Make CVMFS a FUSE mount whose process is stopped: every open in it hangs."""
        image = self.pool.root / "site" / "repository.squashfs"
        if not image.exists():
            squash(self.host.repository, image, "-Xcompression-level", "1")
        self.unmount()
        self.pool.inside("mkdir", self.repository)
        # the kernel caches nothing, so every access asks the process
        options = "attr_timeout=0,entry_timeout=0" + (",allow_other" if self.pool.account else "")
        mount: list[str | Path] = ["squashfuse", "-f", "-o", options, image, self.repository]
        with self.pool.stopped(*mount, when=lambda: self.pool.is_mounted(self.repository)):
            yield
        self.pool.inside("umount", self.repository)
        self.pool.inside("rmdir", self.repository)
        self.mount()
