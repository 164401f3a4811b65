"""The settings of the resolver: flags, environment variables and a configuration file, in this order of precedence.

All three have the same settings, which :data:`TABLE` lists: a new one is a row there and an attribute of
:class:`ResolverSettings`. Relative paths in the configuration file are relative to the file.
"""

from __future__ import annotations

import os

from publisher.contract import units
from publisher.resolver.errors import ResolverUsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    Values = Mapping[str, Sequence[str]]
    T = TypeVar("T")

AUTO, SANDBOX, SIF, UNPACKED = "auto", "sandbox", "sif", "unpacked"
"""Forms of an image; an unpacked one is a sandbox that this host has made from a SIF."""
FORMS = (AUTO, SANDBOX, SIF)
PASS, FETCH, PULL = "pass", "fetch", "pull"
PLAIN, OSPOOL = "plain", "ospool"
RUN, REPORT, REFUSE = "run", "report", "refuse"
SOURCE = "DIR-or-URL"
PATHS = ("DIR", "FILE", SOURCE)
"""Kinds of values that are relative to the configuration file which sets them."""
ONE, MANY = False, True

TABLE = (
    ("repository", "DIR", ONE, "", "the repository; default: /cvmfs/<repository name>"),
    ("repository-name", "NAME", ONE, "", "the repository that the manifest must name; default: the last part of --repository"),
    ("repository-alias", "NAME", MANY, "", "former name of the repository: jobs that name /cvmfs/<it>/… get the same images"),
    (
        "manifest",
        SOURCE,
        MANY,
        "",
        "source of the manifest; the highest serial wins; default: .publisher in the repository, manifest in each origin",
    ),
    ("origin", SOURCE, MANY, "", "source of SIFs; several are tried in order"),
    ("mirror", SOURCE, MANY, "", "further source of SIFs and of the manifest, tried after the origins"),
    ("federation", "HOST", ONE, "osg-htc.org", "the federation of osdf:///… URLs; pelican://HOST/… URLs name their own"),
    (
        "token-issuer",
        "HOST[/PREFIX]=URL",
        MANY,
        "",
        "federation that gets tokens for objects below the prefix, and the issuer of these tokens; default: no token is sent",
    ),
    ("refresh", "SECONDS", ONE, "15 min", "age of the cached manifest after which sources in the network are polled again"),
    (
        "lone-expired",
        "refuse|accept",
        ONE,
        "refuse",
        "an expired manifest that only one place has, on a host that remembers none: somebody may bring back an old one",
    ),
    (
        "slowest",
        "SIZE",
        ONE,
        "1 MB",
        "minimum bytes a second; a slower server is abandoned; sets the time limit of a download too",
    ),
    ("ca", "FILE", ONE, "", "certificates of further authorities to trust, or a directory of them"),
    (
        "fetch-with",
        "builtin|pelican|auto",
        ONE,
        "builtin",
        "pelican: download SIFs with the command pelican; auto: only if nothing else worked",
    ),
    ("cache", "DIR", ONE, "", "cache for SIFs and the manifest; {uid} in the path is the user's number"),
    ("cache-size", "SIZE", ONE, "100 %", "maximum size of the SIFs in the cache, in bytes or % of the file system"),
    ("cache-free", "SIZE", ONE, "5 %", "minimum free space on the file system of the cache"),
    ("fetches", "NUMBER", ONE, "2", "maximum number of simultaneous downloads into this cache"),
    ("slots", "DIR", ONE, "", "directory of mode 1777 through which users with caches of their own share that maximum"),
    ("store", "DIR", ONE, "", "SIFs that root or a daemon provides for all jobs to read; see 'cache fill'"),
    ("store-owner", "NUMBER", ONE, "0", "number of the user who owns the store"),
    ("public-key", "FILE", MANY, "", "trusted key, or a directory of trusted keys (*.pem, *.pub)"),
    (
        "forks",
        f"{REPORT}|{REFUSE}",
        ONE,
        REPORT,
        "a manifest that does not continue the one that this host remembers: reported and used, or reported and refused",
    ),
    ("form", "|".join(FORMS), ONE, AUTO, "auto: the sandbox if it can be opened now, else the SIF"),
    ("arch", "ARCH", ONE, "", "amd64, arm64, …; default: this machine's"),
    ("prefer", f"{SANDBOX}|{SIF}", ONE, SANDBOX, "the form that jobs get if both are available"),
    ("never", f"none|{SANDBOX}|{SIF}", ONE, "none", "the form that no job gets on this host"),
    (
        "unpack",
        "auto|never",
        ONE,
        AUTO,
        "auto: a SIF that this host cannot mount is unpacked once into the cache; never: only sandboxes in CVMFS run there",
    ),
    (
        "unknown",
        f"{PASS}|{FETCH}|{PULL}",
        ONE,
        PASS,
        "images that no manifest lists: passed on; SIFs fetched from osdf, pelican, https URLs; docker, oras images pulled too",
    ),
    ("insecure-registry", "HOST:PORT", MANY, "", "registry from which images are pulled over plain HTTP"),
    (
        "unsigned",
        f"{RUN}|{REFUSE}",
        ONE,
        RUN,
        "images of which the publisher verified no signature; refuse: neither these nor images that the manifest does not list",
    ),
    ("default-image", "NAME", ONE, "", "image of jobs that name none; default: such jobs are left alone"),
    ("deadline", "SECONDS", ONE, "20 min", "time within which a hook always answers; HTCondor itself has no limit"),
    ("backoff", "SECONDS", ONE, "30 s", "pause before a failure of the host is reported again, growing; 0 for none"),
    (
        "max-failures",
        "NUMBER",
        ONE,
        "3",
        "jobs in a row whose image did not start, after which the machine takes none until a probe succeeds; 0 for no limit",
    ),
    ("facts", "FILE", ONE, "", "measured capabilities of this host; default: facts.json in the cache"),
    ("trace", "FILE", ONE, "", "file that gets a JSON line for each decision; {uid} as in --cache"),
    (
        "default-images",
        "OFFER",
        MANY,
        "",
        "WEIGHT%NAME[,CONDITION…]: pilot-start draws one; conditions: amd64, x86-64-v3, gpu, …",
    ),
    ("probe", "NAME", ONE, "", "image or path of a SIF with which containers are tested; default: the default image"),
    ("probe-time", "SECONDS", ONE, "60", "time limit of each test of the host's capabilities"),
    ("apptainer", "FILE", ONE, "", "the program; default: apptainer or singularity, on the PATH"),
    (
        "bind",
        "DIR[:DIR[:OPTIONS]]",
        MANY,
        "",
        "directory of the host that jobs' containers see if it exists; they always see /cvmfs",
    ),
    ("bypass-project", "NAME", MANY, "", "project whose jobs run outside containers if they say container_bypass = true"),
    ("drop-variable", "NAME", MANY, "", "variable that is removed from the environment of jobs in containers"),
    ("job-files", "DIR", ONE, "", "directory that is copied into the scratch directory of each job, under its own name"),
    (
        "stop-file",
        "FILE",
        ONE,
        "",
        "file that is created after a failure which does not pass; while it exists the machine takes no job",
    ),
    ("extra-arguments", "TEXT", ONE, "", "further arguments of Apptainer in each job"),
    ("profile", "plain|ospool", ONE, "plain", "ospool: condor-config also does what the OSPool's scripts did, see docs/ep.md"),
    (
        "attribute",
        "NAME=NAME",
        MANY,
        "",
        "another name for an attribute of the machine that the profile ospool sets, such as HAS_SINGULARITY",
    ),
    ("hook-keyword", "WORD", ONE, "IMAGE_RESOLVER", "HTCondor's keyword for these hooks"),
    ("trace-size", "SIZE", ONE, "10 MB", "size at which the trace is rotated; the previous one is kept as FILE.1"),
)
"""All settings: name, kind of the value, one or many values, default, meaning. Kinds are ``DIR``, ``FILE``, ``SOURCE``,
``SECONDS``, ``SIZE``, ``NUMBER``, choices separated by ``|``, and any other word for free text."""
SETTINGS = tuple(row[0] for row in TABLE)
LISTS = tuple(row[0] for row in TABLE if row[2])
_PATHS = tuple(row[0] for row in TABLE if row[1] in PATHS)
_KINDS = {row[0]: row[1] for row in TABLE}
_DEFAULTS = {row[0]: row[3] for row in TABLE}
_VARIABLE = "IMAGE_RESOLVER_"


