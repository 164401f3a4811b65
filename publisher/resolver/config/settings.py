"""What the resolver is told: flags, environment variables and a file, in this order of precedence.

All three have the same settings, and :data:`TABLE` has them all: a new one is a line there and an attribute of
:class:`ResolverSettings`. Relative paths in the file are relative to the file.
"""

from __future__ import annotations

import os

from publisher.contract import units
from publisher.resolver.errors import ResolverUsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    Given = Mapping[str, Sequence[str]]
    T = TypeVar("T")

AUTO, SANDBOX, SIF = "auto", "sandbox", "sif"
FORMS = (AUTO, SANDBOX, SIF)
PASS, FETCH = "pass", "fetch"
PLACE = "DIR-or-URL"
PATHS = ("DIR", "FILE", PLACE)
"""Kinds of value that are relative to the file which says them."""
ONE, MANY = False, True

TABLE = (
    ("repository", "DIR", ONE, "", "the repository; default /cvmfs/<repository name>"),
    ("repository-name", "NAME", ONE, "", "the name that the manifest must carry; default: the last part of --repository"),
    (
        "manifest",
        PLACE,
        MANY,
        "",
        "place of it; the highest serial counts; default: .publisher in the repository, manifest in each origin",
    ),
    ("origin", PLACE, MANY, "", "place of the SIFs, tried in order"),
    ("mirror", PLACE, MANY, "", "another place of the SIFs and the manifest, tried after the origins"),
    ("federation", "HOST", ONE, "osg-htc.org", "the federation that osdf:///… means; pelican://HOST/… names its own"),
    (
        "refresh",
        "SECONDS",
        ONE,
        "15 min",
        "how old the cache's copy of the manifest may be before places in the network are asked",
    ),
    ("slowest", "SIZE", ONE, "1 MB", "bytes a second; a slower server is left for the next one, and the time for a SIF follows"),
    ("ca", "FILE", ONE, "", "certificates of further authorities to trust, or a directory of them"),
    ("fetch-with", "builtin|pelican|auto", ONE, "builtin", "pelican: that command for SIFs; auto: where nothing else helped"),
    ("cache", "DIR", ONE, "", "where SIFs are kept, and the last good copy of the manifest; {uid} in it is the user's number"),
    ("cache-size", "SIZE", ONE, "100 %", "what the SIFs in it may take, in bytes or % of the file system"),
    ("cache-free", "SIZE", ONE, "5 %", "what must stay free on that file system"),
    ("fetches", "NUMBER", ONE, "2", "downloads at a time of all jobs that use this cache"),
    ("slots", "DIR", ONE, "", "directory of mode 1777 in which users with caches of their own count their downloads together"),
    ("store", "DIR", ONE, "", "SIFs that root or a daemon keeps for all jobs to read: 'cache fill'"),
    ("store-owner", "NUMBER", ONE, "0", "number of the user whose store is trusted"),
    ("public-key", "FILE", MANY, "", "trusted key, or a directory of them (*.pem, *.pub)"),
    ("form", "|".join(FORMS), ONE, AUTO, "auto: the sandbox if it opens now, else the SIF"),
    ("arch", "ARCH", ONE, "", "amd64, arm64, …; default: this machine's"),
    ("prefer", f"{SANDBOX}|{SIF}", ONE, SANDBOX, "the form that jobs get where both can be had"),
    ("never", f"none|{SANDBOX}|{SIF}", ONE, "none", "the form that no job gets here"),
    (
        "unknown",
        f"{PASS}|{FETCH}",
        ONE,
        PASS,
        "what the manifest does not know: passed on untouched, or SIFs fetched by their osdf, pelican or https URL",
    ),
    ("default-image", "NAME", ONE, "", "image of jobs that name none; default: they are left alone"),
    ("deadline", "SECONDS", ONE, "20 min", "time in which a hook answers whatever happens; HTCondor itself has no limit"),
    ("backoff", "SECONDS", ONE, "30 s", "wait before a failure of the host is answered again, growing; 0 for none"),
    ("facts", "FILE", ONE, "", "what was measured of this host; default: facts.json in the cache"),
    ("trace", "FILE", ONE, "", "file that gets a JSON line for each decision; {uid} as in --cache"),
    (
        "default-images",
        "OFFER",
        MANY,
        "",
        "WEIGHT%NAME[,CONDITION…]: pilot-start draws one; conditions: amd64, x86-64-v3, gpu, …",
    ),
    ("probe", "NAME", ONE, "", "image, or path of a SIF, that containers are tried with; default: the default image"),
    ("probe-time", "SECONDS", ONE, "60", "time that each try of what the host can do may take"),
    ("apptainer", "FILE", ONE, "", "the program; default: apptainer or singularity, on the PATH"),
    ("bind", "DIR[:DIR[:OPTIONS]]", MANY, "", "what containers of jobs show of the host, where it exists; /cvmfs they always do"),
    ("extra-arguments", "TEXT", ONE, "", "for Apptainer, in each job"),
    ("hook-keyword", "WORD", ONE, "IMAGE_RESOLVER", "HTCondor's keyword for our hooks"),
    ("trace-size", "SIZE", ONE, "10 MB", "size at which the trace is started anew; the one before stays as FILE.1"),
)
"""Every setting: name, kind of its value, one or many of them, default, meaning. The kinds are ``DIR``, ``FILE``, ``PLACE``,
``SECONDS``, ``SIZE``, ``NUMBER``, words with ``|`` between them, and any other word for any text."""
SETTINGS = tuple(row[0] for row in TABLE)
LISTS = tuple(row[0] for row in TABLE if row[2])
_PATHS = tuple(row[0] for row in TABLE if row[1] in PATHS)
_KINDS = {row[0]: row[1] for row in TABLE}
_DEFAULTS = {row[0]: row[3] for row in TABLE}
_VARIABLE = "IMAGE_RESOLVER_"


