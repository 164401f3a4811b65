"""What a repository's settings mean for publishing images: some prevent it, some slow it down, some leave garbage behind.

Names and defaults: CernVM-FS documentation, "Server Configuration". The effect of each setting on a publish was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Advice(NamedTuple):
    """A setting with a value that should be another; ``is_default`` says whether the bad value is also the default."""

    name: str
    bad: str
    is_default: bool
    effect: str
    good: str


_ADVICE = (
    _Advice("CVMFS_AUTO_TAG", "true", False, "each publish makes a tag, and tagged content is never collected", "false"),
    _Advice("CVMFS_AUTO_GC", "true", False, "a publish takes as long as a garbage collection, and fails with it", "false"),
    _Advice("CVMFS_GARBAGE_COLLECTION", "false", True, "removed content stays in the storage for ever", "true"),
    _Advice("CVMFS_FORCE_REMOUNT_WARNING", "true", True, "a publish waits a minute if anybody reads below /cvmfs", "false"),
    _Advice("CVMFS_AUTO_REPAIR_MOUNTPOINT", "false", False, "mounts have to be repaired by hand after a killed publish", "true"),
    _Advice("CVMFS_AUTOCATALOGS", "true", False, "files are added to images, and `publisher verify` reports them", "false"),
    _Advice(
        "CVMFS_IGNORE_SPECIAL_FILES",
        "true",
        False,
        "named pipes are left out of images, and `publisher verify` reports them as missing",
        "false",
    ),
    _Advice("CVMFS_ENFORCE_LIMITS", "true", False, "one image above a limit keeps all others from being published", "false"),
)
_INGEST_DEFAULTS = {
    "CVMFS_HASH_ALGORITHM": ("sha1",),
    "CVMFS_COMPRESSION_ALGORITHM": ("default", "zlib"),
    "CVMFS_EXTERNAL_DATA": ("false",),
    "CVMFS_AUTOCATALOGS": ("false",),
    "CVMFS_ENFORCE_LIMITS": ("false",),
    "CVMFS_IGNORE_SPECIAL_FILES": ("false",),
    "CVMFS_GENERATE_LEGACY_BULK_CHUNKS": ("false",),
    "CVMFS_VIRTUAL_DIR": ("false",),
}
"""Settings that ``cvmfs_server ingest`` does not look at, and the values that it works with all the same."""
_MAX_CHUNK = 16 << 20  # bytes, by default
_OF_THE_STORAGE = ("CVMFS_GARBAGE_COLLECTION", "CVMFS_AUTO_GC")


def refusal(settings: Mapping[str, str], user: str | None) -> tuple[str, str] | None:
    """Return why nothing can be published with these settings and what to do about it; None if publishing is possible.

    Args:
        settings: name -> value.
        user: the user who publishes; None for root, who may publish to every repository.
    """
    owner = settings.get("CVMFS_USER")
    if user is not None and owner not in (None, user):
        return f"it belongs to {owner}, and this is {user}", f"run as {owner}, or as root"
    return None


def largest_ingested(settings: Mapping[str, str], user: str | None) -> int | None:
    """Return how large a file may be that ``cvmfs_server ingest`` publishes as a publish would; None if it may not be used.

    ingest stores each file as one object, where a publish cuts large ones into chunks. What it reads has to belong to the
    repository's owner.

    Args:
        settings: name -> value.
        user: the user who publishes; None for root.
    """
    if settings.get("CVMFS_USER", user or "root") != (user or "root"):
        return None
    if any(settings.get(name, values[0]) not in values for name, values in _INGEST_DEFAULTS.items()):
        return None
    try:
        return int(settings.get("CVMFS_MAX_CHUNK_SIZE", _MAX_CHUNK))
    except ValueError:
        return None


def gateway(settings: Mapping[str, str]) -> str | None:
    """Return the URL of the gateway that the repository is published through; None if this host has its storage."""
    kind, *rest = settings.get("CVMFS_UPSTREAM_STORAGE", "").split(",")
    return (rest[-1] if rest else "") if kind == "gw" else None


def advice(settings: Mapping[str, str]) -> list[str]:
    """Return a line for each setting that does not prevent a publish but should be changed.

    What is collected behind a gateway is a matter of the gateway's host, whose settings are not known here.
    """
    elsewhere = _OF_THE_STORAGE if gateway(settings) is not None else ()
    return [
        f"server.conf: {name}={settings.get(name, bad)}: {effect}; set it to {good}"
        for name, bad, is_default, effect, good in _ADVICE
        if name not in elsewhere and (settings[name] == bad if name in settings else is_default)
    ]
