"""The statuses of the hook ``prepare-job``: what HTCondor does with the job, and who must act.

HTCondor puts a job on hold for a status from 1 to 299, and back into the queue for one from 300 on. So statuses below 300 are for
errors that the user must fix; failures of the host, the network or this program are 300 and above, and the job runs elsewhere.
"""

from __future__ import annotations

from publisher.contract.errors import ExpectedError, InvalidReferenceError, ManifestError
from publisher.resolver import errors

OK = 0
NO_IMAGE, ARCHITECTURE, BLOCKED, NO_REFERENCE, NO_FORM, NO_SHELL = 101, 102, 103, 104, 105, 106
BUG, CONFIGURATION, DEADLINE, NO_AD, NO_START, KILLED = 301, 302, 303, 304, 305, 306
MANIFEST = 310
SANDBOX, FETCH, CACHE, NO_ROOM, BUSY = 320, 321, 322, 323, 324
HOST, UNSIGNED = 330, 331
OTHER = 399
USER, SITE, NETWORK = "user", "site", "network"
"""Who must act, or what must recover."""
FIRST_HOST_STATUS = 300

TABLE = (
    (OK, "ok", USER, "the job starts", "nothing to do"),
    (NO_IMAGE, "no-image", USER, "the image is not published", "check its name and tag; a new image appears with the next sync"),
    (ARCHITECTURE, "architecture", USER, "the image, or each variant of it, is for other hosts", "require what it needs"),
    (BLOCKED, "blocked", USER, "the operator has blocked the image", "use another version; the message has the reason"),
    (NO_REFERENCE, "no-reference", USER, "the job's image is not a valid image name", "correct container_image in the job"),
    (NO_FORM, "no-form", USER, "the image is not published in the requested form", "remove WantImageForm from the job"),
    (NO_SHELL, "no-shell", USER, "HTCondor's test failed since the image has no /bin/sh", "add a shell to the image"),
    (BUG, "bug", SITE, "an unexpected error in the hook", "report it with the traceback in the StarterLog"),
    (CONFIGURATION, "configuration", SITE, "the configuration of the hook is wrong", "correct the setting in the message"),
    (DEADLINE, "deadline", SITE, "the image was not ready in time", "find what hangs on the host; the setting is deadline"),
    (NO_AD, "no-ad", SITE, "the hook got no job ad on standard input", "check that it is configured as HOOK_PREPARE_JOB"),
    (NO_START, "no-start", SITE, "the hook cannot start", "check that its file is complete and its Python 3.9 or newer"),
    (KILLED, "killed", SITE, "a process of the hook was killed", "check the host's memory; the message has the signal"),
    (MANIFEST, "manifest", NETWORK, "no trusted manifest can locate the image", "check its sources, the keys and the clock"),
    (SANDBOX, "sandbox", SITE, "the sandbox cannot be read, and there is no other form", "check CVMFS on the host"),
    (FETCH, "fetch", NETWORK, "the SIF cannot be fetched", "check that the origins are up and the host can reach them"),
    (CACHE, "cache", SITE, "the cache cannot be used", "check its owner, mode and disk; the message says which"),
    (NO_ROOM, "no-room", SITE, "the cache has no space for the SIF", "free space, or raise cache-size"),
    (BUSY, "busy", SITE, "other downloads on the host took too long", "nothing to do, unless it happens often"),
    (HOST, "host", SITE, "the host cannot run the image in any form", "run image-resolver pilot-start to see what was measured"),
    (UNSIGNED, "unsigned", SITE, "the site refuses images without a verified signature", "let the image's entry require: signed"),
    (OTHER, "other", SITE, "another failure of the host", "the message says which"),
)  # fmt: skip
"""Every status: number, short name, who must act, meaning, next step."""
_BY_ERROR = (
    (errors.BlockedError, BLOCKED),
    (errors.ArchitectureError, ARCHITECTURE),
    (errors.FormError, NO_FORM),
    (errors.ShellError, NO_SHELL),
    (errors.UnknownImageError, NO_IMAGE),
    (InvalidReferenceError, NO_REFERENCE),
    (errors.ResolverUsageError, CONFIGURATION),
    (ManifestError, MANIFEST),
    (errors.SandboxError, SANDBOX),
    (errors.UnsignedError, UNSIGNED),
    (errors.HostError, HOST),
    (errors.KilledError, KILLED),
    (errors.FetchError, FETCH),
    (errors.CacheSpaceError, NO_ROOM),
    (errors.CacheBusyError, BUSY),
    (errors.CacheError, CACHE),
)


def for_error(error: ExpectedError) -> int:
    """Return the status of an expected failure."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), OTHER)


def short_name(code: int) -> str:
    """Return the short name of a status, such as ``no-image``."""
    return next(row[1] for row in TABLE if row[0] == code)


def next_step(code: int) -> str:
    """Return what to do about a status."""
    return next(row[4] for row in TABLE if row[0] == code)


def message(error: ExpectedError, image: str = "") -> str:
    """Return what the user is told about a failure: the image, what happened to it, and the next step."""
    is_named = image.rpartition("/")[2] in error.reason  # true for no image as well
    reason = error.reason if is_named else f"image {image}: {error.reason}"
    return f"{reason} ({error.hint or next_step(for_error(error))})"
