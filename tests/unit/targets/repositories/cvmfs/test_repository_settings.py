"""What a repository's settings mean for publishing images."""

from __future__ import annotations

import pytest

from publisher.targets.repositories.cvmfs.repository_settings import advice, refusal

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


def test_a_gateway_is_refused() -> None:
    refused = refusal({"CVMFS_UPSTREAM_STORAGE": "gw,/srv/x,http://gateway:4929/api/v1"}, None)
    assert refused is not None
    assert "gateway" in refused[0]
