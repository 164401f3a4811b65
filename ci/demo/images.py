"""The demonstration's images, made on the spot from Debian's packages: real ones, small, each with something to get wrong.

Made again they are the same bytes as long as the packages are the same.
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

    class Source(Protocol):
        """Where packages come from: :class:`ci.demo.debian.Packages`."""

        def fetch(self, names: Sequence[str], architecture: str) -> list[Path]:
            """Paths of the packages and of all they depend on."""


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
    """One platform's image: uncompressed layers from the bottom up, and the part of the config that says what runs."""

    architecture: str
    layers: tuple[bytes, ...]
    config: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoImage:
    """A name and how its image is made; the images of several architectures become an index.

    Attributes:
        name: repository and tag.
        make: gives one image per architecture, this machine's first; raises UsageError where packages cannot be had.
        arguments: given to the image when the tour runs it.
        expected: lines that it then must print.
    """

    name: str
    make: Callable[[Source], tuple[Image, ...]]
    arguments: tuple[str, ...]
    expected: tuple[str, ...]


def demo_images(architecture: str) -> list[DemoImage]:
    """Every image of the demonstration, for a machine of that architecture."""
    return [busybox(architecture), debian_tools(architecture), multi(architecture), python(architecture)]


def fingerprint() -> str:
    """Of all that decides what the images are made of: the modules that make them."""
    modules = [Path(__file__), *(Path(__file__).with_name(name) for name in ("debian.py", "layer.py"))]
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()


def busybox(architecture: str) -> DemoImage:
    """One layer, one program with many names, CMD alone."""
    config = {"Env": [_PATH, "FROM_ENV=set"], "Cmd": ["sh", "-c", "echo busybox, FROM_ENV is $FROM_ENV"]}

    def make(packages: Source) -> tuple[Image, ...]:
        return (Image(architecture, (_busybox_layer(packages, architecture),), config),)

    return DemoImage("demo/busybox:1", make, (), ("busybox, FROM_ENV is set",))


def debian_tools(architecture: str) -> DemoImage:
    """Several layers: a base, hardlinks, whiteouts, additions; ENV, ENTRYPOINT, CMD, labels, USER and WORKDIR."""
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

    def make(packages: Source) -> tuple[Image, ...]:
        return (Image(architecture, (_base(packages, architecture), _hardlinks(), _removals(), _additions()), config),)

    return DemoImage("demo/debian-tools:1", make, ("two words", "and more"), expected)


def multi(architecture: str) -> DemoImage:
    """An index of two architectures, whose images say which one they are."""
    architectures = (architecture, *(one for one in ARCHITECTURES if one != architecture))
    config = {"Env": [_PATH], "Cmd": ["cat", "/etc/architecture"]}

    def make(packages: Source) -> tuple[Image, ...]:
        return tuple(Image(one, (_busybox_layer(packages, one),), config) for one in architectures)

    return DemoImage("demo/multi:1", make, (), (f"image of {architecture}",))


def python(architecture: str) -> DemoImage:
    """An interpreter as ENTRYPOINT, with arguments from whoever runs it."""
    config = {"Env": [_PATH], "Entrypoint": ["/usr/bin/python3"], "Cmd": ["-c", "print('python')"]}

    def make(packages: Source) -> tuple[Image, ...]:
        layer = io.BytesIO()
        with Layer(layer) as out:
            _accounts(out)
            out.packages(packages.fetch(("python3-minimal",), architecture))
        return (Image(architecture, (layer.getvalue(),), config),)

    return DemoImage("demo/python:1", make, ("-c", "print('the sum is', 6 * 7)"), ("the sum is 42",))


def pushed(image: DemoImage, address: str) -> bool:
    """Whether the registry at ``address`` has something under the image's name."""
    repository, _, tag = image.name.partition(":")
    accept = {"Accept": f"{OCI['manifest']}, {OCI['index']}"}
    return ask(address, "HEAD", f"/v2/{repository}/manifests/{tag}", headers=accept).status == http.client.OK


def push(image: DemoImage, packages: Source, address: str) -> None:
    """Make an image, or the index of several, and push it to the registry at ``address``.

    Raises:
        UsageError: packages cannot be had.
    """
    repository, _, tag = image.name.partition(":")
    made = image.make(packages)
    alone = len(made) == 1
    digests = {}
    for one in made:
        platform = f"linux/{one.architecture}"
        digests[platform] = push_image(address, repository, tag if alone else "", one.layers, one.config, platform=platform)
    if not alone:
        push_index(address, repository, tag, digests, attested=True)


def _busybox_layer(packages: Source, architecture: str) -> bytes:
    layer = io.BytesIO()
    with Layer(layer) as out:
        _accounts(out)
        out.packages(packages.fetch(("busybox-static",), architecture))
        for applet in _APPLETS:
            out.symlink(f"usr/bin/{applet}", "busybox")
        out.directory("tmp", 0o1777)
        out.file("etc/architecture", f"image of {architecture}\n")
    return layer.getvalue()


def _base(packages: Source, architecture: str) -> bytes:
    layer = io.BytesIO()
    with Layer(layer) as out:
        _accounts(out, f"researcher:x:{RESEARCHER}:{RESEARCHER}::/data:/bin/bash\n", f"researcher:x:{RESEARCHER}:\n")
        out.packages(packages.fetch(_TOOLS, architecture))
        out.directory("data", 0o750, RESEARCHER)
        out.symlink("usr/bin/sh", "dash")
    return layer.getvalue()


def _accounts(out: Layer, users: str = "", groups: str = "") -> None:
    """What the packages' installation scripts would make, were they run."""
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
