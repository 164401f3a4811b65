"""An entry that requires a signature: what is published, what stays, and what execution points learn of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import ROOT
from tests.support.images.printing_image import push, said_by
from tests.support.publisher.host import Host
from tests.support.registries.cosign import SIGN_PREDICATE, PlainKey, attach
from tests.support.registries.sigstore_instance import SigstoreInstance

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system
NAME, IDENTITY, ISSUER = "signed/tool:1", "release@example.org", "https://login.example.org"


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer) -> Host:
    return Host(shared_path, registry)


def resolve(host: Host, *flags: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "publisher.resolver", "resolve", NAME, "--json", f"--repository={host.repository}"]
    argv += [f"--public-key={host.key}.pub", "--arch=amd64", *flags]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)


def test_only_what_the_identity_signed_is_published_and_the_last_good_version_stays(host: Host, registry: RegistryServer) -> None:
    instance, address = SigstoreInstance(host.where), registry.address
    host.images({"image": NAME, "require": "signed", "signed_by": {"identity": IDENTITY, "issuer": ISSUER}})
    root = f"--sigstore-root={instance.trust_root}"
    first = push(registry, NAME, "first")
    refused = host.run("sync", "--json", root)
    assert refused.returncode == 1
    reason = json.loads(refused.stdout)["images"][0]["reason"]
    assert reason.startswith(f"the image {first[7:19]} is not signed by {IDENTITY} (issuer {ISSUER}): nothing that is attached")
    assert host.run("check", "--all", root).returncode == 1
    signature = attach(address, "signed/tool", first, instance.sign(first, IDENTITY, ISSUER), predicate=SIGN_PREDICATE)
    host.run("sync", root, check=True)
    assert host.run("check", "--all", root).returncode == 0
    version = host.record(NAME).current("amd64")
    assert version is not None
    assert version.signed == {"identity": IDENTITY, "issuer": ISSUER}

    second = push(registry, NAME, "second")
    attach(address, "signed/tool", second, PlainKey().bundle(second), predicate=SIGN_PREDICATE)
    refused = host.run("sync", "--json", root)
    reason = json.loads(refused.stdout)["images"][0]["reason"]
    assert (refused.returncode, reason.endswith("; the published version stays (sign it, or correct signed_by)")) == (1, True)
    assert said_by(host.repository / NAME, host).endswith("first\n")
    said = host.run("status", NAME, check=True).stdout
    assert f"signed by {IDENTITY}\n" in said
    assert f"attached  signature {signature} (" in said

    answer = json.loads(resolve(host, "--unsigned=refuse").stdout)
    assert (answer["digest"], answer["signed"]) == (first, {"identity": IDENTITY, "issuer": ISSUER})
    assert [one["digest"] for one in answer["attached"]] == [signature]


def test_a_site_that_refuses_unsigned_images_accepts_the_image_once_its_entry_requires_a_signature(
    host: Host, registry: RegistryServer
) -> None:
    key, digest = PlainKey(), push(registry, NAME, "unsigned")
    attach(registry.address, "signed/tool", digest, key.bundle(digest), predicate=SIGN_PREDICATE)
    host.images(NAME)
    host.sync()
    refused = resolve(host, "--unsigned=refuse")
    assert refused.returncode == 4
    assert f"no signature of the image {NAME} was verified, and this host refuses such images" in refused.stderr
    sif = host.sif(NAME)
    built = sif.stat().st_mtime_ns
    host.images({"image": NAME, "require": "signed", "signed_by": {"public_key": key.pem}})
    assert host.sync().results == {NAME: "published"}
    assert sif.stat().st_mtime_ns == built, "nothing is built for it"
    assert json.loads(resolve(host, "--unsigned=refuse").stdout)["signed"] == {"key": key.sha256}
    assert host.sync().results == {NAME: "unchanged"}
