"""The SBOM of a release in CycloneDX: its files, and every Python package that the publisher is installed with."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import uuid
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[2]
LOCKED = re.compile(r"^([a-z0-9-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def write(output: Path) -> None:
    """Write the SBOM of the files of a directory into it; the same files give the same bytes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = [file_component(path) for path in sorted(output.iterdir())]
    required = {name for name, _, _ in LOCKED.findall((output / "publisher.txt").read_text())}
    locked = LOCKED.findall((output / "publisher-signatures.txt").read_text())
    packages = [library(*found, required=found[0] in required) for found in locked]
    release = Component(name=project["name"], version=project["version"], type=ComponentType.APPLICATION, bom_ref="release")
    release.licenses.add(DisjunctiveLicense(id="Apache-2.0"))
    bom = Bom(components=[*files, *packages])
    bom.metadata.component = release
    bom.register_dependency(release, [*files, *packages])
    body = json.loads(JsonV1Dot6(bom).output_as_string())
    del body["metadata"]["timestamp"], body["serialNumber"]
    body["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(body, sort_keys=True))}"
    (output / f"{project['name']}-{project['version']}.cdx.json").write_text(json.dumps(body, indent=2, sort_keys=True) + "\n")


def file_component(path: Path) -> Component:
    """Return a file of the release as a component."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Component(
        name=path.name, type=ComponentType.FILE, bom_ref=path.name, hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)]
    )


def library(name: str, version: str, hashes: str, *, required: bool) -> Component:
    """Return a package as a component, with the sha256 of its wheels."""
    purl = PackageURL("pypi", name=name, version=version)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        scope=ComponentScope.REQUIRED if required else ComponentScope.OPTIONAL,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=found) for found in re.findall(r"sha256:([0-9a-f]{64})", hashes)],
    )
