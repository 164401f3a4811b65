"""The files of a release: the same bytes whoever builds them, complete, signed, and installable without anything else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from publisher.state import signing
from tests.support.checkout import ROOT

pytestmark = pytest.mark.system
REQUIREMENTS = sorted((ROOT / "ci" / "requirements").glob("*.txt"))
WHEELS = Path(os.environ.get("OSPOOL_PACKAGE_CACHE", "/var/cache/ospool-image-publisher"), "wheels")
SMALL = "--without-publisher-packages"
PINNED = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)", re.MULTILINE)


def pinned(path: Path) -> dict[str, str]:
    return {found["name"]: found["version"] for found in PINNED.finditer(path.read_text())}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def copy_sources(checkout: Path) -> None:
    """Copy what a release is made from."""
    for name in ("publisher", "ci"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)


def build(checkout: Path, output: Path, *, umask: int = 0o022, **environment: str) -> dict[str, str]:
    """Run ``ci/release`` of a checkout; return file name -> sha256."""
    command: list[str | Path] = [sys.executable, checkout / "ci" / "release", SMALL, "--output", output]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    subprocess.run(command, check=True, capture_output=True, umask=umask, env=env)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in output.iterdir()}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "release.pem"
    signing.new_key(path)
    return path


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Path:
    output = tmp_path_factory.mktemp("release")
    command: list[str | Path] = [sys.executable, ROOT / "ci" / "release", SMALL, "--output", output, "--key", key]
    subprocess.run(command, check=True, capture_output=True)
    return output


def test_two_builds_of_the_same_sources_are_the_same_bytes(release: Path, tmp_path: Path) -> None:
    """In another directory, with other dates, modes, umask, time zone and language, and with files that do not belong to it."""
    copy = tmp_path / "another place"
    copy_sources(copy)
    for path in copy.rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o600)
    (copy / "publisher" / "notes.txt").write_text("not a part of the program")
    built = build(copy, tmp_path / "dist", umask=0o077, TZ="Asia/Tokyo", LC_ALL="C", SOURCE_DATE_EPOCH="1700000000")
    here = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in release.iterdir()}
    assert here.pop("SHA256SUMS.sig")
    assert built == here
    kinds = {".pyz", ".whl", ".gz", ".rpm", ".deb", ".txt", ".json", ".1", ".bash", ".zsh", ".fish", ""}
    assert {Path(name).suffix for name in built} == kinds


def test_a_change_of_the_sources_changes_the_bytes(release: Path, tmp_path: Path) -> None:
    copy = tmp_path / "changed"
    copy_sources(copy)
    with (copy / "publisher" / "contract" / "units.py").open("a") as file:
        file.write("# one more line\n")
    built = build(copy, tmp_path / "dist")
    changed = [name for name, sha256 in built.items() if hashlib.sha256((release / name).read_bytes()).hexdigest() != sha256]
    kinds = {".pyz", ".whl", ".gz", ".rpm", ".deb", ".json", ""}
    assert {Path(name).suffix for name in changed} == kinds, "SBOM and checksums name all of them"


def test_the_checksums_cover_every_file_and_are_signed(release: Path, key: Path, tmp_path: Path) -> None:
    sums = release / "SHA256SUMS"
    listed = {line.split("  ")[1] for line in sums.read_text().splitlines()}
    assert listed == {path.name for path in release.iterdir()} - {"SHA256SUMS", "SHA256SUMS.sig"}
    subprocess.run(["sha256sum", "--check", "--quiet", sums], check=True, cwd=release)
    verify = ["openssl", "dgst", "-sha256", "-verify", f"{key}.pub", "-signature", str(release / "SHA256SUMS.sig")]
    assert subprocess.run([*verify, sums], capture_output=True, check=False).returncode == 0
    forged = tmp_path / "SHA256SUMS"
    forged.write_text(sums.read_text().replace("a", "b"))
    assert subprocess.run([*verify, forged], capture_output=True, check=False).returncode != 0


def test_the_sbom_names_the_files_and_every_package_with_its_hashes(release: Path) -> None:
    sbom = json.loads(next(release.glob("*.cdx.json")).read_text())
    assert (sbom["bomFormat"], sbom["specVersion"], sbom["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "1.6",
        "ospool-image-publisher",
    )
    files = {one["name"]: one["hashes"][0]["content"] for one in sbom["components"] if one["type"] == "file"}
    described = {path for path in release.iterdir() if not path.name.startswith("SHA256SUMS") and path.suffix != ".json"}
    assert files == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in described}
    libraries = [one for one in sbom["components"] if one["type"] == "library"]
    assert {one["name"]: one["version"] for one in libraries} == pinned(ROOT / "ci/requirements/publisher-signatures.txt")
    assert {one["name"] for one in libraries if one["scope"] == "required"} == set(pinned(ROOT / "ci/requirements/publisher.txt"))
    assert all(one["hashes"] and one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in libraries)
    depends = {one["ref"]: set(one.get("dependsOn", [])) for one in sbom["dependencies"]}
    assert depends["release"] == {one["bom-ref"] for one in sbom["components"]}


def test_the_requirements_are_pinned_by_hash_and_name_no_place() -> None:
    assert [path.name for path in REQUIREMENTS] == ["publisher-signatures.txt", "publisher.txt"]
    constraints = {normal(name): version for name, version in re.findall(r"^(\S+)==(\S+)$", _constraints(), re.MULTILINE)}
    for path in REQUIREMENTS:
        text = path.read_text()
        assert "://" not in text
        blocks = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
        assert len(blocks) == len(pinned(path)) > 20
        assert all("--hash=sha256:" in block for block in blocks)
        assert {name: constraints[name] for name in pinned(path)} == pinned(path), "run ci/lock"
    assert not {"pytest", "mypy", "ruff", "hypothesis", "spython"} & set(pinned(REQUIREMENTS[0]))


def _constraints() -> str:
    return (ROOT / "ci" / "constraints.txt").read_text()


def test_the_wheel_has_the_program_alone(release: Path) -> None:
    with zipfile.ZipFile(next(release.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"publisher"}
    assert "publisher/py.typed" in names
    assert {"publisher/page/templates/index.html", "publisher/page/assets/page.js"} <= set(names)
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "publisher").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


def test_a_host_installs_the_release_with_runtime_packages_only(release: Path, tmp_path: Path) -> None:
    """The commands of docs/operations.md, without a network: the wheels of ci/environment are those that the hashes name."""
    if not WHEELS.is_dir():
        pytest.skip("the wheels are not in the package cache")
    python = _empty_environment(tmp_path / "venv")
    install = [*python, "install", "--quiet", "--no-index", f"--find-links={WHEELS}"]
    locked = [*install, "--require-hashes", "--only-binary", ":all:", "-r", release / "publisher.txt"]
    subprocess.run(locked, check=True)
    subprocess.run([*install, "--no-deps", next(release.glob("*.whl"))], check=True)
    listed = json.loads(subprocess.run([*python, "list", "--format=json"], check=True, capture_output=True).stdout)
    installed = {normal(one["name"]): one["version"] for one in listed}
    assert installed.pop("ospool-image-publisher")
    assert installed == pinned(release / "publisher.txt")
    subprocess.run([*python, "check", "--quiet"], check=True)
    said = subprocess.run([tmp_path / "venv/bin/publisher", "--version"], check=True, capture_output=True, text=True)
    assert said.stdout.startswith("publisher, version ")


def test_a_wheel_with_other_bytes_is_refused(release: Path, tmp_path: Path) -> None:
    if not WHEELS.is_dir():
        pytest.skip("the wheels are not in the package cache")
    found = next(WHEELS.glob("mdurl-*.whl"))
    forged = tmp_path / "wheels" / found.name
    forged.parent.mkdir()
    with zipfile.ZipFile(found) as source, zipfile.ZipFile(forged, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, source.read(name))
    lines = release / "publisher.txt"
    only = tmp_path / "only.txt"
    only.write_text(re.search(r"^mdurl==.*?(?=^[a-z])", lines.read_text(), re.MULTILINE | re.DOTALL)[0])  # type: ignore[index]
    python = _empty_environment(tmp_path / "venv")
    command = [*python, "install", "--no-index", f"--find-links={forged.parent}", "--require-hashes", "-r", only]
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def _empty_environment(directory: Path) -> list[str | Path]:
    """Make a virtual environment without any package; return the command of a pip that works on it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    return [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "--python", directory / "bin/python"]
