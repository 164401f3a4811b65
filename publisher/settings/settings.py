"""Settings of the publisher: flags over environment over publisher.yaml over defaults.

One model says all of it: every key of the file is also a flag (``--squash-memory``) and an environment variable
(``PUBLISHER_SQUASH_MEMORY``); :func:`table` lists them. Each source is checked by itself, and all problems of all sources
come at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo

from publisher.contract import units
from publisher.errors import ListError, UsageError
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.plan import quota
from publisher.plan.quota import Quota  # noqa: TC001 - pydantic reads it
from publisher.settings import registry_options
from publisher.settings.targets import FQRN, CvmfsTarget, PublishTargets, to_origin, to_path, to_repository
from publisher.system import yamlfile
from publisher.targets.pelican.address import OriginAddress

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "PUBLISHER_"
_CONFIG = "config"
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?", re.ASCII)
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
_SHORTEST_GRACE = 2 * 86400  # seconds
_SECRETS = ("key", "token_key", "token_file", "removal_token_file")
_STATE_OF_ROOT = "/var/lib/ospool-image-publisher"


def _registries(value: object) -> frozenset[str]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list | tuple | set | frozenset) or not all(isinstance(host, str) for host in listed):
        raise ValueError("a list of HOST:PORT is expected here")
    hosts = frozenset(host.strip() for host in listed)
    for host in sorted(hosts):
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no registry; write HOST:PORT, such as localhost:5000")
    return hosts


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is no {what}")
        return value

    return AfterValidator(check)


def _grace(value: object) -> float:
    seconds = units.positive_seconds(value)
    if seconds < _SHORTEST_GRACE:
        raise ValueError("jobs go on using what leaves: give them at least 2 d, and more than the longest job takes")
    return seconds


def _paths(value: object, info: ValidationInfo) -> tuple[Path, ...]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise ValueError("a list of files is expected here")  # noqa: TRY004 - pydantic collects ValueErrors
    return tuple(to_path(one, info) for one in listed)


_Directory = Annotated[Path, PlainValidator(to_path)]
_Bytes = Annotated[int, PlainValidator(units.positive_size)]
_Seconds = Annotated[float, PlainValidator(units.positive_seconds)]
_Whole = Annotated[int, PlainValidator(units.positive_count)]


class PublisherSettings(BaseModel):
    """All settings. Sizes are bytes, times are seconds, paths are absolute; :func:`table` shows what each is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: _Directory = Field(default=Path("images.yaml"), description="the image list")
    repository: Annotated[Path | CvmfsTarget, PlainValidator(to_repository)] | None = Field(
        default=None, description="where sandboxes go: cvmfs:FQRN, a repository that this host publishes, or a directory"
    )
    origin: Annotated[Path | OriginAddress, PlainValidator(to_origin)] | None = Field(
        default=None,
        description="where SIFs go: pelican://FEDERATION/PREFIX, osdf:///PREFIX, https://HOST/PREFIX, or a directory",
    )
    federation: Annotated[str, _matching(_HOST, "host")] = Field(
        default="osg-htc.org", description="what `osdf:///PREFIX` means: HOST or HOST:PORT of a federation"
    )
    origin_hosts: Annotated[frozenset[str], PlainValidator(_registries)] = Field(
        default=frozenset(), description="HOST:PORT of the origins that a director may send tokens to; without it, any"
    )
    origin_authority: _Directory | None = Field(
        default=None, description="PEM file of a private authority that signs the certificates of federation and origin"
    )
    origin_deadline: _Seconds = Field(default=60, description="time for one answer of an origin, and for silence within one")
    slowest_transfer: _Bytes = Field(
        default=1_000_000, description="bytes per second that an upload may take at the worst, and reading it back"
    )
    origin_checksums: bool = Field(
        default=False,
        description="whether an origin is asked for its checksum of a SIF as well; not with XRootD 5.5, see osdf.md",
    )
    uploads: Literal["builtin", "pelican"] = Field(
        default="builtin", description="what carries SIFs to a federation: this program itself, or the `pelican` command"
    )
    token_file: _Directory | None = Field(
        default=None,
        description="the origin's token, in a file that is kept fresh; without it, BEARER_TOKEN or BEARER_TOKEN_FILE",
    )
    removal_token_file: _Directory | None = Field(
        default=None, description="a token that may also delete objects, for retention alone; without it, the same"
    )
    token_key: _Directory | None = Field(
        default=None, description="private key of the tokens' issuer: tokens are made here, one for each request"
    )
    token_issuer: str | None = Field(default=None, description="URL of the issuer that token_key is of")
    token_key_id: str | None = Field(
        default=None, description="name of token_key in the issuer's key set; its thumbprint without"
    )
    token_base: str | None = Field(
        default=None, description="path that the issuer's scopes are relative to; without it, what the director says, or /"
    )
    state: _Directory = Field(
        default=Path(_STATE_OF_ROOT), description="blobs, unfinished builds and the lock; of other users: below XDG_STATE_HOME"
    )
    key: _Directory | None = Field(default=None, description="private key that signs the manifest")
    trusted_keys: Annotated[tuple[Path, ...], PlainValidator(_paths)] = Field(
        default=(), description="further public keys that may have signed the published manifest: of a key that is being replaced"
    )
    insecure_registries: Annotated[frozenset[str], PlainValidator(_registries)] = Field(
        default=frozenset(),
        alias="insecure_registry",
        description="HOST:PORT of registries without TLS: a list, or with commas between",
    )
    private_images: Literal["refused", "allowed"] = Field(
        default="refused", description="images that not everybody can pull, where their entries say `private: allowed`"
    )
    removal_grace: Annotated[float, PlainValidator(_grace)] = Field(
        default=14 * 86400, description="time that a name which left the list or its registry is still used; at least 2 d"
    )
    superseded_grace: Annotated[float, PlainValidator(_grace)] = Field(
        default=14 * 86400,
        description="time that data stays after it was superseded or its name was gone; longer than any job, at least 2 d",
    )
    removals_per_run: _Whole = Field(default=50, description="builds whose data one run removes, and objects of the origin")
    removed_size_per_run: _Bytes = Field(default=500 * 10**9, description="size of what one run removes")
    adopt_sifs_per_run: _Whole = Field(default=20, description="SIFs that one run makes of adopted images; see `publisher adopt`")
    mirrors: Annotated[Mapping[str, tuple[str, ...]], PlainValidator(registry_options.mirrors)] = Field(
        default={},
        description="registry: [URL, ...] of the mirrors that are asked before it; in flags REGISTRY=URL with commas between",
    )
    mirror_tags: bool = Field(
        default=True, description="whether mirrors also say what tags point at, and not only what is behind digests"
    )
    registry_concurrency: _Whole = Field(default=64, description="requests that one registry gets at a time")
    rates: Annotated[Mapping[str, float], PlainValidator(registry_options.rates)] = Field(
        default={},
        description="registry: requests per second that it gets at most; in flags REGISTRY=NUMBER with commas between",
    )
    longest_pause: _Seconds = Field(
        default=60, description="time of peace that a registry is granted (Retry-After, pull limits); with more, images wait"
    )
    quotas: Annotated[Mapping[str, Quota], PlainValidator(quota.parse_quotas)] = Field(
        default={},
        description="owner: {images: NUMBER, size: SIZE}, for owners of entries; `default` and `nobody` are owners too",
    )
    repository_name: Annotated[str, _matching(FQRN, "repository name")] | None = Field(
        default=None, description="the repository's name in the manifest; without it, the repository's own"
    )
    name_template: Literal["{repository}:{tag}", "{registry}/{repository}:{tag}"] = Field(
        default="{repository}:{tag}", description="CVMFS name of an image, in quotes; {registry}/{repository}:{tag} is the other"
    )
    compression: Literal["zstd", "gzip"] = Field(
        default="zstd", description="of SIFs; gzip where execution points have old kernels"
    )
    test_account: Annotated[str, _matching(_ACCOUNT, "account name")] = Field(
        default="image-test", description="unprivileged account that finished SIFs are tried as, when this program runs as root"
    )
    squash_memory: _Whole = Field(default=128, description="MiB that mksquashfs may use for its caches")
    blob_cache: _Bytes = Field(default=100 * 10**9, description="size of the layers that are kept for later images")
    batch_size: _Bytes = Field(default=50 * 10**9, description="size of the sandboxes that one transaction publishes")
    batch_time: _Seconds = Field(default=1800, description="time after which a transaction is published, however little is in it")
    max_unpacked_size: _Bytes = Field(default=DEFAULT_LIMITS.unpacked_size, description="size of one image's files")
    max_entries: _Whole = Field(default=DEFAULT_LIMITS.entries, description="number of one image's files, directories and links")
    max_path_length: _Whole = Field(default=DEFAULT_LIMITS.path_length, description="bytes of a path within an image")
    request_deadline: _Seconds = Field(default=60, description="time for one answer of a registry")
    slowest_fetch: _Bytes = Field(default=100_000, description="what must arrive per second, or a layer's transfer is given up")
    build_deadline: _Seconds = Field(default=4 * 3600, description="time for planning and squashing one image")
    test_deadline: _Seconds = Field(default=120, description="time for the test run of one image")

    @property
    def limits(self) -> LayerLimits:
        """What one image may ask for."""
        return LayerLimits(unpacked_size=self.max_unpacked_size, entries=self.max_entries, path_length=self.max_path_length)

    def signing_key(self) -> Path:
        """The private key's file.

        Raises:
            UsageError: it is not given.
        """
        if self.key is None:
            raise UsageError("no key is given to sign the manifest with", hint="give --key FILE; publisher keys new makes one")
        return self.key

    def places(self) -> PublishTargets:
        """Where to publish.

        Raises:
            UsageError: repository or origin are not given; both have no default.
        """
        if self.repository is None or self.origin is None:
            given = {"--repository DIR": self.repository, "--origin DIR": self.origin}
            missing = " and ".join(flag for flag, path in given.items() if path is None)
            raise UsageError("it is not said where to publish", hint=f"give {missing}, or their keys in publisher.yaml")
        return PublishTargets(self.repository, self.origin)


