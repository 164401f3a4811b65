"""The programs that decide about the bytes of a SIF: their versions, and whether the operator accepts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher import __version__
from publisher.errors import UsageError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from publisher.build.squash.programs import Squasher

ACCEPTABLE = ("apptainer", "mksquashfs", "tar2sqfs", "zstd", "zlib")
"""The programs and libraries whose versions a deployment may name."""
_DEADLINE = 60  # seconds


def tool_versions(squasher: Squasher) -> dict[str, str]:
    """Return the tools that may make a SIF: program or library -> version, and the compression.

    Raises:
        CommandError: Apptainer is missing.
    """
    words = command.run(["apptainer", "--version"], deadline=_DEADLINE).stdout.decode("utf-8", "replace").split()
    return {
        "publisher": __version__,
        "apptainer": words[-1] if words else "unknown",
        **squasher.versions,
        "compression": squasher.compression,
    }


def check_accepted(tools: Mapping[str, str], accepted: Collection[tuple[str, str]]) -> None:
    """Check versions against those that the operator accepts.

    Args:
        tools: as :func:`tool_versions` returns them.
        accepted: pairs of program and version; a program that none of them names may have any version.

    Raises:
        UsageError: a program has another version than those that are accepted for it.
    """
    for program, version in tools.items():
        versions = [other for name, other in accepted if name == program]
        if versions and version not in versions:
            reason = (
                f"this host has {program} {version}, and accepted_tools names {', '.join(f'{program} {one}' for one in versions)}"
            )
            hint = f"other versions can give other bytes: install an accepted one, or add '{program} {version}' to accepted_tools"
            raise UsageError(reason, hint=hint)
