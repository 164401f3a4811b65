"""`publisher scan` over published sandboxes, with a program in place of trivy, whose database comes from the network."""

from __future__ import annotations

import json
import os
import pwd
from typing import TYPE_CHECKING

import pytest

from tests.support.images.printing_image import push, said_by
from tests.support.machine.printing_program import printing_program
from tests.support.publisher.host import ORDINARY, Host

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system
NAME = "scan/tool:1"
FOUND = {"VulnerabilityID": "CVE-2026-1", "PkgName": "openssl", "InstalledVersion": "3.0.1", "Severity": "CRITICAL"}


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer) -> Host:
    return Host(shared_path, registry)


def test_a_scan_is_stored_and_shown_and_blocks_nothing(host: Host, registry: RegistryServer) -> None:
    push(registry, NAME, "scanned")
    host.images(NAME)
    host.sync()
    before = host.index()
    program = printing_program(host.where / "trivy", json.dumps({"SchemaVersion": 2, "Results": [{"Vulnerabilities": [FOUND]}]}))
    assert "no scanner is named" in host.run("scan").stderr
    done = host.run("scan", f"--scanner={program}", check=True)
    assert done.stdout == f"{NAME}: 1 critical\n"
    called = json.loads((host.where / "trivy.called").read_text())
    assert called["arguments"][-1].startswith(f"{host.repository}/.images/")
    assert called["uid"] == (pwd.getpwnam(ORDINARY).pw_uid if os.geteuid() == 0 else os.geteuid())
    assert "scan      1 critical (trivy, 20" in host.run("status", NAME, check=True).stdout
    listed = json.loads(host.run("scan", "--list", "--json", check=True).stdout)
    assert [(one["name"], one["scan"]["counts"]) for one in listed] == [(NAME, {"critical": 1})]
    assert host.run("scan", f"--scanner={program}", check=True).stdout == "nothing was due\n"

    assert host.sync().results == {NAME: "unchanged"}
    assert said_by(host.repository / NAME, host).endswith("scanned\n")
    assert host.run("verify", check=True).stdout == ""
    after = host.index()
    assert (before and before.serial) == (after and after.serial), "the manifest does not know of it"


def test_a_failed_scan_is_reported(host: Host, registry: RegistryServer) -> None:
    push(registry, NAME, "failing")
    host.images(NAME)
    host.sync()
    program = printing_program(host.where / "grype", "", stderr="no database", status=1)
    done = host.run("scan", f"--scanner={program}")
    assert done.returncode == 1
    assert f"{NAME}: the scan failed: " in done.stderr
    assert "no database" in done.stderr
    assert not (host.repository / ".publisher" / "scans").exists()
