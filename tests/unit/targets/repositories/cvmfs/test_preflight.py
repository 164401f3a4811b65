"""What a look at a CVMFS repository reports without changing anything: for ``publisher doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from publisher.errors import RepositoryError
from publisher.targets.repositories.cvmfs.preflight import Preflight

if TYPE_CHECKING:
    from publisher.targets.repositories.cvmfs.host import CvmfsHost
    from publisher.targets.repositories.cvmfs.mounts.mount_repair import MountRepair
    from publisher.targets.repositories.cvmfs.mounts.published_mount import PublishedMount
    from publisher.targets.repositories.cvmfs.obstacles import Obstacles

FQRN = "images.example.org"


class Host:
    configured = True

    def is_configured(self) -> bool:
        return self.configured

    def is_replica(self) -> bool:
        return False

    def has_old_tag(self) -> bool:
        return False

    def settings(self) -> dict[str, str]:
        return {"CVMFS_AUTO_TAG": "true", "CVMFS_UPSTREAM_STORAGE": "local,/srv/cvmfs/x/data/txn,/srv/cvmfs/x"}


class Mount:
    def require_mounted(self) -> None:
        pass


class Repair:
    def require_mounts(self) -> list[str]:
        raise AssertionError("a look must not mount anything")


def preflight(host: Host, monkeypatch: pytest.MonkeyPatch) -> Preflight:
    monkeypatch.setattr(Preflight, "_check_whitelist", lambda _: ["the whitelist expires in 5 h"])
    return Preflight(
        FQRN,
        cast("CvmfsHost", host),
        cast("PublishedMount", Mount()),
        repair=cast("MountRepair", Repair()),
        obstacles=cast("Obstacles", None),
        clock=lambda: 0.0,
    )


def test_a_look_reports_settings_and_the_whitelist_and_mounts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = preflight(Host(), monkeypatch).examine()
    assert any(line.startswith(f"{FQRN}: ") and "CVMFS_AUTO_TAG" in line for line in lines)
    assert lines[-1] == "the whitelist expires in 5 h"


def test_a_repository_that_is_not_configured_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    host.configured = False
    with pytest.raises(RepositoryError):
        preflight(host, monkeypatch).examine()
