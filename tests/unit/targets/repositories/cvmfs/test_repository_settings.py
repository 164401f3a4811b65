"""What a repository's settings mean for publishing images."""

from __future__ import annotations

import pytest

from publisher.targets.repositories.cvmfs.repository_settings import advice, gateway, largest_ingested, refusal

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


MKFS = {
    "CVMFS_USER": "root",
    "CVMFS_HASH_ALGORITHM": "sha1",
    "CVMFS_COMPRESSION_ALGORITHM": "default",
    "CVMFS_EXTERNAL_DATA": "false",
    "CVMFS_MAX_CHUNK_SIZE": "16777216",
}
"""What a new repository has of the settings that matter for ingest."""


def test_a_new_repository_can_ingest_files_that_are_not_cut_into_chunks() -> None:
    assert largest_ingested(MKFS, None) == 16 << 20
    assert largest_ingested({}, None) == 16 << 20
    assert largest_ingested({**MKFS, "CVMFS_MAX_CHUNK_SIZE": "1000"}, None) == 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CVMFS_HASH_ALGORITHM", "shake128"),
        ("CVMFS_COMPRESSION_ALGORITHM", "none"),
        ("CVMFS_EXTERNAL_DATA", "true"),
        ("CVMFS_AUTOCATALOGS", "true"),
        ("CVMFS_ENFORCE_LIMITS", "true"),
        ("CVMFS_IGNORE_SPECIAL_FILES", "true"),
        ("CVMFS_GENERATE_LEGACY_BULK_CHUNKS", "true"),
        ("CVMFS_VIRTUAL_DIR", "true"),
        ("CVMFS_MAX_CHUNK_SIZE", "large"),
    ],
)
def test_ingest_is_not_used_where_it_would_not_do_what_the_settings_say(name: str, value: str) -> None:
    assert largest_ingested({**MKFS, name: value}, None) is None


@pytest.mark.parametrize(("owner", "user", "possible"), [("root", None, True), ("cvmfs", None, False), ("cvmfs", "cvmfs", True)])
def test_only_the_repositorys_owner_ingests(owner: str, user: str | None, possible: bool) -> None:
    assert (largest_ingested({**MKFS, "CVMFS_USER": owner}, user) is not None) == possible
