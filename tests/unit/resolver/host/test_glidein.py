from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.config.settings import ResolverSettings
from publisher.resolver.host.glidein import Glidein
from publisher.resolver.system.notes import Warnings

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
# comment
CVMFS_BASE /old
CVMFS_BASE /pilot/cvmfs
IMAGES_DIR /data
GLIDEIN_SINGULARITY_BINDPATH /hadoop,/ceph:/ceph:ro
SINGULARITY_DISABLE_PID_NAMESPACES 1
EMPTY
"""


def settings(**given: str) -> ResolverSettings:
    return ResolverSettings({name.replace("_", "-"): [value] for name, value in given.items()}, "amd64")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "glidein_config"
    path.write_text(CONFIG)
    return path


def test_a_glidein_says_where_things_are(config: Path) -> None:
    (config.parent / ".gwms.d").mkdir()
    glidein = Glidein({"glidein_config": str(config), "GWMS_SINGULARITY_PATH": "/opt/apptainer"})
    notes = Warnings()
    assert glidein.flags(settings(repository_name="images.example.org"), notes) == {
        "repository": ["/pilot/cvmfs/images.example.org"],
        "cache": [f"/data/images-{platform.node()}-{{uid}}"],
        "apptainer": ["/opt/apptainer"],
        "job-files": [str(config.parent / ".gwms.d")],
        "stop-file": [str(config.parent / "stop-glidein.stamp")],
    }
    assert notes.all == []
    assert glidein.binds() == ["/hadoop", "/ceph:/ceph:ro"]
    assert glidein.forbids_pid_namespaces()


def test_the_environment_wins_and_a_place_that_the_site_has_set_stays(config: Path) -> None:
    glidein = Glidein({"glidein_config": str(config), "CVMFS_BASE": "/env", "GLIDEIN_SINGULARITY_BINDPATH": "/a /b"})
    assert glidein.binds() == ["/a", "/b"]
    assert glidein.flags(settings(repository_name="x.org"), Warnings())["repository"] == ["/env/x.org"]
    own = glidein.flags(settings(repository="/mnt/x.org", apptainer="/bin/apptainer"), Warnings())
    assert {"repository", "apptainer", "job-files"} & set(own) == set()


def test_a_machine_that_is_no_glidein_says_nothing() -> None:
    for environ in ({}, {"glidein_config": "/absent/glidein_config"}):
        glidein = Glidein(environ)
        assert set(glidein.flags(settings(repository_name="x.org"), Warnings())) <= {"stop-file"}
        assert (glidein.binds(), glidein.forbids_pid_namespaces()) == ([], False)


def test_what_a_configuration_cannot_say_is_noted() -> None:
    notes = Warnings()
    assert Glidein({"IMAGES_DIR": "/with a blank"}).flags(settings(repository_name="x.org"), notes) == {}
    assert "the glidein's cache '/with a blank" in notes.all[0]
