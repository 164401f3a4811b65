"""What a repository's settings mean for publishing images: some make it impossible, some slow, some leave rubbish behind.

Names and defaults: CernVM-FS documentation, "Server Configuration"; what each does to a publish was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNWISE = (
    # (setting, how it can be unwise, and when it is so without being set; what follows; what it should be)
    ("CVMFS_AUTO_TAG", "true", False, "each publish makes a tag, and what has a tag is never collected", "false"),
    ("CVMFS_AUTO_GC", "true", False, "a publish takes as long as a garbage collection, and fails with it", "false"),
    ("CVMFS_GARBAGE_COLLECTION", "false", True, "what is removed stays in its storage for ever", "true"),
    ("CVMFS_FORCE_REMOUNT_WARNING", "true", True, "a publish waits a minute where anybody reads below /cvmfs", "false"),
    ("CVMFS_AUTO_REPAIR_MOUNTPOINT", "false", False, "what a killed publish leaves has to be mended by hand", "true"),
    ("CVMFS_AUTOCATALOGS", "true", False, "files are added to images, and `publisher verify` tells of it", "false"),
    (
        "CVMFS_IGNORE_SPECIAL_FILES",
        "true",
        False,
        "named pipes of images are left out, and `publisher verify` tells of it",
        "false",
    ),
    ("CVMFS_ENFORCE_LIMITS", "true", False, "one image above a limit keeps all others from being published", "false"),
)


def refusal(settings: Mapping[str, str], user: str | None) -> tuple[str, str] | None:
    """Why nothing can be published with these settings, and what to do about it; None where it can.

    Args:
        settings: name -> value.
        user: who publishes; None for root, who may for everybody.
    """
    owner = settings.get("CVMFS_USER")
    if user is not None and owner not in (None, user):
        return f"it belongs to {owner}, and this is {user}", f"run as {owner}, or as root"
    if settings.get("CVMFS_UPSTREAM_STORAGE", "").startswith("gw,"):
        return (
            "it is published through a gateway, which this program cannot do",
            "run where the stratum 0's storage is",
        )
    return None


def advice(settings: Mapping[str, str]) -> list[str]:
    """A line for each setting that does not stop a publish and should be another."""
    return [
        f"server.conf: {name}={settings.get(name, bad)}: {effect}; set it to {good}"
        for name, bad, unset, effect, good in _UNWISE
        if (settings[name] == bad if name in settings else unset)
    ]