class ResolverSettings:
    """Complete and consistent settings.

    Attributes:
        name: name of the repository, which its manifest must carry.
        repository: mount point of the repository, absolute.
        aliases: former names of the repository.
        roots: prefixes of image paths that belong to the repository.
        manifests: sources of the manifest, directories or URLs, in order.
        origins: sources of SIFs, directories or URLs, in order.
        mirrors: further sources of SIFs, after the origins, in order.
        federation: host of the federation of ``osdf://`` URLs.
        token_issuers: pairs of a federation (``host`` or ``host/prefix``) and the URL of an issuer whose tokens it gets.
        refresh: seconds between two polls of the manifest's sources.
        accepts_lone_expired: whether an expired manifest counts that only one place has and no cache confirms.
        slowest: minimum speed of a server, bytes a second.
        ca: file or directory of further certificates, empty for none.
        fetch_with: one of ``builtin``, ``pelican``, ``auto``.
        cache: directory for SIFs and the manifest, absolute; None for no cache.
        cache_template: the same with ``{uid}`` not replaced.
        cache_size: maximum size of the SIFs in the cache: bytes and fraction of the file system, one of them 0.
        cache_free: minimum free space: bytes and fraction of the file system, one of them 0.
        fetches: maximum number of simultaneous downloads.
        slots: directory through which several caches share that maximum, absolute; None for none.
        store: directory of SIFs that jobs only read, absolute; None for none.
        store_owner: number of the user who owns the store.
        keys: files and directories of trusted keys.
        forks: whether a forked manifest is used, :data:`REPORT`, or not, :data:`REFUSE`.
        form: one of :data:`FORMS`.
        arch: architecture, as Go names it.
        prefer: the preferred form, :data:`SANDBOX` or :data:`SIF`.
        never: the forbidden form, :data:`SANDBOX`, :data:`SIF` or ``none``.
        unpacks: whether SIFs are unpacked into the cache where they cannot be mounted.
        unknown: what happens to images that the manifest does not list, :data:`PASS`, :data:`FETCH` or :data:`PULL`.
        insecure_registries: ``host:port`` of registries that speak plain HTTP.
        unsigned: what happens to images without a verified signature, :data:`RUN` or :data:`REFUSE`.
        default_image: name of an image, empty for none.
        deadline: seconds within which a hook answers.
        backoff: seconds before a failure of the host is reported again.
        max_failures: number of failed starts after which the machine takes no job that names an image; 0 for no limit.
        facts: path of the measured capabilities, absolute; None for none.
        trace: path of the trace, absolute; None for none.
        trace_template: the same with ``{uid}`` not replaced.
        trace_size: bytes at which the trace is rotated.
        default_images: texts that :class:`publisher.resolver.host.default_image.ImageOffer` parses.
        probe: name of an image or path of a SIF, empty for the default image.
        probe_time: seconds for each test of the host.
        apptainer: path of the program, None to search the PATH.
        binds: values of Apptainer's ``--bind``.
        bypass_projects: projects whose jobs may leave their container, in lower case.
        drop_variables: names of variables that jobs in containers do not get.
        job_files: directory that each job gets a copy of, absolute; None for none.
        stop_file: file that stops this machine, absolute; None for none.
        extra_arguments: further arguments of Apptainer.
        profile: :data:`PLAIN` or :data:`OSPOOL`.
        attributes: other names for attributes of the profile ``ospool``: usual name -> name.
        hook_keyword: HTCondor's keyword for the hooks.
    """

    def __init__(self, given: Values, arch: str) -> None:
        """Check and complete settings.

        Args:
            given: setting -> values, as :func:`gather` returns them.
            arch: the architecture of this machine.

        Raises:
            ResolverUsageError: a setting is missing or has an invalid value.
        """
        directory = _text(given, "repository")
        self.name = _text(given, "repository-name") or os.path.basename((directory or "").rstrip("/"))
        cvmfs = f"/cvmfs/{_valid_name(self.name)}"
        self.repository = os.path.abspath(directory or cvmfs)
        self.aliases = tuple(given.get("repository-alias", ()))
        former = [f"/cvmfs/{_valid_name(alias)}" for alias in self.aliases]
        self.roots = tuple(dict.fromkeys((cvmfs, self.repository, (directory or cvmfs).rstrip("/"), *former)))
        self.origins = tuple(given.get("origin", ()))
        self.mirrors = tuple(given.get("mirror", ()))
        defaults = (f"{self.repository}/.publisher", *map(_manifest_source, (*self.origins, *self.mirrors)))
        self.manifests = tuple(given.get("manifest", ())) or defaults
        self.federation = _text(given, "federation")
        self.token_issuers = tuple(map(_token_issuer, given.get("token-issuer", ())))
        self.refresh = _quantity(given, "refresh", units.parse_seconds)
        self.accepts_lone_expired = _word(given, "lone-expired") == "accept"
        self.slowest = max(1, _quantity(given, "slowest", units.parse_size))
        self.ca = _path(given, "ca") or ""
        self.fetch_with = _word(given, "fetch-with")
        self.cache_template = _path(given, "cache", uid="{uid}")
        self.cache = _own_cache(_path(given, "cache"), self.cache_template)
        self.cache_size = _quantity(given, "cache-size", units.parse_share)
        self.cache_free = _quantity(given, "cache-free", units.parse_share)
        self.fetches = max(1, _quantity(given, "fetches", units.parse_count))
        self.slots = _path(given, "slots")
        self.store = _path(given, "store")
        self.store_owner = _quantity(given, "store-owner", units.parse_count)
        self.keys = tuple(given.get("public-key", ()))
        self.forks = _word(given, "forks")
        self.form = _word(given, "form")
        self.arch = _text(given, "arch") or arch
        self.prefer = _word(given, "prefer")
        self.never = _word(given, "never")
        self.unpacks = _word(given, "unpack") == AUTO and self.cache is not None
        self.unknown, self.unsigned = _word(given, "unknown"), _word(given, "unsigned")
        self.insecure_registries = tuple(given.get("insecure-registry", ()))
        self._set_further(given)

    def _set_further(self, given: Values) -> None:
        """Set what says nothing about where images come from."""
        self.default_image = _text(given, "default-image")
        self.deadline = _quantity(given, "deadline", units.parse_seconds)
        self.backoff = _quantity(given, "backoff", units.parse_seconds)
        self.max_failures = _quantity(given, "max-failures", units.parse_count)
        self.facts = _path(given, "facts") or (self.cache and os.path.join(self.cache, "facts.json"))
        self.trace, self.trace_template = _path(given, "trace"), _path(given, "trace", uid="{uid}")
        self.trace_size = _quantity(given, "trace-size", units.parse_size)
        self.default_images = tuple(given.get("default-images", ()))
        self.probe = _text(given, "probe")
        self.probe_time = _quantity(given, "probe-time", units.parse_seconds)
        self.apptainer = _path(given, "apptainer")
        self.binds = tuple(given.get("bind", ()))
        self.bypass_projects = tuple(name.lower() for name in given.get("bypass-project", ()))
        self.drop_variables = tuple(given.get("drop-variable", ()))
        self.job_files, self.stop_file = _path(given, "job-files"), _path(given, "stop-file")
        self.extra_arguments = _text(given, "extra-arguments")
        self.profile = _word(given, "profile")
        self.attributes = dict(map(_renamed, given.get("attribute", ())))
        self.hook_keyword = _text(given, "hook-keyword")


