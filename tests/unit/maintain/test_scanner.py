"""Scanners as programs that print what trivy and grype print; the real ones need a database from the network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from publisher.errors import ScanError, UsageError
from publisher.maintain.scanner import MAX_FINDINGS, Vulnerability, VulnerabilityScanner, parse_result
from tests.support.machine.printing_program import printing_program

if TYPE_CHECKING:
    from pathlib import Path

TRIVY = {
    "SchemaVersion": 2,
    "ArtifactType": "filesystem",
    "Results": [
        {"Target": "debian", "Class": "os-pkgs"},
        {
            "Target": "rocky",
            "Vulnerabilities": [
                {"VulnerabilityID": "CVE-2026-2", "PkgName": "zlib", "InstalledVersion": "1.2", "Severity": "LOW"},
                {
                    "VulnerabilityID": "CVE-2026-1",
                    "PkgName": "openssl",
                    "InstalledVersion": "3.0.1",
                    "FixedVersion": "3.0.2",
                    "Severity": "CRITICAL",
                },
                {"VulnerabilityID": "CVE-2026-3", "PkgName": "odd", "Severity": "UNKNOWN"},
            ],
        },
    ],
}
GRYPE = {
    "matches": [
        {
            "vulnerability": {"id": "CVE-2026-1", "severity": "Critical", "fix": {"versions": ["3.0.2"], "state": "fixed"}},
            "artifact": {"name": "openssl", "version": "3.0.1"},
        },
        {"vulnerability": {"id": "CVE-2026-2", "severity": "Low"}, "artifact": {"name": "zlib", "version": "1.2"}},
        {"vulnerability": {"id": "CVE-2026-3", "severity": "Negligible"}, "artifact": {"name": "odd", "version": ""}},
    ],
    "descriptor": {"name": "grype"},
}
FINDINGS = [
    Vulnerability("critical", "CVE-2026-1", "openssl", "3.0.1", "3.0.2"),
    Vulnerability("low", "CVE-2026-2", "zlib", "1.2", ""),
    Vulnerability("other", "CVE-2026-3", "odd", "", ""),
]


def scanner(path: Path, home: Path | None = None) -> VulnerabilityScanner:
    return VulnerabilityScanner(str(path), None, home, 30.0)


@pytest.mark.parametrize(
    ("name", "report", "arguments"),
    [
        ("trivy", TRIVY, ["rootfs", "--quiet", "--scanners", "vuln", "--format", "json", "{tree}"]),
        ("grype", GRYPE, ["--quiet", "--output", "json", "dir:{tree}"]),
    ],
)
def test_both_scanners_give_the_same_findings_the_worst_first(
    tmp_path: Path, name: str, report: object, arguments: list[str]
) -> None:
    program = printing_program(tmp_path / name, json.dumps(report))
    result = scanner(program, tmp_path / "home").scan(tmp_path / "tree", 7)
    assert result.findings == FINDINGS
    assert (result.scanner, result.scanned, result.summary()) == (name, 7, "1 critical, 1 low, 1 other")
    called = json.loads((tmp_path / f"{name}.called").read_text())
    assert called["arguments"] == [argument.format(tree=tmp_path / "tree") for argument in arguments]
    assert called["home"] == str(tmp_path / "home")
    assert parse_result(json.dumps(result.to_json()).encode()) == result


def test_an_image_without_findings_says_so(tmp_path: Path) -> None:
    program = printing_program(tmp_path / "trivy", json.dumps({"SchemaVersion": 2}))
    assert scanner(program).scan(tmp_path, 0).summary() == "nothing found"


def test_what_an_image_makes_a_scanner_print_is_bounded(tmp_path: Path) -> None:
    matches = [
        {"vulnerability": {"id": f"CVE-{number}\x1b[2J" + "x" * 5000, "severity": "High"}, "artifact": {"name": "a\nb"}}
        for number in range(2 * MAX_FINDINGS)
    ]
    result = scanner(printing_program(tmp_path / "grype", json.dumps({"matches": matches}))).scan(tmp_path, 0)
    assert (len(result.findings), result.counts) == (MAX_FINDINGS, {"high": 2 * MAX_FINDINGS})
    assert all(len(text) <= 200 and text.isprintable() for finding in result.findings for text in finding)


@pytest.mark.parametrize("printed", ["", "[]", "{}", '{"matches": 7}', '{"matches": [{"vulnerability": 1}]}', "[" * 100_000])
@pytest.mark.parametrize("name", ["trivy", "grype"])
def test_other_output_is_a_failed_scan(tmp_path: Path, name: str, printed: str) -> None:
    with pytest.raises(ScanError, match=f"{name} did not print its JSON"):
        scanner(printing_program(tmp_path / name, printed)).scan(tmp_path, 0)


def test_a_scanner_that_fails_or_is_missing_is_a_failed_scan(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"the scan failed: .*database is locked"):
        scanner(printing_program(tmp_path / "trivy", "", stderr="database is locked", status=1)).scan(tmp_path, 0)
    with pytest.raises(ScanError, match="the scan failed"):
        scanner(tmp_path / "absent" / "trivy").scan(tmp_path, 0)


def test_only_the_two_scanners_are_known() -> None:
    assert VulnerabilityScanner("/opt/trivy-0.58/trivy", None, None, 1.0).name == "trivy"
    for program in ("/usr/bin/clair", "/opt/trivy/run", "grype-trivy"):
        with pytest.raises(UsageError, match="is neither trivy nor grype"):
            VulnerabilityScanner(program, None, None, 1.0)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"counts": 1}', b'{"counts": {}, "findings": [{}]}'])
def test_a_stored_file_that_is_no_result_is_none(content: bytes) -> None:
    assert parse_result(content) is None
