"""The two packages of a release, for dpkg and for RPM alike."""

from __future__ import annotations

import sys
from dataclasses import dataclass

PYTHON = f"python3.{sys.version_info.minor}"
"""The Python that runs the publisher: its compiled dependencies are for the minor version that builds the release."""
EPOCH = "315532800"
"""1 January 1980, the oldest date in a zip file, in seconds since 1970: the date of every file in a release."""


@dataclass(frozen=True)
class Package:
    """What a package is called, says and needs.

    Attributes:
        name: of the package.
        summary: one line.
        description: one line more.
        anywhere: has no compiled code and so is for every processor.
        deb_depends: other packages in Debian's words.
        deb_recommends: those without which it can be installed: Debian 12 has no Apptainer, ci/install-system brings one.
        rpm_requires: other packages in EL9's words, with EPEL.
        after_install: a command that makes the accounts of the package; it may be repeated.
    """

    name: str
    summary: str
    description: str
    anywhere: bool
    deb_depends: str
    deb_recommends: str
    rpm_requires: str
    after_install: str = ""


RESOLVER = Package(
    name="image-resolver",
    summary="finds published container images on execution points",
    description="It returns the CVMFS sandbox or a verified SIF for the name of an image, and is a prepare-job hook of HTCondor.",
    anywhere=True,
    deb_depends="python3 (>= 3.9), openssl",
    deb_recommends="apptainer, squashfuse",
    rpm_requires="python3 >= 3.9, openssl, apptainer",
)
PUBLISHER = Package(
    name="ospool-image-publisher",
    summary="publishes container images to CVMFS and OSDF",
    description="It builds each image of a list once, and publishes a sandbox, a SIF and a signed manifest that names both.",
    anywhere=False,
    deb_depends=f"{PYTHON}, squashfs-tools, openssl, ca-certificates, systemd | systemd-standalone-sysusers",
    deb_recommends="apptainer",
    rpm_requires=f"{PYTHON}, squashfs-tools, openssl, ca-certificates, systemd, apptainer",
    after_install="systemd-sysusers ospool-image-publisher.conf",
)