def gather(flags: Values, environ: Mapping[str, str], file: str | None) -> dict[str, list[str]]:
    """Return the settings of all three places; a setting of a higher place replaces the lower one entirely.

    Args:
        flags: setting -> values, from the command line.
        environ: environment variables, ``IMAGE_RESOLVER_PUBLIC_KEY`` and so on; values of lists are separated by blanks.
        file: path of the configuration file, None for the one that ``IMAGE_RESOLVER_CONFIG`` names, if any.

    Raises:
        ResolverUsageError: the file cannot be read or has an unknown setting.
    """
    gathered: dict[str, list[str]] = {}
    file = file or environ.get(f"{_VARIABLE}CONFIG")
    if file:
        from publisher.resolver.config import inifile  # noqa: PLC0415 - not every host has one

        for name, values in inifile.read(file, SETTINGS).items():
            gathered[name] = [_relative_to(file, name, value) for value in values]
    for name in SETTINGS:
        value = environ.get(_VARIABLE + name.upper().replace("-", "_"))
        if value:
            gathered[name] = value.split() if name in LISTS else [value]
    gathered.update({name: list(values) for name, values in flags.items()})
    return gathered


def _text(given: Values, name: str) -> str:
    """Return the single value of a setting, or its default."""
    values = given.get(name) or (_DEFAULTS[name],)
    if len(values) > 1:
        raise ResolverUsageError(f"{name} has {len(values)} values, but only one is allowed")
    return values[0]


