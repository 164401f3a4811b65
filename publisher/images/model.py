"""What may stand in images.yaml: the models, and the rules for single values.

ValueErrors of the rules are sentences for the file's author: what is wrong, and what to write instead.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticKnownError

from publisher import quantity, yamlfile
from publisher.oci import Platform
from publisher.resolver import reference as references
from publisher.resolver.errors import ReferenceError  # noqa: A004 - the field's term
from publisher.resolver.reference import Reference  # noqa: TC001 - pydantic reads the annotations

VERSION = 1
_ARCHITECTURES = ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")  # Go's, on Linux
_OTHER_WORDS = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armhf": "arm", "ppc64el": "ppc64le"}
_DEFAULT_VARIANTS = {("arm64", "v8"), ("amd64", "v1")}  # said or not said, the same platform (containerd's platforms package)
_VARIANT = re.compile(r"v[0-9]{1,2}", re.ASCII)
_OWN_NAMES = (".images", ".arch", ".publisher", ".transaction")
_OWN_PREFIXES = (".cvmfs", ".wh.")
_LONGEST = 512  # characters of a reference: 255, a tag of 128, a digest
_WILDCARDS = frozenset("*?[]")
_SOME: Any = Field(min_length=1, max_length=20)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def parse_reference(value: object) -> Reference:
    """The reference that an entry's ``image`` says; ValueError says why it is none, and what to write."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    shown = yamlfile.quoted(value)
    if len(value) > _LONGEST:
        raise ValueError(f"{shown} is longer than any reference; write [registry/]repository[:tag]")
    for part in value.removeprefix("docker://").split("/"):
        if part in (".", "..") or part.startswith(_OWN_PREFIXES) or part.partition(":")[0] in _OWN_NAMES:
            raise ValueError(f"{shown} has the part {yamlfile.quoted(part)}, which no published name may have; leave it out")
    if _WILDCARDS & set(value):
        raise ValueError(f"{shown} has a wildcard, and those are not supported yet; name each tag in an entry of its own")
    if value.startswith(("http://", "https://")):
        raise ValueError(f"{shown} is a web address; write {yamlfile.quoted(value.partition('://')[2])}")
    try:
        parsed = references.parse(value)
    except ReferenceError as error:
        raise ValueError(f"{error.reason}; write [registry/]repository[:tag], such as 'htc/rocky:9'") from None
    if parsed.tag is None:
        bare, _, digest = value.partition("@")
        raise ValueError(f"{shown} has a digest alone, which makes no name; write {f'{bare}:TAG@{digest}'!r}")
    return parsed


def _platform(value: object) -> Platform:
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    system, _, rest = value.partition("/")
    architecture, slash, variant = rest.partition("/")
    architecture = architecture.lower()
    known = _OTHER_WORDS.get(architecture, architecture)
    if system != "linux" or known != architecture or known not in _ARCHITECTURES or (slash and not _VARIANT.fullmatch(variant)):
        meant = known if known in _ARCHITECTURES else yamlfile.close(known, _ARCHITECTURES)
        instead = f"write linux/{meant}" if meant else f"write linux/ and one of {', '.join(_ARCHITECTURES)}"
        raise ValueError(f"{yamlfile.quoted(value)} is no platform of execution points; {instead}")
    return Platform(system, architecture, "" if (architecture, variant) in _DEFAULT_VARIANTS else variant)


def _date(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"there is no day {value!r} in the calendar") from None
    raise ValueError(f"{yamlfile.quoted(str(value))} is no date; write it as 2027-01-31")


def _text(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError(f"{yamlfile.quoted(value)} is no line of text; write one, of printable characters")
    return value


def _distinct(value: list[_Item]) -> list[_Item]:
    again = next((item for position, item in enumerate(value) if item in value[:position]), None)
    if again is not None:
        raise ValueError(f"{again} is named twice; leave one out")
    return value


_Item = TypeVar("_Item")
_Text = Annotated[str, Field(max_length=200), AfterValidator(_text)]
_Platforms = Annotated[list[Annotated[Platform, PlainValidator(_platform)]], _SOME, AfterValidator(_distinct)]
_Formats = Annotated[list[Literal["sandbox", "sif"]], _SOME, AfterValidator(_distinct)]
_Size = Annotated[int, PlainValidator(quantity.size)]


class _Part(BaseModel):
    """What all parts of the file have in common: keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Defaults(_Part):
    """What holds for entries that do not say it themselves."""

    platforms: _Platforms = [Platform("linux", "amd64")]
    formats: _Formats = ["sandbox", "sif"]
    max_size: _Size | None = None


class Image(_Part):
    """An entry: a reference, or a mapping."""

    unsupported: ClassVar = dict.fromkeys(("tags", "exclude", "keep"), "wildcards are not supported yet; name each tag")

    image: Annotated[Reference, PlainValidator(parse_reference)]
    platforms: _Platforms | None = None
    formats: _Formats | None = None
    owner: _Text | None = None
    project: _Text | None = None
    expires: Annotated[date, PlainValidator(_date)] | None = None
    max_size: _Size | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"image": value}


class Group(_Part):
    """Images that belong together."""

    title: _Text
    images: list[Image]


class ImageList(_Part):
    """The file."""

    version: Literal[1]
    defaults: Defaults = Defaults()
    groups: list[Group]
