"""Paths of the repository as its file system has them: whether a path leads into it, and sandboxes that no manifest lists.

One directory has many spellings (``/./``, ``a/../b``, symbolic links, ``/proc/self/root``), and a CVMFS that lags behind has the
data of images that were blocked since. So a path counts by where it leads, and the data there by what the manifest says about it.
Paths are followed in a child process, since a hung mount blocks whoever follows them.
"""

from __future__ import annotations

import os
import time

from publisher.contract.errors import ExpectedError, ManifestError
from publisher.contract.query import is_plain_path
from publisher.resolver.config.settings import AUTO, REFUSE, SANDBOX, SIF
from publisher.resolver.errors import BlockedError, DeadlineError, FetchError, ReadError, SandboxError
from publisher.resolver.select import sandbox
from publisher.resolver.system import log, watched_call
from publisher.resolver.trust import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.contract.query import ImageQuery
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.select.choice import FormPolicy

_TIMEOUT = 5.0  # seconds; CVMFS may have to fetch a catalog first
_IMAGES = ".images"
_BUILD_PARTS = 3  # of .images/<2>/<62>


def open_unlisted(path: str, settings: ResolverSettings, look_up: Callable[[str], object]) -> str:
    """Open a sandbox of the repository under a name that the manifest does not list; return its path with all links resolved.

    Args:
        path: relative to the repository.
        settings: of the resolver.
        look_up: looks up the path of a build in the manifest, and raises BlockedError if that build is blocked.

    Raises:
        FetchError: it cannot be opened or read, leads out of the repository, or is the parent directory of builds.
        DeadlineError: it cannot be opened in time.
        BlockedError: it has the data of a blocked image.
    """
    directory = sandbox.open_directory(os.path.join(settings.repository, path))
    inside = _follow(directory, settings)
    if inside is None:
        raise FetchError(f"{path} leads out of the repository {settings.repository}")
    parts = inside.split("/")
    if parts[0] == _IMAGES:
        if len(parts) < _BUILD_PARTS:
            raise FetchError(f"{path} is not a sandbox")
        try:
            look_up("/".join([settings.repository, *parts[:_BUILD_PARTS]]))
        except BlockedError:
            raise
        except ExpectedError as error:
            log.debug("%s is not in the manifest: %s", inside, error)
    return directory


def find_unlisted(text: str, settings: ResolverSettings, look_up: Callable[[str], object]) -> str | None:
    """Return the directory of a sandbox that no manifest lists; None if the path is not in the repository or does not open.

    Args:
        text: the image, in any spelling.
        settings: of the resolver.
        look_up: as for :func:`open_unlisted`.

    Raises:
        SandboxError: the path does not open in time, so that it is unknown whether it exists.
        BlockedError: the path has the data of a blocked image.
    """
    try:
        path = lookup.parse_query(text, settings.roots).path
        if path is None or settings.never == SANDBOX or settings.form == SIF or settings.unsigned == REFUSE:
            return None
        return open_unlisted(path, settings, look_up)
    except BlockedError:
        raise
    except (DeadlineError, ReadError) as error:
        raise SandboxError(
            f"no manifest lists {text!r}, and the repository does not answer whether the path exists: {error}",
            hint="check CVMFS on the host",
        ) from None
    except ExpectedError:
        return None


def open_with_old_manifest(
    query: ImageQuery, settings: ResolverSettings, policy: FormPolicy, serial: int, look_up: Callable[[str], object]
) -> str:
    """Open the sandbox at a path of the repository, although the manifest is too old to say whether it is published.

    Args:
        query: the parsed text, with the path.
        settings: of the resolver.
        policy: which forms the job and the site accept.
        serial: of the manifest, for messages.
        look_up: as for :func:`open_unlisted`.

    Returns:
        The path of the sandbox with all links resolved.

    Raises:
        ManifestError: the text is not a path of the repository, the path does not open or has the data of an image that was
            blocked, or a sandbox is not wanted.
    """
    if query.path is not None and policy.requested in (AUTO, SANDBOX) and policy.never != SANDBOX:
        try:
            return open_unlisted(query.path, settings, look_up)
        except FetchError:
            pass
        except BlockedError as error:
            raise ManifestError(f"{error.reason}, according to the manifest (serial {serial}), which is too old") from None
    raise ManifestError(
        f"the manifest (serial {serial}) is too old to be trusted, so {query.text!r} cannot be looked up",
        hint="check that this host can fetch a current manifest, and that its clock is right",
    )


def name_in_repository(path: str, settings: ResolverSettings) -> str | None:
    """Return an absolute path as one that :func:`publisher.contract.query.parse_text` accepts.

    Returns:
        The path itself if it is plainly one of the repository; the path there that it leads to by links or ``..``; None if it
        leads elsewhere, or nobody can tell in time.
    """
    if is_plain_path(path, settings.roots):
        return path
    try:
        inside = _follow(path, settings)
    except FetchError as error:
        log.info("cannot tell where %s leads: %s", path, error)
        return None
    return None if inside is None else os.path.join(settings.repository, inside)


def _follow(path: str, settings: ResolverSettings) -> str | None:
    """Return where a path leads, relative to the repository; None if that is elsewhere. Raise FetchError."""

    def follow() -> bytes:
        real = f"{os.path.realpath(path)}/"
        for root in map(os.path.realpath, settings.roots):
            if real.startswith(f"{root}/"):
                return os.fsencode(f"./{real[len(root) + 1 : -1]}")
        return b""

    answer = os.fsdecode(watched_call.start_read(follow, f"where {path} leads").result(time.monotonic() + _TIMEOUT))
    return answer[2:] if answer else None