def _valid_name(name: str) -> str:
    """Return the name of a repository."""
    if not name or "/" in name or name in (".", "..") or not name.isprintable():
        raise ResolverUsageError("no valid repository name is set", hint="set --repository DIR or --repository-name NAME")
    return name


def _word(given: Values, name: str) -> str:
    """Return the value of a setting with fixed choices."""
    value, choices = _text(given, name), _KINDS[name].split("|")
    if value not in choices:
        raise ResolverUsageError(f"--{name} {value!r} must be one of {', '.join(choices)}")
    return value


def _path(given: Values, name: str, uid: str | None = None) -> str | None:
    """Return the value of a setting as an absolute path, None if it is empty.

    Args:
        given: all settings.
        name: the setting.
        uid: replaces ``{uid}`` in the path; None for the number of this user.
    """
    value = _text(given, name).replace("{uid}", str(os.geteuid()) if uid is None else uid)
    return os.path.abspath(value) if value else None


def _quantity(given: Values, name: str, parse: Callable[[str], T]) -> T:
    """Return a size, a time or a number, parsed by a function of :mod:`publisher.contract.units`."""
    try:
        return parse(_text(given, name))
    except ValueError as error:
        raise ResolverUsageError(f"--{name}: {error}") from None


def _token_issuer(text: str) -> tuple[str, str]:
    """Return the federation and the issuer in a value of ``token-issuer``."""
    federation, _, issuer = text.partition("=")
    if not federation or "://" in federation or not issuer.startswith("https://"):
        raise ResolverUsageError(
            f"--token-issuer {text!r} does not name a federation and an issuer", hint="write HOST/PREFIX=https://ISSUER"
        )
    return federation.rstrip("/"), issuer.rstrip("/")