def settings(
    flags: Mapping[str, object], environ: Mapping[str, str], *, cwd: Path | None = None, euid: int | None = None
) -> PublisherSettings:
    """The settings that hold.

    Args:
        flags: keys of :class:`PublisherSettings` (``insecure_registry`` among them), and ``config``; None and () are not given.
        environ: ``PUBLISHER_*``, of which empty ones are not given; HOME and XDG_STATE_HOME.
        cwd: what relative paths in flags and environment start from; this process's when None. Those in the file start
            from the file's directory.
        euid: user id whose default state directory it is; this process's when None.

    Raises:
        UsageError: the file cannot be read, or there is no place for a state directory.
        ListError: anything else is wrong; the problems of all sources.
    """
    cwd = Path.cwd() if cwd is None else cwd
    context = {"base": cwd, "home": environ.get("HOME")}
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    variables = {name: value for name, value in environ.items() if name.startswith(_PREFIX) and value}
    named = variables.pop(_variable(_CONFIG), None)
    path = given.pop(_CONFIG, named)
    variables = {name.removeprefix(_PREFIX).lower(): value for name, value in variables.items()}

    values, problems = ({}, []) if path is None else _from_file(cwd / str(path), context)
    for source, label in ((variables, _variable), (given, _flag)):
        found, wrong = _from_words(source, label, context)
        values |= found
        problems += wrong
    values = {"images": cwd / "images.yaml"} | values
    if "state" not in values and not problems:
        values["state"] = _default_state(environ, os.geteuid() if euid is None else euid)
    problems += _published_by_mistake(values)
    if problems:
        raise ListError(problems, "the configuration")
    return PublisherSettings().model_copy(update=values)


