"""What a repository's settings mean for publishing images."""

from __future__ import annotations

import pytest

from publisher.targets.repositories.cvmfs.repository_settings import advice, gateway, refusal

SOUND = {"CVMFS_GARBAGE_COLLECTION": "true", "CVMFS_FORCE_REMOUNT_WARNING": "false"}


def test_settings_as_they_should_be_are_not_spoken_of() -> None:
    assert advice(SOUND) == []
    assert refusal({"CVMFS_USER": "cvmfs", "CVMFS_UPSTREAM_STORAGE": "local,/srv/x,/srv/x"}, None) is None


@pytest.mark.parametrize("name", SOUND)
def test_what_the_tool_does_unless_told_otherwise_counts_as_set(name: str) -> None:
    (line,) = advice({key: value for key, value in SOUND.items() if key != name})
    assert line.startswith(f"server.conf: {name}=")


def test_only_the_owner_and_root_may_publish() -> None:
    settings = {"CVMFS_USER": "cvmfs"}
    assert refusal(settings, "cvmfs") is None
    assert refusal(settings, "other") == ("it belongs to cvmfs, and this is other", "run as cvmfs, or as root")


def test_behind_a_gateway_what_the_storage_collects_is_not_known_here() -> None:
    settings = {"CVMFS_UPSTREAM_STORAGE": "gw,/srv/x/data/txn,http://gateway:4929/api/v1", "CVMFS_FORCE_REMOUNT_WARNING": "false"}
    assert refusal(settings, None) is None
    assert gateway(settings) == "http://gateway:4929/api/v1"
    assert advice(settings) == []
    assert gateway({"CVMFS_UPSTREAM_STORAGE": "local,/srv/x,/srv/x"}) is None
    assert gateway({}) is None
