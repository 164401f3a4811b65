"""The kinds of values that settings have: how each is checked, named in help and documentation, and shown as a default."""

from __future__ import annotations

import ipaddress
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, PlainValidator, ValidationInfo

from publisher.build.toolset import ACCEPTABLE
from publisher.contract import units
from publisher.notices.addresses import Webhook
from publisher.plan import quota
from publisher.settings import notice_options, registry_options, targets
from publisher.signing.key_source import PROGRAM_SCHEME, TOKEN_SCHEME, KeySource, ProgramKey, parse_token
from publisher.targets.pelican.federation.address import OriginAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?", re.ASCII)
_HIGHEST_LEVEL = 22  # of zstd
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MIN_GRACE = 2 * 86400  # seconds
_SIZE_UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}
_TIME_UNITS = {"d": 86400, "h": 3600, "min": 60}


@dataclass(frozen=True)
class ValueKind:
    """How a setting's value is written.

    Attributes:
        description: the kind, in words, as Markdown for the documentation: ``size``.
        metavar: the kind in the help of a flag: ``SIZE``.
        format: returns a default as it could be written in publisher.yaml.
        is_list: the value is several, which a flag or variable has with commas between them.
    """

    description: str
    metavar: str
    format: Callable[[Any], str] = str
    is_list: bool = False


def kind_of(field: FieldInfo) -> ValueKind:
    """Return the kind of a setting: the one in its annotation, or one made of its ``Literal`` or ``bool``."""
    annotated = _find_kind(field.metadata) or _find_kind_within(field.annotation)
    if annotated is not None:
        return annotated
    if field.annotation is bool:
        return ValueKind("`true` or `false`", "true|false", lambda value: str(value).lower())
    if typing.get_origin(field.annotation) is Literal:
        words = list(map(str, typing.get_args(field.annotation)))
        return ValueKind(" or ".join(f"`{word}`" for word in words), "|".join(words))
    return ValueKind("text", "TEXT")


def _find_kind(metadata: typing.Iterable[object]) -> ValueKind | None:
    return next((kind for kind in metadata if isinstance(kind, ValueKind)), None)


def _find_kind_within(annotation: object) -> ValueKind | None:
    """Return the kind in an annotation such as ``Annotated[Path, …, ValueKind(…)] | None``."""
    for part in (annotation, *typing.get_args(annotation)):
        kind = _find_kind(getattr(part, "__metadata__", ()))
        if kind is not None:
            return kind
    return None


def _format_amount(amount: float, units_by_name: Mapping[str, int], smallest: str) -> str:
    """Return an amount with the largest unit that divides it."""
    for unit, factor in units_by_name.items():
        if amount % factor == 0:
            return f"{amount // factor:.0f} {unit}"
    return f"{amount:.0f}{smallest}"


def _format_size(size: int) -> str:
    return _format_amount(size, _SIZE_UNITS, " B")


def _format_time(seconds: float) -> str:
    return _format_amount(seconds, _TIME_UNITS, " s")


