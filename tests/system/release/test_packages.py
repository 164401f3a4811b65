"""The packages of a release are installed in a copy of this machine, started, and removed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import ROOT
from tests.support.machine.copy_of_the_machine import run_in_a_copy

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]  # packing 110 MB four times takes long on a busy machine
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="packages are installed by root")

FULL = [sys.executable, str(ROOT / "ci" / "release"), "--output"]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("release")
    subprocess.run([*FULL, output], check=True, capture_output=True)
    return output


START = """
image-resolver --version
image-resolver --help > /dev/null
publisher --version
mkdir /tmp/pool && cd /tmp/pool
publisher init > /dev/null
publisher list --json
/usr/lib/ospool-image-publisher/bin/python3 -I -c 'import sigstore; print(sigstore.__file__)'
bash -c 'source /usr/share/bash-completion/completions/publisher && complete -p publisher'
ls /usr/share/man/man1/image-resolver.1 /usr/share/man/man1/publisher.1
getent passwd image-build | cut -d : -f 7
cat /usr/lib/systemd/system/ospool-image-publisher.service | grep ^ExecStart
"""
FORGET = "userdel image-build\nrm -rf /usr/lib/ospool-image-publisher /usr/bin/publisher /usr/bin/image-resolver\n"
REMOVED = "for path in /usr/bin/publisher /usr/bin/image-resolver /usr/lib/ospool-image-publisher; do test ! -e $path; done\n"


def check_started(said: str) -> None:
    lines = said.splitlines()
    assert re.search(r"^image-resolver.* \d+\.\d+", said, re.MULTILINE)
    assert re.search(r"^publisher, version ", said, re.MULTILINE)
    assert "/usr/lib/ospool-image-publisher/lib/python3.11/site-packages/sigstore/__init__.py" in lines
    assert "/usr/share/man/man1/publisher.1" in lines
    assert "/usr/sbin/nologin" in lines, "the account of builds was made"
    assert "ExecStart=/usr/bin/publisher sync --config /etc/ospool-image-publisher/publisher.yaml" in lines
    assert re.search(r"^complete .* publisher$", said, re.MULTILINE)


@as_root
def test_debian_packages_are_installed_started_and_removed(release: Path, tmp_path: Path) -> None:
    remove = "dpkg --remove image-resolver ospool-image-publisher > /dev/null 2>&1\n"
    script = FORGET + "dpkg --install /mnt/*.deb > /dev/null\n" + START + "cd /\n" + remove + REMOVED
    check_started(run_in_a_copy(script, release, tmp_path))


@as_root
def test_rpms_are_installed_started_and_removed(release: Path, tmp_path: Path) -> None:
    """Without their dependencies: this machine's programs are from Debian's packages."""
    install = "rpm --install --nodeps /mnt/*.rpm\nrpm --verify --nodeps ospool-image-publisher image-resolver\n"
    script = FORGET + install + START + "cd /\nrpm --erase image-resolver ospool-image-publisher\n" + REMOVED
    check_started(run_in_a_copy(script, release, tmp_path))


def test_both_kinds_of_packages_hold_the_same_files(release: Path) -> None:
    for name in ("image-resolver", "ospool-image-publisher"):
        rpm, deb = next(release.glob(f"{name}-[0-9]*.rpm")), next(release.glob(f"{name}_*.deb"))
        archive = subprocess.run(["rpm2cpio", rpm], check=True, capture_output=True).stdout
        listed = subprocess.run(["cpio", "--list", "--quiet"], input=archive, check=True, capture_output=True).stdout
        in_rpm = {line.removeprefix(".") for line in listed.decode().splitlines()}
        contents = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True).stdout
        paths = subprocess.run(["tar", "--list"], input=contents, check=True, capture_output=True).stdout.decode().splitlines()
        in_deb = {path.removeprefix(".") for path in paths if not path.endswith("/")}
        assert in_deb <= in_rpm
        assert len(in_deb) > (1000 if name == "ospool-image-publisher" else 2)
        needs = subprocess.run(
            ["rpm", "--query", "--package", "--requires", rpm], check=True, capture_output=True, text=True
        ).stdout
        assert "apptainer" in needs.split()


def test_the_source_archive_builds_the_wheel_of_the_release(release: Path, tmp_path: Path) -> None:
    sdist = next(release.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        assert {(entry.mtime, entry.uname) for entry in archive} == {(315532800, "root")}
    subprocess.run(["tar", "--extract", "--file", sdist, "--directory", tmp_path], check=True)
    command = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", tmp_path, next(tmp_path.iterdir())], check=True, capture_output=True)
    assert contents(next(tmp_path.glob("*.whl"))) == contents(next(release.glob("*.whl")))


@pytest.mark.skipif("OSPOOL_EVERY_POINT" not in os.environ, reason="test_release.py builds the smaller files twice")
def test_two_builds_of_all_packages_are_the_same_bytes(release: Path, tmp_path: Path) -> None:
    subprocess.run([*FULL, tmp_path], check=True, capture_output=True)
    assert (tmp_path / "SHA256SUMS").read_bytes() == (release / "SHA256SUMS").read_bytes()


def contents(wheel: Path) -> dict[str, int]:
    """Return name -> CRC of the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def test_the_container_recipe_copies_files_of_the_release_and_runs_commands_that_a_shell_understands(release: Path) -> None:
    """It is read here and not built: that needs its base image."""
    text = re.sub(r" *\\\n *", " ", (release / "Containerfile").read_text())
    steps = [
        (word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word and not word.startswith("#")
    ]
    known = {"ARG", "FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in steps} <= known
    assert [rest.split(" AS ")[1] for word, rest in steps if word == "FROM"] == ["checker", "publisher"]
    for word, rest in steps:
        if word == "COPY":
            *sources, target = shlex.split(rest)
            assert target == "/release/"
            assert all(list(release.glob(source)) for source in sources), rest
        if word == "RUN":
            subprocess.run(["bash", "-n", "-c", rest], check=True)
    assert ("USER", "checker") in steps, "the checker reads strangers' lists and needs no root"
    assert "docker" not in (ROOT / "ci/packaging/Containerfile").read_text().replace("docker.io/", "")