def table() -> str:
    """All keys as a Markdown table, for the documentation."""
    rows = ["| Key | Default | What it is |", "|---|---|---|"]
    for name, field in PublisherSettings.model_fields.items():
        default = field.default
        if isinstance(default, bool):
            default = str(default).lower()
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{field.alias or name}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"


def _from_file(path: Path, context: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    try:
        content = yamlfile.read(path)
    except OSError as error:
        raise UsageError(f"the configuration {path} cannot be read: {error.strerror}") from None
    root, problems = yamlfile.parse(content)
    part = None
    if root is not None:
        part, wrong = yamlfile.validate(PublisherSettings, root, context | {"base": path.parent})
        problems += wrong
    return ({} if part is None else _given(part)), yamlfile.lines(str(path), problems)


def _from_words(
    source: Mapping[str, object], label: Callable[[str], str], context: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Values and problems of flags or variables; ``label`` is how a key is spelt there."""
    try:
        return _given(PublisherSettings.model_validate(source, context=context)), []
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            name = label(str(detail["loc"][0]))
            if detail["type"] == "extra_forbidden":
                meant = yamlfile.close(name, [label(field.alias or key) for key, field in PublisherSettings.model_fields.items()])
                problems.append(f"{name}: there is no such setting" + ("" if meant is None else f"; write {meant}"))
            else:
                problems.append(f"{name}: {yamlfile.why(detail)}")
        return {}, problems


def _given(part: PublisherSettings) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.model_fields_set}


def _variable(key: str) -> str:
    return _PREFIX + key.upper()


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _default_state(environ: Mapping[str, str], euid: int) -> Path:
    """Root's is the system's; others have theirs where the XDG base directory specification says."""
    if euid == 0:
        return Path(_STATE_OF_ROOT)
    own = environ.get("XDG_STATE_HOME") or (f"{environ['HOME']}/.local/state" if environ.get("HOME") else "")
    if not Path(own).is_absolute():
        raise UsageError("there is no home directory for the state", hint="give --state DIR")
    return Path(own) / Path(_STATE_OF_ROOT).name


def _published_by_mistake(values: Mapping[str, Any]) -> list[str]:
    """What lies inside the repository or the origin is published: nothing else of ours may be there."""
    places = {name: values[name] for name in ("repository", "origin", "state", *_SECRETS) if values.get(name)}
    places = {name: place for name, place in places.items() if not isinstance(place, OriginAddress)}
    paths = {name: place.mount if isinstance(place, CvmfsTarget) else place for name, place in places.items()}
    pairs = [(inner, outer) for outer in ("repository", "origin") for inner in paths if outer in paths and inner != outer]
    return [
        f"{inner}: {places[inner]} lies inside the {outer} {places[outer]}, which everybody can read; put it elsewhere"
        for inner, outer in pairs
        if paths[inner].is_relative_to(paths[outer])
    ]
