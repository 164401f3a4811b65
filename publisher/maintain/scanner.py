"""Runs the vulnerability scanner that the operator names, trivy or grype, on a directory, and reads its JSON.

The directory is a stranger's: the scanner runs with a deadline, as an unprivileged account where this process is root, and what
it prints is bounded and checked.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import CommandError, ScanError, UsageError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

_log = logging.getLogger(__name__)

SEVERITIES = ("critical", "high", "medium", "low", "other")
"""The severities of findings, the worst first; ``other`` is whatever a scanner says besides."""
MAX_FINDINGS = 500
"""Findings of an image that are stored, the worst first; the others are counted."""
_MAX_TEXT = 200  # characters of one value


class Vulnerability(NamedTuple):
    """A vulnerable package in an image: ``fixed`` is the version without the vulnerability, empty if there is none."""

    severity: str
    id: str
    package: str
    version: str
    fixed: str


@dataclass(frozen=True)
class ScanResult:
    """The result of one scan.

    Attributes:
        scanner: ``trivy`` or ``grype``.
        scanned: when, seconds since the epoch.
        counts: severity -> number of findings, also of those that are not stored.
        findings: the findings, the worst first, at most :data:`MAX_FINDINGS`.
    """

    scanner: str
    scanned: int
    counts: Mapping[str, int]
    findings: Sequence[Vulnerability]

    def summary(self) -> str:
        """Return the counts for people: ``1 critical, 3 high``."""
        return ", ".join(f"{self.counts[name]} {name}" for name in SEVERITIES if self.counts.get(name)) or "nothing found"

    def to_json(self) -> dict[str, object]:
        """Return the result as it is stored."""
        findings = [finding._asdict() for finding in self.findings]
        return {"schema": 1, "scanner": self.scanner, "scanned": self.scanned, "counts": dict(self.counts), "findings": findings}


def parse_result(content: bytes) -> ScanResult | None:
    """Return the result that :meth:`ScanResult.to_json` stored; None if it is not one."""
    try:
        value = json.loads(content)
        counts = {str(name): int(count) for name, count in value["counts"].items()}
        findings = [Vulnerability(**{name: str(one[name]) for name in Vulnerability._fields}) for one in value["findings"]]
        return ScanResult(str(value["scanner"]), int(value["scanned"]), counts, findings)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


class VulnerabilityScanner:
    """A scanner.

    Args:
        program: path or name of trivy or grype.
        account: the account that it runs as, None for this process's.
        home: its home directory, which has its database; None for none.
        deadline: seconds that one scan may take.

    Attributes:
        name: ``trivy`` or ``grype``.

    Raises:
        UsageError: the program is neither.
    """

    def __init__(self, program: str, account: command.UnixAccount | None, home: Path | None, deadline: float) -> None:
        file_name = program.rpartition("/")[2]
        known = [name for name in _PARSERS if name in file_name]
        if len(known) != 1:
            raise UsageError(f"the scanner {program!r} is neither trivy nor grype", hint="correct the setting scanner")
        self.name = known[0]
        self._program = program
        self._account = account
        self._home = home
        self._deadline = deadline

    def scan(self, tree: Path, now: int) -> ScanResult:
        """Return the result of a scan of a directory; ``now`` is the time, seconds since the epoch.

        Raises:
            ScanError: the scanner is missing, fails, takes too long, or prints something else than its JSON.
        """
        arguments = {
            "trivy": ["rootfs", "--quiet", "--scanners", "vuln", "--format", "json", str(tree)],
            "grype": ["--quiet", "--output", "json", f"dir:{tree}"],
        }[self.name]
        env = {} if self._home is None else {"HOME": str(self._home)}
        try:
            done = command.run([self._program, *arguments], deadline=self._deadline, env=env, account=self._account)
        except CommandError as error:
            raise ScanError(f"the scan failed: {error.reason}", hint=error.hint) from error
        try:
            findings = sorted(set(_PARSERS[self.name](json.loads(done.stdout))), key=_worst_first)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ScanError(f"{self.name} did not print its JSON: {error!r}") from None
        counts = Counter(finding.severity for finding in findings)
        _log.info("%s: %d finding(s)", tree, len(findings))
        return ScanResult(self.name, now, dict(counts), findings[:MAX_FINDINGS])


def _trivy(report: dict[str, list[dict[str, list[dict[str, object]]]]]) -> Iterator[Vulnerability]:
    """Yield the findings of ``trivy --format json``."""
    if "SchemaVersion" not in report:
        raise ValueError("it has no SchemaVersion")
    for result in report.get("Results") or ():
        for one in result.get("Vulnerabilities") or ():
            package, version = one["PkgName"], one.get("InstalledVersion")
            yield _finding(one.get("Severity"), one["VulnerabilityID"], package, version, one.get("FixedVersion"))


def _grype(report: dict[str, list[dict[str, dict[str, object]]]]) -> Iterator[Vulnerability]:
    """Yield the findings of ``grype --output json``."""
    for match in report["matches"]:
        found, package = match["vulnerability"], match["artifact"]
        fix = found.get("fix")
        versions = fix.get("versions") if isinstance(fix, dict) else None
        fixed = ", ".join(map(str, versions)) if isinstance(versions, list) else ""
        yield _finding(found.get("severity"), found["id"], package["name"], package.get("version"), fixed)


_PARSERS: Mapping[str, Callable[[Any], Iterator[Vulnerability]]] = {"trivy": _trivy, "grype": _grype}


def _finding(severity: object, *values: object) -> Vulnerability:
    known = str(severity).lower()
    texts = ["".join(filter(str.isprintable, str(value or "")))[:_MAX_TEXT] for value in values]
    return Vulnerability(known if known in SEVERITIES else "other", *texts)


def _worst_first(finding: Vulnerability) -> tuple[int, Vulnerability]:
    return SEVERITIES.index(finding.severity), finding
