"""What a glidein tells its scripts, in its environment and in ``glidein_config``, as settings of the resolver.

``glidein_config`` has a line ``NAME value`` for each value; the last one counts, and the environment counts more. The variable
``glidein_config`` has its path, and its directory is the glidein's own.
"""

from __future__ import annotations

import os
import platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.system.notes import Warnings

_MAX_BYTES = 1 << 20


class Glidein:
    """The values of a glidein; all are empty on a machine that is none.

    Attributes:
        directory: of ``glidein_config``; empty if there is none.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("glidein_config", "")
        self.directory = os.path.dirname(os.path.abspath(path)) if path else ""
        self._values = {**_read(path), **environ}

    def get(self, name: str) -> str:
        """Return a value, empty if it is not set."""
        return self._values.get(name, "").strip()

    def binds(self) -> list[str]:
        """Return what jobs' containers shall show besides the usual, as Apptainer's ``--bind`` takes it."""
        return self.get("GLIDEIN_SINGULARITY_BINDPATH").replace(",", " ").split()

    def forbids_pid_namespaces(self) -> bool:
        """Return whether jobs' containers must not have process IDs of their own."""
        return self.get("SINGULARITY_DISABLE_PID_NAMESPACES").lower() in ("1", "true")

    def flags(self, settings: ResolverSettings, notes: Warnings) -> dict[str, list[str]]:
        """Return the settings that follow from the glidein: setting -> values. What no configuration can say is noted."""
        name, base = settings.name, self.get("CVMFS_BASE").rstrip("/")
        images, chirp = self.get("IMAGES_DIR"), self.get("GWMS_DIR") or os.path.join(self.directory, ".gwms.d")
        found = {
            "repository": f"{base}/{name}" if base and settings.repository == f"/cvmfs/{name}" else "",
            "cache": os.path.join(images, f"images-{platform.node()}-{{uid}}") if images else "",
            "apptainer": "" if settings.apptainer else self.get("GWMS_SINGULARITY_PATH"),
            "job-files": chirp if os.path.isdir(chirp) else "",
            "stop-file": os.path.join(self.directory, "stop-glidein.stamp") if self.directory else "",
        }
        for setting, value in found.items():
            if set(value) & set(" \t\"'$"):
                notes.warn(f"the glidein's {setting} {value!r} cannot stand in HTCondor's configuration, and is not used")
                found[setting] = ""
        return {setting: [value] for setting, value in found.items() if value}


def _read(path: str) -> dict[str, str]:
    """Return the values in ``glidein_config``; none if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.partition(" ") for line in file.read(_MAX_BYTES).splitlines()]
    except OSError:
        return {}
    return {name: value for name, _, value in lines if name and not name.startswith("#")}