def _renamed(text: str) -> tuple[str, str]:
    """Return the usual and the other name of an attribute in a value of ``attribute``."""
    usual, _, name = text.partition("=")
    if not (usual.isidentifier() and name.isidentifier()):
        raise ResolverUsageError(f"--attribute {text!r} must be NAME=NAME", hint="for example HAS_SINGULARITY=HAS_CONTAINERS")
    return usual, name


def _own_cache(path: str | None, template: str | None) -> str | None:
    """Return this user's cache: the configured directory, or another one if somebody else has taken its name."""
    if path is None or not str(template).endswith("{uid}") or not _is_taken(path):
        return path
    from publisher.resolver.config import own_directory  # noqa: PLC0415 - an attack, it is to be hoped, is rare

    return own_directory.choose(path)


def _is_taken(path: str) -> bool:
    """Return whether something of another user, other than root, stands at a path."""
    try:
        return os.lstat(path).st_uid not in (os.geteuid(), 0)
    except OSError:
        return False


def _manifest_source(origin: str) -> str:
    """Return the source of the manifest in an origin; the query of a URL stays at its end."""
    base, mark, query = origin.partition("?") if "://" in origin else (origin, "", "")
    return f"{base.rstrip('/')}/manifest{mark}{query}"


def _relative_to(file: str, name: str, value: str) -> str:
    """Return a value of the configuration file; a relative path is made relative to the file."""
    if name not in _PATHS or "://" in value:
        return value
    return os.path.join(os.path.dirname(os.path.abspath(file)), value)
