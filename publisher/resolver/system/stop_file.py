"""The file that stops a machine: it exists after a failure that does not pass, and the machine takes no job from then on.

A glidein's own scripts look for such a file too (``stop-glidein.stamp``).
"""

from __future__ import annotations

import os

from publisher.resolver.system import log


def request(path: str, reason: str) -> None:
    """Create the file with the reason, unless it exists; a failure is only logged."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return
    except OSError as error:
        log.warning(f"cannot create the stop file {path}: {error.strerror}")
        return
    os.write(descriptor, f"{' '.join(reason.split())}\n".encode("utf-8", "replace"))
    os.close(descriptor)
    log.warning(f"this machine takes no job from now on ({path}): {reason}")


def exists(path: str) -> bool:
    """Return whether the machine was stopped."""
    return os.path.lexists(path)