class ResolverSettings:
    """Settings that are complete and fit together.

    Attributes:
        name: the repository's name, which its manifest must carry.
        repository: the directory where it is mounted, absolute.
        roots: what paths of images in it may begin with.
        manifests: places of the manifest, directories or URLs, in order.
        origins: places of SIFs, directories or URLs, in order.
        mirrors: further places, after the origins, in order.
        federation: host of the federation that ``osdf://`` means.
        refresh: seconds.
        slowest: bytes a second.
        ca: file or directory of certificates, empty for none.
        fetch_with: one of ``builtin``, ``pelican``, ``auto``.
        cache: directory for SIFs and copies of the manifest, absolute; None for no cache. caches: the same with ``{uid}`` in it.
        cache_size, cache_free: bytes and fraction of the file system, one of them 0.
        fetches: downloads at a time. slots: directory that bounds them for several caches, absolute; None for none.
        store: directory that jobs only read, absolute; None for none. store_owner: number of its user.
        keys: files and directories of trusted keys.
        form: one of :data:`FORMS`.
        arch: architecture in Go's words.
        prefer: :data:`SANDBOX` or :data:`SIF`. never: one of these, or ``none``.
        unknown: :data:`PASS` or :data:`FETCH`.
        default_image: name of an image, empty for none.
        deadline, backoff: seconds.
        facts, trace: paths of files, absolute; None for none.
        trace_size: bytes.
        default_images: texts as :class:`publisher.resolver.host.default_image.Offer` reads them.
        probe: name of an image or path of a SIF, empty for the default image; probe_time: seconds for each try.
        apptainer: the program's path, None for the PATH's.
        binds: for Apptainer's --bind. extra_arguments: more of its arguments. hook_keyword: HTCondor's.
    """

    def __init__(self, given: Given, arch: str) -> None:
        """Check and complete what was given; ``arch`` is this machine's.

        Raises:
            ResolverUsageError: something is missing or has no such value.
        """
        directory = _text(given, "repository")
        self.name = _text(given, "repository-name") or os.path.basename((directory or "").rstrip("/"))
        if not self.name or "/" in self.name or self.name in (".", "..") or not self.name.isprintable():
            raise ResolverUsageError(
                "which repository's manifest is to be trusted?", hint="--repository DIR, or --repository-name NAME"
            )
        cvmfs = f"/cvmfs/{self.name}"
        self.repository = os.path.abspath(directory or cvmfs)
        self.roots = tuple(dict.fromkeys((cvmfs, self.repository, (directory or cvmfs).rstrip("/"))))
        self.origins = tuple(given.get("origin", ()))
        self.mirrors = tuple(given.get("mirror", ()))
        standard = (f"{self.repository}/.publisher", *map(_manifest_of, (*self.origins, *self.mirrors)))
        self.manifests = tuple(given.get("manifest", ())) or standard
        self.federation = _text(given, "federation")
        self.refresh = _quantity(given, "refresh", units.seconds)
        self.slowest = max(1, _quantity(given, "slowest", units.size))
        self.ca = _path(given, "ca") or ""
        self.fetch_with = _word(given, "fetch-with")
        self.cache = _path(given, "cache")
        self.caches = _path(given, "cache", uid="{uid}")
        self.cache_size = _quantity(given, "cache-size", units.share)
        self.cache_free = _quantity(given, "cache-free", units.share)
        self.fetches = max(1, _quantity(given, "fetches", units.whole))
        self.slots = _path(given, "slots")
        self.store = _path(given, "store")
        self.store_owner = _quantity(given, "store-owner", units.whole)
        self.keys = tuple(given.get("public-key", ()))
        self.form = _word(given, "form")
        self.arch = _text(given, "arch") or arch
        self.prefer = _word(given, "prefer")
        self.never = _word(given, "never")
        self.unknown = _word(given, "unknown")
        self.default_image = _text(given, "default-image")
        self.deadline = _quantity(given, "deadline", units.seconds)
        self.backoff = _quantity(given, "backoff", units.seconds)
        self.facts = _path(given, "facts") or (self.cache and os.path.join(self.cache, "facts.json"))
        self.trace = _path(given, "trace")
        self.trace_size = _quantity(given, "trace-size", units.size)
        self.default_images = tuple(given.get("default-images", ()))
        self.probe = _text(given, "probe")
        self.probe_time = _quantity(given, "probe-time", units.seconds)
        self.apptainer = _path(given, "apptainer")
        self.binds = tuple(given.get("bind", ()))
        self.extra_arguments = _text(given, "extra-arguments")
        self.hook_keyword = _text(given, "hook-keyword")


