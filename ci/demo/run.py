"""The demonstration: ``python -m ci.demo.run ROOT [IMAGE…]``, called by ``ci/quickstart`` once everything is installed.

It starts a registry, makes and pushes images, writes the list and a key, syncs twice, resolves and runs each image, and prints a
summary; everything is below ROOT. If images are named, it publishes and resolves those instead, and starts no registry.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.demo import debian, images, summary
from ci.demo.demo_paths import NAME, DemoPaths
from ci.demo.unprivileged_user import UnprivilegedUser
from publisher.contract import reference as references
from publisher.contract.errors import InvalidReferenceError
from publisher.errors import PublisherError, UsageError
from publisher.images.reader import load
from publisher.resolver.config.machine import go_name
from tests.support.registries.registry import RegistryServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ci.demo.images import DemoImage

_PROGRAMS = Path(sys.executable).parent
_FORMS = ("sandbox", "sif")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_APPTAINER = ("apptainer", "--silent", "run", "--containall", "--no-home", "--net", "--network", "none", "--pwd", "/")


class DemoError(PublisherError):
    """A step of the demonstration failed."""


class Demo:
    """The steps of the demonstration.

    Args:
        paths: the paths of the demonstration.
    """

    def __init__(self, paths: DemoPaths) -> None:
        self._paths = paths

    def run(self) -> None:
        """Make images, publish them from a local registry, and resolve and run each of them."""
        architecture = _machine()
        demo_images = images.demo_images(architecture)
        multi = images.multi(architecture).name
        platforms = {multi: [f"linux/{name}" for name in debian.ARCHITECTURES]}
        with contextlib.ExitStack() as stack:
            with _step("start a registry on this machine until the end"):
                registry = self._start_registry(stack)
            self._push(demo_images, registry.address)
            native = [f"linux/{architecture}"]
            self._configure([(f"{registry.address}/{image.name}", platforms.get(image.name, native)) for image in demo_images])
            self._examine()
            self._sync([image.name for image in demo_images])
            registry.requests()
            self._sync_again(len(demo_images), registry)
        user = self._find_user()
        resolved = {image.name: self._resolve(image.name, user) for image in demo_images}
        for other in (name for name in debian.ARCHITECTURES if name != architecture):
            self._resolve(multi, user, "--arch", other)
        for image in demo_images:
            self._run(image, resolved[image.name], user)
        print(summary.text(self._paths, resolved, user, local=True))

    def run_named(self, named: Sequence[str]) -> None:
        """Publish and resolve the named images; they are not run, because ``publisher sync`` has tested each."""
        self._configure([(text, [f"linux/{_machine()}"]) for text in named])
        entries = load(self._paths.images).entries
        names = [entry.name for entry in entries]
        self._examine()
        self._sync(names)
        self._sync_again(len(names), None)
        user = self._find_user()
        resolved = {name: self._resolve(name, user) for name in names}
        print(summary.text(self._paths, resolved, user, local=False))

    # --- steps

    def _start_registry(self, stack: contextlib.ExitStack) -> RegistryServer:
        registry = RegistryServer(self._paths.registry, port=_last_port(self._paths.registry))
        try:
            stack.enter_context(registry)
        except (OSError, RuntimeError) as error:
            raise DemoError(f"docker-registry could not be started: {error}", hint="ci/install-system installs it") from error
        _say(f"http://{registry.address}, storage in {self._paths.registry}")
        return registry

    def _push(self, demo_images: Sequence[DemoImage], address: str) -> None:
        """Make and push the images, unless the registry's storage has them from an earlier run."""
        with _step(f"make {len(demo_images)} images from Debian packages and push them"):
            marker, fingerprint = self._paths.registry / "made", images.fingerprint()
            is_current = marker.exists() and marker.read_text() == fingerprint
            if is_current and all(images.is_pushed(image, address) for image in demo_images):
                _say("they are in the registry already")
                return
            packages = debian.Packages(debian.cache_directories(os.environ))
            for image in demo_images:
                images.push(image, packages, address)
                _say(image.name)
            marker.write_text(fingerprint)

    def _configure(self, image_list: Sequence[tuple[str, Sequence[str]]]) -> None:
        with _step("write the image list and the configurations, make a signing key"):
            hosts = {_registry_of(name) for name, _ in image_list}
            insecure = sorted(host for host in hosts if host.rpartition(":")[0] in _LOOPBACK)
            self._paths.configure(image_list, insecure)
            if not self._paths.key.exists():
                self._publisher("keys", "new")
            for path in (self._paths.images, self._paths.publisher, self._paths.resolver, self._paths.key):
                _say(path)

    def _examine(self) -> None:
        with _step("publisher doctor"):
            self._publisher("doctor")

    def _sync(self, names: Sequence[str]) -> None:
        with _step("publisher sync"):
            # The registry may have another port than in the last run.
            rebind = [word for name in names for word in ("--rebind", name)]
            self._publisher("sync", flags=rebind)

    def _sync_again(self, count: int, registry: RegistryServer | None) -> None:
        with _step("publisher sync again"):
            self._publisher("sync")
            if registry is not None:
                methods = [request.method for request in registry.requests() if request.path != "/v2/"]  # /v2/ is for the login
                _say(f"requests to the registry, for {count} images: {len(methods)} ({', '.join(sorted(set(methods)))})")
                if methods != ["HEAD"] * count:
                    raise DemoError(f"a sync without changes should send {count} HEAD requests, but sent {', '.join(methods)}")

    def _find_user(self) -> UnprivilegedUser:
        needed = [_PROGRAMS / "image-resolver", self._paths.resolver, self._paths.repository, self._paths.homes]
        return UnprivilegedUser(self._paths.homes, needed)

    def _resolve(self, name: str, user: UnprivilegedUser, *flags: str) -> dict[str, dict[str, Any]]:
        """Return the resolver's answer for each form; for this machine, unless the flags say otherwise."""
        answers = {}
        with _step(" ".join([f"image-resolver resolve /cvmfs/{NAME}/{name}", *flags])):
            for form in _FORMS:
                argv: list[str | Path] = [
                    _PROGRAMS / "image-resolver",
                    "resolve",
                    f"/cvmfs/{NAME}/{name}",
                    "--config",
                    self._paths.resolver,
                ]
                answers[form] = json.loads(user.run([*argv, "--cache", user.home / "cache", "--form", form, "--json", *flags]))
                _say(f"{form}: {answers[form]['path']}")
        return answers

    def _run(self, image: DemoImage, resolved: dict[str, dict[str, Any]], user: UnprivilegedUser) -> None:
        with _step(f"apptainer run {image.name}, as {user.name}"):
            printed = {form: user.run([*_APPTAINER, resolved[form]["path"], *image.arguments]) for form in _FORMS}
            for line in printed["sandbox"].splitlines():
                _say(line)
            if printed["sandbox"] != printed["sif"]:
                raise DemoError(f"the SIF prints something other than the sandbox: {printed['sif']!r}", image=image.name)
            missing = set(image.expected) - set(printed["sandbox"].splitlines())
            if missing:
                raise DemoError(f"the image should have printed {', '.join(sorted(missing))}", image=image.name)

    def _publisher(self, *command: str, flags: Sequence[str] = ()) -> None:
        """Run the publisher in this terminal, without the settings of the caller's environment."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PUBLISHER_")}
        argv: list[str | Path] = [_PROGRAMS / "publisher", *command, "--config", self._paths.publisher, *flags]
        status = subprocess.run(argv, env=environment, check=False).returncode
        if status:
            raise DemoError(f"publisher {' '.join(command)} failed with status {status}", hint="see the lines above")


@contextlib.contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"--- {title}", flush=True)
    start = time.monotonic()
    yield
    print(f"    {time.monotonic() - start:.1f} s", flush=True)


def _say(line: str | Path) -> None:
    print(f"    {line}", flush=True)


def _last_port(registry: Path) -> int | None:
    """Return the port of the last run's registry, to which published names are bound; None if it is in use or there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError), socket.socket() as probe:
        port = int(json.loads((registry / "registry.yml").read_text())["http"]["addr"].rpartition(":")[2])
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return port
    return None


def _registry_of(text: str) -> str:
    try:
        return references.parse(text).registry
    except InvalidReferenceError as error:
        raise UsageError(str(error)) from None


def _machine() -> str:
    """Return Go's name of this machine's architecture."""
    return go_name(os.uname().machine)


def main() -> int:
    """Run the demonstration; return 0 if every step succeeded, 1 if one failed, 2 for wrong usage."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the registry, too
    root, *named = sys.argv[1:]
    try:
        paths = DemoPaths(Path(root))
        _prepare(paths)
        demo = Demo(paths)
        if named:
            demo.run_named(named)
        else:
            demo.run()
    except PublisherError as error:
        for problem in getattr(error, "problems", ()):
            print(f"quickstart: {problem}", file=sys.stderr)
        print(f"quickstart: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("quickstart: interrupted; run it again to continue", file=sys.stderr)
        return 130
    return 0


def _prepare(paths: DemoPaths) -> None:
    try:
        paths.prepare()
    except OSError as error:
        raise UsageError(
            f"{paths.root} cannot be written: {error}", hint="if it belongs to another user, remove it or run as that user"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
