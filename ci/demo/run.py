"""The tour: ``python -m ci.demo.run ROOT [IMAGE…]``, called by ``ci/quickstart`` once everything is installed.

Registry, images, list, key, sync, sync again, resolve, run, summary; everything below ROOT. With images named it is the list of
those, from wherever they are, and no registry is started.
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
from ci.demo.actor import Actor
from ci.demo.places import NAME, Places
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


class TourError(PublisherError):
    """A step of the tour did not do what it should."""


class Tour:
    """Steps over one set of places.

    Args:
        places: where everything stands.
    """

    def __init__(self, places: Places) -> None:
        self._places = places

    def demonstration(self) -> None:
        """The images made here, from a registry started here, each of them run."""
        architecture = _machine()
        wanted = images.demo_images(architecture)
        both = images.multi(architecture).name
        platforms = {both: [f"linux/{one}" for one in debian.ARCHITECTURES]}
        with contextlib.ExitStack() as running:
            with _step("a registry on this machine, stopped at the end"):
                registry = self._registry(running)
            self._push(wanted, registry.address)
            native = [f"linux/{architecture}"]
            self._list([(f"{registry.address}/{one.name}", platforms.get(one.name, native)) for one in wanted])
            self._sync([one.name for one in wanted])
            registry.requests()
            self._sync_again(len(wanted), registry)
        actor = self._actor()
        resolved = {one.name: self._resolve(one.name, actor) for one in wanted}
        for other in (one for one in debian.ARCHITECTURES if one != architecture):
            self._resolve(both, actor, "--arch", other)
        for one in wanted:
            self._run(one, resolved[one.name], actor)
        print(summary.text(self._places, resolved, actor, local=True))

    def of(self, named: Sequence[str]) -> None:
        """Images from anywhere: published and found, not run (``publisher sync`` has tried each)."""
        self._list([(text, [f"linux/{_machine()}"]) for text in named])
        entries = load(self._places.images).entries
        names = [entry.name for entry in entries]
        self._sync(names)
        self._sync_again(len(names), None)
        actor = self._actor()
        resolved = {name: self._resolve(name, actor) for name in names}
        print(summary.text(self._places, resolved, actor, local=False))

    # --- steps

    def _registry(self, running: contextlib.ExitStack) -> RegistryServer:
        registry = RegistryServer(self._places.registry, port=_earlier_port(self._places.registry))
        try:
            running.enter_context(registry)
        except (OSError, RuntimeError) as error:
            raise TourError(f"docker-registry does not start: {error}", hint="ci/install-system installs it") from error
        _say(f"http://{registry.address}, its storage in {self._places.registry}")
        return registry

    def _push(self, wanted: Sequence[DemoImage], address: str) -> None:
        """What an earlier tour has pushed is still in the registry's storage."""
        with _step(f"{len(wanted)} images, made from Debian's packages and pushed"):
            made, how = self._places.registry / "made", images.fingerprint()
            if made.exists() and made.read_text() == how and all(images.pushed(image, address) for image in wanted):
                _say("there already")
                return
            packages = debian.Packages(debian.cache_directories(os.environ))
            for image in wanted:
                images.push(image, packages, address)
                _say(image.name)
            made.write_text(how)

    def _list(self, listed: Sequence[tuple[str, Sequence[str]]]) -> None:
        with _step("the image list, the configurations, a key to sign with"):
            hosts = {_registry_of(name) for name, _ in listed}
            plain = sorted(host for host in hosts if host.rpartition(":")[0] in _LOOPBACK)
            self._places.configure(listed, plain)
            if not self._places.key.exists():
                self._publisher("keys", "new")
            for path in (self._places.images, self._places.publisher, self._places.resolver, self._places.key):
                _say(path)

    def _sync(self, names: Sequence[str]) -> None:
        with _step("publisher sync"):
            rebind = [word for name in names for word in ("--rebind", name)]  # the registry may have another port than before
            self._publisher("sync", flags=rebind)

    def _sync_again(self, count: int, registry: RegistryServer | None) -> None:
        with _step("publisher sync, once more"):
            self._publisher("sync")
            if registry is not None:
                asked = [one.method for one in registry.requests() if one.path != "/v2/"]  # that one asks how to log in
                _say(f"the registry was asked {len(asked)} times, for {count} images: {', '.join(sorted(set(asked)))}")
                if asked != ["HEAD"] * count:
                    raise TourError(f"a sync without changes should cost {count} HEAD requests, not {', '.join(asked)}")

    def _actor(self) -> Actor:
        needed = [_PROGRAMS / "image-resolver", self._places.resolver, self._places.repository, self._places.homes]
        return Actor(self._places.homes, needed)

    def _resolve(self, name: str, actor: Actor, *flags: str) -> dict[str, dict[str, Any]]:
        """Form -> the answer; for this machine, unless the flags say otherwise."""
        found = {}
        with _step(" ".join([f"image-resolver resolve /cvmfs/{NAME}/{name}", *flags])):
            for form in _FORMS:
                argv: list[str | Path] = [
                    _PROGRAMS / "image-resolver",
                    "resolve",
                    f"/cvmfs/{NAME}/{name}",
                    "--config",
                    self._places.resolver,
                ]
                found[form] = json.loads(actor.run([*argv, "--cache", actor.home / "cache", "--form", form, "--json", *flags]))
                _say(f"{form}: {found[form]['path']}")
        return found

    def _run(self, image: DemoImage, resolved: dict[str, dict[str, Any]], actor: Actor) -> None:
        with _step(f"apptainer run {image.name}, as {actor.name}"):
            printed = {form: actor.run([*_APPTAINER, resolved[form]["path"], *image.arguments]) for form in _FORMS}
            for line in printed["sandbox"].splitlines():
                _say(line)
            if printed["sandbox"] != printed["sif"]:
                raise TourError(f"the SIF prints something else: {printed['sif']!r}", image=image.name)
            missing = set(image.expected) - set(printed["sandbox"].splitlines())
            if missing:
                raise TourError(f"it should have printed {', '.join(sorted(missing))}", image=image.name)

    def _publisher(self, *command: str, flags: Sequence[str] = ()) -> None:
        """The publisher, talking to this terminal; settings of the caller's environment do not count here."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PUBLISHER_")}
        argv: list[str | Path] = [_PROGRAMS / "publisher", *command, "--config", self._places.publisher, *flags]
        status = subprocess.run(argv, env=environment, check=False).returncode
        if status:
            raise TourError(f"publisher {' '.join(command)} failed with status {status}", hint="the lines above say why")


@contextlib.contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"--- {title}", flush=True)
    start = time.monotonic()
    yield
    print(f"    {time.monotonic() - start:.1f} s", flush=True)


def _say(line: str | Path) -> None:
    print(f"    {line}", flush=True)


def _earlier_port(registry: Path) -> int | None:
    """The port of the last tour's registry, so that published names stay bound to it; None where it is taken or never was."""
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
    """This machine's architecture, in the words of image platforms."""
    return go_name(os.uname().machine)


def main() -> int:
    """0: every step did what it should. 1: one did not. 2: usage."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the registry ends as well
    root, *named = sys.argv[1:]
    try:
        places = Places(Path(root))
        _prepare(places)
        tour = Tour(places)
        if named:
            tour.of(named)
        else:
            tour.demonstration()
    except PublisherError as error:
        for problem in getattr(error, "problems", ()):
            print(f"quickstart: {problem}", file=sys.stderr)
        print(f"quickstart: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("quickstart: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


def _prepare(places: Places) -> None:
    try:
        places.prepare()
    except OSError as error:
        raise UsageError(
            f"{places.root} cannot be written: {error}", hint="another user's? remove it, or be that user"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
