"""The statuses of the hook ``prepare-job``: what HTCondor does with a job, and who mends what.

HTCondor puts a job on hold for a status from 1 to 299, and back into the queue for one from 300 on. So below 300 is only what the
user can mend; what the host, the network or this program did is 300 and above, and the job runs elsewhere.
"""

from __future__ import annotations

from publisher.contract.errors import ExpectedError, InvalidReferenceError, ManifestError
from publisher.resolver import errors

OK = 0
NO_IMAGE, ARCHITECTURE, BLOCKED, NO_REFERENCE, NO_FORM = 101, 102, 103, 104, 105
BUG, CONFIGURATION, DEADLINE, NO_AD, NO_START = 301, 302, 303, 304, 305
MANIFEST = 310
SANDBOX, FETCH, CACHE, NO_ROOM, BUSY = 320, 321, 322, 323, 324
HOST = 330
OTHER = 399
USER, SITE, NETWORK = "user", "site", "network"
"""Who can mend it."""
FIRST_OF_HOST = 300

TABLE = (
    (OK, "ok", USER, "the job starts", "nothing"),
    (NO_IMAGE, "no-image", USER, "no such image is published", "look for a typing error; a new image takes until the next sync"),
    (ARCHITECTURE, "architecture", USER, "the image is not published for this machine", "require another Arch, or publish it"),
    (BLOCKED, "blocked", USER, "the image was taken down by the operator", "use another version; the message has the reason"),
    (NO_REFERENCE, "no-reference", USER, "what the job names is no image", "name it as the documentation of the pool says"),
    (NO_FORM, "no-form", USER, "the image is not published in the form that the job asks for", "leave the form to the host"),
    (BUG, "bug", SITE, "a bug of the hook", "report the traceback in the StarterLog"),
    (CONFIGURATION, "configuration", SITE, "the hook's configuration is wrong", "the message says which setting"),
    (DEADLINE, "deadline", SITE, "the hook's time was over", "look what hangs on the host; the setting is deadline"),
    (NO_AD, "no-ad", SITE, "no job's ad on standard input", "is the hook configured as HOOK_PREPARE_JOB?"),
    (NO_START, "no-start", SITE, "the hook cannot start", "is its file whole, and its Python 3.9 or newer?"),
    (MANIFEST, "manifest", NETWORK, "no manifest that can be trusted says where it is", "are its places up, the keys right?"),
    (SANDBOX, "sandbox", SITE, "the sandbox does not open, and there is no SIF to be had instead", "look at CVMFS on the host"),
    (FETCH, "fetch", NETWORK, "the SIF cannot be fetched", "are the origins up, and reached from the host?"),
    (CACHE, "cache", SITE, "the cache cannot be used", "the message says why: owner, mode, or a failing disk"),
    (NO_ROOM, "no-room", SITE, "no room for the SIF", "make room, or give the cache another place"),
    (BUSY, "busy", SITE, "others have been fetching for too long", "nothing, if it does not happen often"),
    (HOST, "host", SITE, "the host cannot run the image in any form", "image-resolver pilot-start says what was measured"),
    (OTHER, "other", SITE, "another failure of the host", "the message says which"),
)  # fmt: skip
"""Every status: number, name, who can mend it, what it means, what to do."""
_BY_ERROR = (
    (errors.BlockedError, BLOCKED),
    (errors.ArchitectureError, ARCHITECTURE),
    (errors.FormError, NO_FORM),
    (errors.UnknownImageError, NO_IMAGE),
    (InvalidReferenceError, NO_REFERENCE),
    (errors.ResolverUsageError, CONFIGURATION),
    (ManifestError, MANIFEST),
    (errors.SandboxError, SANDBOX),
    (errors.HostError, HOST),
    (errors.FetchError, FETCH),
    (errors.CacheSpaceError, NO_ROOM),
    (errors.CacheBusyError, BUSY),
    (errors.CacheError, CACHE),
)


def of(error: ExpectedError) -> int:
    """The status of an expected failure."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), OTHER)


def name(code: int) -> str:
    """The short name of a status."""
    return next(row[1] for row in TABLE if row[0] == code)