def gather(flags: Given, environ: Mapping[str, str], file: str | None) -> dict[str, list[str]]:
    """The settings from all three places; a setting of a higher place replaces the lower one's as a whole.

    Args:
        flags: setting -> values, from the command line.
        environ: ``IMAGE_RESOLVER_PUBLIC_KEY`` and so on; values of lists are separated by blanks.
        file: the configuration file's path, None for none (then ``IMAGE_RESOLVER_CONFIG`` counts).

    Raises:
        ResolverUsageError: the file cannot be read, or says something unknown.
    """
    gathered: dict[str, list[str]] = {}
    file = file or environ.get(f"{_VARIABLE}CONFIG")
    if file:
        from publisher.resolver.config import inifile  # noqa: PLC0415 - not every host has one

        for name, values in inifile.read(file, SETTINGS).items():
            gathered[name] = [_beside(file, name, value) for value in values]
    for name in SETTINGS:
        value = environ.get(_VARIABLE + name.upper().replace("-", "_"))
        if value:
            gathered[name] = value.split() if name in LISTS else [value]
    gathered.update({name: list(values) for name, values in flags.items()})
    return gathered


def _text(given: Given, name: str) -> str:
    """The one value of a setting, or its default."""
    values = given.get(name) or (_DEFAULTS[name],)
    if len(values) > 1:
        raise ResolverUsageError(f"{name} has {len(values)} values, and can have one")
    return values[0]


def _word(given: Given, name: str) -> str:
    value, known = _text(given, name), _KINDS[name].split("|")
    if value not in known:
        raise ResolverUsageError(f"--{name} {value!r} is none of {', '.join(known)}")
    return value


def _path(given: Given, name: str, uid: str | None = None) -> str | None:
    """An absolute path, None where there is none; ``{uid}`` in it is ``uid``, this user's number when None."""
    value = _text(given, name).replace("{uid}", str(os.geteuid()) if uid is None else uid)
    return os.path.abspath(value) if value else None


def _quantity(given: Given, name: str, read: Callable[[str], T]) -> T:
    """A size, a time or a number, by the function of :mod:`publisher.contract.units` that reads it."""
    try:
        return read(_text(given, name))
    except ValueError as error:
        raise ResolverUsageError(f"--{name}: {error}") from None


def _manifest_of(origin: str) -> str:
    """The manifest's place in an origin; a URL's query stays at the end."""
    base, mark, query = origin.partition("?") if "://" in origin else (origin, "", "")
    return f"{base.rstrip('/')}/manifest{mark}{query}"


def _beside(file: str, name: str, value: str) -> str:
    """A value of the file; a relative path made relative to the file."""
    if name not in _PATHS or "://" in value:
        return value
    return os.path.join(os.path.dirname(os.path.abspath(file)), value)
