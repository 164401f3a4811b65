"""The images of ``ci/quickstart``, made from packages of this test."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from ci.demo import images
from ci.demo.debian import Packages
from publisher.errors import UsageError
from tests.support.images.layers import umoci_unpack
from tests.support.registries.registry import OCI, RegistryServer, ask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.system
_SHELL = {"bin/bash": "a shell", "usr/share/man/man1/bash.1": "left out"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A package archive on the disk with the packages of the images."""
    root = tmp_path / "archive"
    for name in ("coreutils", "dash", "findutils", "grep", "sed", "unneeded"):
        _package(root, name, "amd64", {f"usr/share/doc/{name}/copyright": "left out"})
    _package(root, "libtinfo6", "amd64", {"lib/x86_64-linux-gnu/libtinfo.so.6": "library"})
    _package(root, "bash", "amd64", _SHELL, depends="libtinfo6")
    for architecture in ("amd64", "arm64"):
        _package(root, "busybox-static", architecture, {"bin/busybox": f"for {architecture}"})
    stanzas = []
    for path in sorted(root.glob("*.deb")):
        fields = subprocess.run(["dpkg-deb", "--field", str(path)], capture_output=True, check=True).stdout.decode()
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        stanzas.append(f"{fields}Filename: ./{path.name}\nSize: {len(content)}\nSHA256: {digest}\n")
    (root / "Packages").write_text("\n".join(stanzas))
    return root


def test_packages_come_with_what_they_need_and_from_then_on_without_their_archive(archive: Path, tmp_path: Path) -> None:
    fetched = _packages(archive, tmp_path / "cache").fetch(("bash",), "amd64")
    shutil.rmtree(archive)
    assert [path.name for path in fetched] == ["bash_1_amd64.deb", "libtinfo6_1_amd64.deb"]
    again = Packages([tmp_path / "empty", tmp_path / "cache"])
    assert again.fetch(("bash",), "amd64") == fetched
    assert all(path.exists() for path in fetched)


def test_missing_packages_are_a_clear_failure_every_time(archive: Path, tmp_path: Path) -> None:
    packages = _packages(archive, tmp_path / "cache")
    for _ in range(2):  # what the first try left behind must not pass for a download
        with pytest.raises(UsageError, match="apt could not download no-such-package:amd64"):
            packages.fetch(("no-such-package",), "amd64")


def test_file_sources_that_apt_does_not_copy_are_refused(archive: Path, tmp_path: Path) -> None:
    packages = _packages(archive, tmp_path / "cache", scheme="file")
    with pytest.raises(UsageError, match="copy:"):
        packages.fetch(("bash",), "amd64")


def test_an_image_made_again_is_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    packages = _packages(archive, tmp_path / "cache")
    image = images.debian_tools("amd64")
    assert image.make(packages) == image.make(packages)


def test_the_image_with_several_layers_is_as_the_demonstration_describes_it(archive: Path, tmp_path: Path) -> None:
    (made,) = images.debian_tools("amd64").make(_packages(archive, tmp_path / "cache"))
    assert len(made.layers) > 1
    root = umoci_unpack(made.layers, tmp_path)
    assert root is not None
    assert (root / "bin").readlink().as_posix() == "usr/bin"
    assert (root / "bin/bash").read_text() == "a shell"
    assert (root / "usr/lib/x86_64-linux-gnu/libtinfo.so.6").exists()
    assert not (root / "usr/share/man/man1/bash.1").exists()
    greetings = root / "opt/greetings"
    assert sorted(path.name for path in greetings.iterdir()) == ["good-day", "hello", "servus"]
    assert (greetings / "hello").stat().st_nlink == 3
    assert [path.name for path in (root / "opt/data").iterdir()] == ["new"]
    assert (root / "usr/local/bin/entrypoint").stat().st_mode & 0o777 == 0o755


def test_the_index_has_both_architectures_each_with_its_own_program_and_an_attestation(archive: Path, tmp_path: Path) -> None:
    packages = _packages(archive, tmp_path / "cache")
    with RegistryServer(tmp_path / "registry") as registry:
        image = images.multi("arm64")
        assert not images.is_pushed(image, registry.address)
        images.push(image, packages, registry.address)
        assert images.is_pushed(image, registry.address)
        index = _document(registry, "demo/multi", "1")
        platforms = [entry["platform"]["architecture"] for entry in index["manifests"]]
        assert sorted(platforms) == ["amd64", "arm64", "unknown", "unknown"]
        layers = {
            entry["platform"]["architecture"]: _document(registry, "demo/multi", entry["digest"])["layers"][0]["digest"]
            for entry in index["manifests"]
        }
    assert layers["amd64"] != layers["arm64"]


def _packages(archive: Path, cache: Path, scheme: str = "copy") -> Packages:
    """Return packages from one archive only, whatever this machine's sources are."""
    cache.mkdir()
    sources = cache / "sources.list"
    sources.write_text(f"deb [trusted=yes] {scheme}:{archive} ./\n")
    return Packages([cache], [f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=/dev/null"])


def _package(where: Path, name: str, architecture: str, files: Mapping[str, str], depends: str = "") -> None:
    tree = where / f"{name}-{architecture}"
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    (tree / "DEBIAN").mkdir(parents=True)
    fields = {"Package": name, "Version": "1", "Architecture": architecture, "Maintainer": "nobody <nobody@localhost>"}
    fields |= {"Description": "made by a test"} | ({"Depends": depends} if depends else {})
    (tree / "DEBIAN" / "control").write_text("".join(f"{field}: {value}\n" for field, value in fields.items()))
    built = where / f"{name}_1_{architecture}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(built)], capture_output=True, check=True
    )
    shutil.rmtree(tree)


def _document(registry: RegistryServer, repository: str, target: str) -> Any:
    accept = {"Accept": f"{OCI['manifest']}, {OCI['index']}"}
    return json.loads(ask(registry.address, "GET", f"/v2/{repository}/manifests/{target}", headers=accept).body)
