"""The images of the demonstration: small real images, made from Debian packages, each with a feature that is easy to get wrong.

Made again from the same packages, they have the same bytes.
"""

from __future__ import annotations

import hashlib
import http.client
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ci.demo.debian import ARCHITECTURES
from ci.demo.layer import Layer
from tests.support.registries.registry import OCI, ask, push_image, push_index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    class PackageSource(Protocol):
        """A source of packages, such as :class:`ci.demo.debian.Packages`."""

        def fetch(self, names: Sequence[str], architecture: str) -> list[Path]:
            """Return the paths of the packages and of all their dependencies."""


RESEARCHER = 1000
"""User and group id of the account in ``demo/debian-tools``."""
_TOOLS = ("bash", "coreutils", "dash", "findutils", "grep", "sed")
_APPLETS = ("cat", "echo", "env", "find", "grep", "head", "id", "ls", "sh", "sleep", "stat", "test", "uname")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ENTRYPOINT = """\
#!/bin/bash
# Tells what a job inside this image sees.
echo "greeting: $GREETING"
echo "arguments: $*"
echo "names of one file: $(stat -c %h /opt/greetings/hello)"
echo "removed below: $(ls /opt/greetings/rude /opt/data/old 2>/dev/null | wc -l)"
echo "data: $(cat /opt/data/*)"
echo "user: $(id -u)"
"""


@dataclass(frozen=True)
class Image:
    """The image of one platform.

    Attributes:
        architecture: Go's name of the architecture.
        layers: uncompressed layers, from the bottom up.
        config: the ``config`` object of the image's config: environment, command and so on.
    """

    architecture: str
    layers: tuple[bytes, ...]
    config: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoImage:
    """An image of the demonstration; images of several architectures are pushed as an image index.

    Attributes:
        name: repository and tag.
        make: returns one image per architecture, this machine's first; raises UsageError if packages cannot be downloaded.
        arguments: arguments of the image when the demonstration runs it.
        expected: lines that it must print then.
    """

    name: str
    make: Callable[[PackageSource], tuple[Image, ...]]
    arguments: tuple[str, ...]
    expected: tuple[str, ...]


def demo_images(architecture: str) -> list[DemoImage]:
    """Return all images of the demonstration for a machine of an architecture."""
    return [busybox(architecture), debian_tools(architecture), multi(architecture), python(architecture)]


def fingerprint() -> str:
    """Return a hash of the modules that make the images: another hash means other images."""
    modules = [Path(__file__), *(Path(__file__).with_name(name) for name in ("debian.py", "layer.py"))]
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()


def busybox(architecture: str) -> DemoImage:
    """Return an image of one layer: one program with many names, and only CMD."""
    config = {"Env": [_PATH, "FROM_ENV=set"], "Cmd": ["sh", "-c", "echo busybox, FROM_ENV is $FROM_ENV"]}

    def make(packages: PackageSource) -> tuple[Image, ...]:
        return (Image(architecture, (_busybox_layer(packages, architecture),), config),)

    return DemoImage("demo/busybox:1", make, (), ("busybox, FROM_ENV is set",))


def debian_tools(architecture: str) -> DemoImage:
    """Return an image of several layers, with hard links, whiteouts, ENV, ENTRYPOINT, CMD, labels, USER and WORKDIR."""
    config = {
        "Env": [_PATH, "GREETING=good morning, OSPool", "LC_ALL=C.UTF-8"],
        "Entrypoint": ["/usr/local/bin/entrypoint"],
        "Cmd": ["no", "arguments"],
        "Labels": {"org.opencontainers.image.title": "debian-tools", "org.opencontainers.image.version": "1"},
        "User": "researcher",
        "WorkingDir": "/data",
    }
    expected = (
        "greeting: good morning, OSPool",
        "arguments: two words and more",
        "names of one file: 3",
        "removed below: 0",
        "data: new",
    )

    def make(packages: PackageSource) -> tuple[Image, ...]:
        return (Image(architecture, (_base(packages, architecture), _hardlinks(), _removals(), _additions()), config),)

    return DemoImage("demo/debian-tools:1", make, ("two words", "and more"), expected)


def multi(architecture: str) -> DemoImage:
    """Return an image index of two architectures, whose images print their architecture."""
    architectures = (architecture, *(other for other in ARCHITECTURES if other != architecture))
    config = {"Env": [_PATH], "Cmd": ["cat", "/etc/architecture"]}

    def make(packages: PackageSource) -> tuple[Image, ...]:
        return tuple(Image(name, (_busybox_layer(packages, name),), config) for name in architectures)

    return DemoImage("demo/multi:1", make, (), (f"image of {architecture}",))