def _matching(pattern: re.Pattern[str], kind: str, allowed: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not a valid {kind}; write {allowed}")
        return value

    return AfterValidator(check)


def _split(value: object) -> object:
    """Return the parts of a text with commas between them, any other value as it is."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _parse_hosts(value: object) -> frozenset[str]:
    """Return hosts from a list, or from a text with commas between them."""
    listed = _split(value)
    if not isinstance(listed, list | tuple | set | frozenset) or not all(isinstance(host, str) for host in listed):
        raise ValueError("a list of HOST:PORT is expected here")
    hosts = frozenset(host.strip() for host in listed)
    for host in sorted(hosts):
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is not a valid host; write HOST:PORT, such as localhost:5000")
    return hosts


def _parse_networks(value: object) -> tuple[Network, ...]:
    """Return IP networks from a list, or from a text with commas between them."""
    listed = _split(value)
    if not isinstance(listed, list | tuple) or not all(isinstance(text, str) for text in listed):
        raise ValueError("a list of networks is expected here, such as 10.1.0.0/16")
    return tuple(ipaddress.ip_network(text.strip()) for text in listed)


def _parse_tools(value: object) -> tuple[tuple[str, str], ...]:
    """Return pairs of program and version from a list, or from a text with commas between them."""
    listed = _split(value)
    texts = listed if isinstance(listed, list | tuple) else [listed]
    pairs = tuple(tuple(str(text).split()) for text in texts)
    for text, pair in zip(texts, pairs, strict=True):
        if len(pair) != 2 or pair[0] not in ACCEPTABLE:  # noqa: PLR2004 - program and version
            raise ValueError(
                f"{text!r} is not a program with a version; write {', '.join(ACCEPTABLE)} and a version: mksquashfs 4.5.1"
            )
    return tuple((program, version) for program, version in pairs)


def _parse_grace(value: object) -> float:
    seconds = units.positive_seconds(value)
    if seconds < _MIN_GRACE:
        raise ValueError(
            "the grace is too short; jobs still use what leaves: write at least 2 d, and more than the longest job takes"
        )
    return seconds


def _check_expression(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError(f"{value!r} is not a ClassAd expression; write one line, such as HasSingularity")
    return value


def _parse_share(value: object) -> float:
    try:
        share = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{value!r} is not a share; write a number from 0 to 1, such as 0.05")
    return share


def _parse_paths(value: object, info: ValidationInfo) -> tuple[Path, ...]:
    """Return paths from a list, or from a text with commas between them."""
    listed = _split(value)
    if not isinstance(listed, list | tuple):
        raise ValueError("a list of files is expected here")  # noqa: TRY004 - pydantic collects ValueErrors
    return tuple(targets.to_path(path, info) for path in listed)


def _parse_origins(value: object, info: ValidationInfo) -> tuple[Path | OriginAddress, ...]:
    """Return origins from a list, or from a text with commas between them."""
    listed = _split(value)
    if not isinstance(listed, list | tuple):
        raise ValueError("a list of origins is expected here")  # noqa: TRY004 - pydantic collects ValueErrors
    return tuple(targets.to_origin(one, info) for one in listed)


def _parse_key(value: object, info: ValidationInfo) -> KeySource:
    """Return the key that a file, a ``pkcs11:`` URI or ``command:PROGRAM`` names."""
    text = str(value)
    if text.startswith(TOKEN_SCHEME):
        return parse_token(text)
    if text.startswith(PROGRAM_SCHEME):
        return ProgramKey(targets.to_path(text.removeprefix(PROGRAM_SCHEME), info))
    return targets.to_path(value, info)


def _parse_keys(value: object, info: ValidationInfo) -> tuple[KeySource, ...]:
    """Return keys from a list, or from a text with commas between them."""
    listed = _split(value)
    if not isinstance(listed, list | tuple):
        raise ValueError("a list of keys is expected here")  # noqa: TRY004 - pydantic collects ValueErrors
    return tuple(_parse_key(key, info) for key in listed)


def _parse_level(value: object) -> int:
    """Return a level of zstd."""
    level = units.positive_count(value)
    if level > _HIGHEST_LEVEL:
        raise ValueError(f"{level} is not a level of zstd; write a number from 1 to {_HIGHEST_LEVEL}")
    return level


PrivateKey = Annotated[
    KeySource,
    PlainValidator(_parse_key),
    ValueKind("file, `pkcs11:` URI or `command:PROGRAM`", "FILE|pkcs11:URI|command:PROGRAM"),
]
PrivateKeys = Annotated[
    tuple[KeySource, ...], PlainValidator(_parse_keys), ValueKind("list of keys as in `key`", "KEY,…", is_list=True)
]
FilePath = Annotated[Path, PlainValidator(targets.to_path), ValueKind("file", "FILE")]
FilePaths = Annotated[tuple[Path, ...], PlainValidator(_parse_paths), ValueKind("list of files", "FILE,…", is_list=True)]
DirectoryPath = Annotated[Path, PlainValidator(targets.to_path), ValueKind("directory", "DIR")]
RepositoryTarget = Annotated[
    Path | targets.CvmfsTarget,
    PlainValidator(targets.to_repository),
    ValueKind("`cvmfs:FQRN` or directory", "cvmfs:FQRN|DIR"),
]
OriginTarget = Annotated[
    Path | OriginAddress,
    PlainValidator(targets.to_origin),
    ValueKind("`pelican://FEDERATION/PREFIX`, `osdf:///PREFIX`, `https://HOST/PREFIX` or directory", "URL|DIR"),
]
OriginTargets = Annotated[
    tuple[Path | OriginAddress, ...],
    PlainValidator(_parse_origins),
    ValueKind("list of origins as in `origin`", "URL|DIR,…", is_list=True),
]
WitnessTarget = Annotated[
    Path | OriginAddress | targets.GitTarget,
    PlainValidator(targets.to_witness),
    ValueKind("`git:URL`, URL of an origin, or directory", "git:URL|URL|DIR"),
]
PagePlace = Annotated[Path | str, PlainValidator(targets.to_page), ValueKind("`origin`, `none` or directory", "origin|none|DIR")]
Size = Annotated[int, PlainValidator(units.positive_size), ValueKind("size", "SIZE", _format_size)]
Rate = Annotated[int, PlainValidator(units.positive_size), ValueKind("size per second", "SIZE", _format_size)]
Seconds = Annotated[float, PlainValidator(units.positive_seconds), ValueKind("time", "TIME", _format_time)]
Grace = Annotated[float, PlainValidator(_parse_grace), ValueKind("time, 2 d or more", "TIME", _format_time)]
Share = Annotated[float, PlainValidator(_parse_share), ValueKind("number from 0 to 1", "SHARE", lambda share: f"{share:g}")]
Count = Annotated[int, PlainValidator(units.positive_count), ValueKind("number", "NUMBER")]
ZstdLevel = Annotated[int, PlainValidator(_parse_level), ValueKind("number from 1 to 22", "NUMBER")]
Host = Annotated[
    str, _matching(_HOST, "host", "HOST or HOST:PORT, such as osg-htc.org"), ValueKind("host, or `HOST:PORT`", "HOST")
]
Hosts = Annotated[frozenset[str], PlainValidator(_parse_hosts), ValueKind("list of `HOST:PORT`", "HOST:PORT,…", is_list=True)]
Networks = Annotated[
    tuple[Network, ...], PlainValidator(_parse_networks), ValueKind("list of networks", "NETWORK,…", is_list=True)
]
ToolVersions = Annotated[
    tuple[tuple[str, str], ...],
    PlainValidator(_parse_tools),
    ValueKind("list of programs with versions", "PROGRAM VERSION,…", is_list=True),
]
Account = Annotated[
    str, _matching(_ACCOUNT, "account name", "up to 32 of a-z, 0-9, _ and -"), ValueKind("account name", "ACCOUNT")
]
Program = Annotated[str, ValueKind("path or name of a program", "PROGRAM")]
Expression = Annotated[str, AfterValidator(_check_expression), ValueKind("ClassAd expression", "EXPRESSION")]
RepositoryName = Annotated[
    str, _matching(targets.FQRN, "repository name", "a name such as images.example.org"), ValueKind("repository name", "NAME")
]
Url = Annotated[str, ValueKind("URL", "URL")]
Mirrors = Annotated[
    Mapping[str, tuple[str, ...]],
    PlainValidator(registry_options.parse_mirrors),
    ValueKind("`registry: [URL, …]`", "REGISTRY=URL,…", is_list=True),
]
RequestRates = Annotated[
    Mapping[str, float],
    PlainValidator(registry_options.parse_rates),
    ValueKind("`registry: NUMBER`", "REGISTRY=NUMBER,…", is_list=True),
]
Addresses = Annotated[
    tuple[str, ...],
    PlainValidator(notice_options.parse_addresses),
    ValueKind("list of mail addresses", "ADDRESS,…", is_list=True),
]
Address = Annotated[str, PlainValidator(notice_options.parse_address), ValueKind("mail address", "ADDRESS")]
OwnerAddresses = Annotated[
    Mapping[str, str],
    PlainValidator(notice_options.parse_owners),
    ValueKind("`owner: ADDRESS`", "OWNER=ADDRESS,…", is_list=True),
]
Webhooks = Annotated[
    tuple[Webhook, ...],
    PlainValidator(notice_options.parse_webhooks),
    ValueKind("list of `URL` or `slack:URL`", "URL,…", is_list=True),
]
CommandLine = Annotated[str, PlainValidator(notice_options.parse_command), ValueKind("program with its arguments", "COMMAND")]
Quotas = Annotated[
    Mapping[str, quota.Quota],
    PlainValidator(quota.parse_quotas),
    ValueKind("`owner: {images: NUMBER, size: SIZE}`", "OWNERS"),
]