def python(architecture: str) -> DemoImage:
    """Return an image whose ENTRYPOINT is an interpreter that gets its arguments from the user."""
    config = {"Env": [_PATH], "Entrypoint": ["/usr/bin/python3"], "Cmd": ["-c", "print('python')"]}

    def make(packages: PackageSource) -> tuple[Image, ...]:
        layer = io.BytesIO()
        with Layer(layer) as out:
            _accounts(out)
            out.packages(packages.fetch(("python3-minimal",), architecture))
        return (Image(architecture, (layer.getvalue(),), config),)

    return DemoImage("demo/python:1", make, ("-c", "print('the sum is', 6 * 7)"), ("the sum is 42",))


def is_pushed(image: DemoImage, address: str) -> bool:
    """Return whether the registry at ``address`` has the image's name."""
    repository, _, tag = image.name.partition(":")
    accept = {"Accept": f"{OCI['manifest']}, {OCI['index']}"}
    return ask(address, "HEAD", f"/v2/{repository}/manifests/{tag}", headers=accept).status == http.client.OK


def push(image: DemoImage, packages: PackageSource, address: str) -> None:
    """Make an image, or an image index of several, and push it to the registry at ``address``.

    Raises:
        UsageError: packages cannot be downloaded.
    """
    repository, _, tag = image.name.partition(":")
    platforms = image.make(packages)
    is_single = len(platforms) == 1
    digests = {}
    for made in platforms:
        platform = f"linux/{made.architecture}"
        digests[platform] = push_image(address, repository, tag if is_single else "", made.layers, made.config, platform=platform)
    if not is_single:
        push_index(address, repository, tag, digests, attested=True)


def _busybox_layer(packages: PackageSource, architecture: str) -> bytes:
    layer = io.BytesIO()
    with Layer(layer) as out:
        _accounts(out)
        out.packages(packages.fetch(("busybox-static",), architecture))
        for applet in _APPLETS:
            out.symlink(f"usr/bin/{applet}", "busybox")
        out.directory("tmp", 0o1777)
        out.file("etc/architecture", f"image of {architecture}\n")
    return layer.getvalue()


def _base(packages: PackageSource, architecture: str) -> bytes:
    layer = io.BytesIO()
    with Layer(layer) as out:
        _accounts(out, f"researcher:x:{RESEARCHER}:{RESEARCHER}::/data:/bin/bash\n", f"researcher:x:{RESEARCHER}:\n")
        out.packages(packages.fetch(_TOOLS, architecture))
        out.directory("data", 0o750, RESEARCHER)
        out.symlink("usr/bin/sh", "dash")
    return layer.getvalue()


def _accounts(out: Layer, users: str = "", groups: str = "") -> None:
    """Add the account files that the packages' installation scripts would create."""
    out.directory("etc")
    out.file("etc/passwd", f"root:x:0:0:root:/root:/bin/sh\n{users}")
    out.file("etc/group", f"root:x:0:\n{groups}")


def _hardlinks() -> bytes:
    layer = io.BytesIO()
    with Layer(layer) as out:
        for name in ("opt", "opt/greetings", "opt/data"):
            out.directory(name)
        out.file("opt/greetings/hello", "#!/bin/sh\necho hello\n", 0o755)
        out.hardlink("opt/greetings/good-day", "opt/greetings/hello")
        out.hardlink("opt/greetings/rude", "opt/greetings/hello")
        out.hardlink("opt/greetings/servus", "opt/greetings/hello")
        out.file("opt/data/old", "old\n")
        out.file("opt/data/older", "older\n")
    return layer.getvalue()


def _removals() -> bytes:
    layer = io.BytesIO()
    with Layer(layer) as out:
        out.directory("opt")
        out.directory("opt/greetings")
        out.whiteout("opt/greetings/rude")
        out.opaque("opt/data")
        out.file("opt/data/new", "new\n")
    return layer.getvalue()


def _additions() -> bytes:
    layer = io.BytesIO()
    with Layer(layer) as out:
        for name in ("usr", "usr/local", "usr/local/bin"):
            out.directory(name)
        out.file("usr/local/bin/entrypoint", _ENTRYPOINT, 0o755)
        out.directory("usr/local/share")
        out.file("usr/local/share/grüße.txt", "Namen dürfen Umlaute haben.\n")
        out.symlink("usr/local/bin/entrypoint-of-the-image", "entrypoint")
    return layer.getvalue()
