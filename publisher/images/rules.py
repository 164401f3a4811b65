"""Validation of single values of images.yaml.

Each function returns the parsed value or raises ValueError. The message of a ValueError is written for the author of the file: it
says what is wrong and what to write instead.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic_core import PydanticKnownError

from publisher.contract.conditions import ARCHITECTURES, Conditions
from publisher.contract.errors import InvalidReferenceError
from publisher.contract.reference import Reference  # noqa: TC001 - pydantic reads the annotation
from publisher.images import sif_sources, tag_patterns, web_pages
from publisher.images.tag_patterns import TagSet
from publisher.oci import Platform
from publisher.system import yamlfile

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_OTHER_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armhf": "arm", "ppc64el": "ppc64le"}
_DEFAULT_VARIANTS = {("arm64", "v8"), ("amd64", "v1")}  # the same platform with and without it (containerd's package platforms)
_VARIANT = re.compile(r"v[0-9]{1,2}", re.ASCII)
_RESERVED_NAMES = (".images", ".arch", ".publisher", ".transaction")
_RESERVED_PREFIXES = (".cvmfs", ".wh.")
_MAX_REFERENCE = 512  # characters: 255 for the repository, 128 for the tag, and a digest
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


class WrittenReference(NamedTuple):
    """The parsed value of an entry's ``image``.

    Attributes:
        reference: the reference; its tag is ``latest`` if the value has no tag, and None if the value has a tag pattern.
        tag_pattern: the tag pattern, None if there is none.
        bare: the value has neither a tag nor a digest.
    """

    reference: Reference
    tag_pattern: str | None = None
    bare: bool = False


def parse_image(value: object) -> WrittenReference:
    """Return the reference or tag pattern of an entry's ``image``. Raises ValueError."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    shown = yamlfile.quoted(value)
    if len(value) > _MAX_REFERENCE:
        raise ValueError(f"{shown} is too long for an image reference; write [registry/]repository[:tag]")
    if sif_sources.is_written_as_url(value):
        return WrittenReference(_parse_url(value, shown))
    _check_reserved(value.removeprefix("docker://").removeprefix(f"{sif_sources.ORAS}://"), shown)
    if value.lower().startswith(("http://", "https://")) or web_pages.is_website(value):
        raise ValueError(_web_address(value, shown))
    bare, tag = _split_tag(value)
    if tag_patterns.is_pattern(bare):
        text = (
            f"{shown} has a wildcard in its registry or repository; only tags can have wildcards, write one entry per repository"
        )
        raise ValueError(text)
    if not tag_patterns.is_pattern(tag):
        return _parse_tagged(value, shown, bare=value == bare)
    pattern, at, _ = tag.partition("@")
    if at:
        raise ValueError(
            f"{shown} has a tag pattern and a digest; write {f'{bare}:{pattern}'!r}, or a single tag with the digest"
        )
    return WrittenReference(_parse_reference(bare).pointing_at(None), tag_pattern=parse_tag_or_pattern(pattern))


def _check_reserved(path: str, shown: str) -> None:
    """Raise ValueError if a part of a path is a name that cannot be published."""
    for part in path.split("/"):
        if part in (".", "..") or part.startswith(_RESERVED_PREFIXES) or part.partition(":")[0] in _RESERVED_NAMES:
            raise ValueError(f"{shown} contains {yamlfile.quoted(part)}, which is reserved and cannot be published; remove it")


def _parse_url(value: str, shown: str) -> Reference:
    """Return the reference of a SIF at a URL. Raises ValueError."""
    if value.startswith("http://"):
        raise ValueError(f"{shown} can be changed on its way; write https://")
    if "@" in value:
        raise ValueError(f"{shown} has an '@'; write the URL alone, and the digest of the SIF under sha256:")
    return _parse_reference(value)


def parse_name(text: str) -> str:
    """Return the name of a SIF at a URL, such as ``lab/solver:1.2``. Raises ValueError."""
    shown = yamlfile.quoted(text)
    _check_reserved(text, shown)
    above, tag = _split_tag(text)
    if "@" in text or above == text or tag_patterns.is_pattern(tag):
        raise ValueError(f"{shown} is not a name with a tag; write one such as 'lab/solver:1.2'")
    parsed = _parse_reference(text)
    if text not in {str(parsed), f"{parsed.repository}:{parsed.tag}"}:
        raise ValueError(f"{shown} is not the name of an image in full; write one such as 'lab/solver:1.2'")
    return text


def parse_sha256(text: str) -> str:
    """Return a sha256 in hexadecimal. Raises ValueError."""
    if not _SHA256.fullmatch(text.removeprefix("sha256:")):
        raise ValueError(f"{yamlfile.quoted(text)} is not a sha256; write the 64 digits that sha256sum prints for the file")
    return text.removeprefix("sha256:")


def _web_address(value: str, shown: str) -> str:
    """Return what is wrong with a web address, and the reference of the image that its page is about."""
    reference = web_pages.reference_of_page(value)
    instead = "[registry/]repository[:tag], as for docker pull" if reference is None else yamlfile.quoted(reference)
    return f"{shown} is the address of a web page; write {instead}"


def _parse_tagged(value: str, shown: str, *, bare: bool) -> WrittenReference:
    reference = _parse_reference(value)
    if reference.tag is None:
        without, _, digest = value.partition("@")
        raise ValueError(f"{shown} has a digest but no tag, which its name is made of; write {f'{without}:TAG@{digest}'!r}")
    return WrittenReference(reference, bare=bare)


def _parse_reference(text: str) -> Reference:
    try:
        return sif_sources.parse(text)
    except InvalidReferenceError as error:
        if sif_sources.is_written_as_url(text):
            raise ValueError(error.reason) from None
        raise ValueError(f"{error.reason}; write [registry/]repository[:tag], such as 'htc/rocky:9'") from None


def _split_tag(value: str) -> tuple[str, str]:
    """Split a reference into what precedes the tag, and the tag with everything after it."""
    above, slash, last = value.rpartition("/")
    repository, _, tag = last.partition(":")
    return f"{above}{slash}{repository}", tag


def parse_tag_or_pattern(value: object) -> str:
    """Return a tag, or a tag pattern that some tag can match. Raises ValueError."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    shown = yamlfile.quoted(value)
    if not value or len(value) > tag_patterns.LONGEST_TAG:
        raise ValueError(f"{shown} is not a valid tag or tag pattern; write 1 to {tag_patterns.LONGEST_TAG} characters")
    if not tag_patterns.is_pattern(value):
        if not _TAG.fullmatch(value):
            allowed = "write letters, digits, '_', '.' and '-', beginning with a letter, a digit or '_'"
            raise ValueError(f"{shown} is not a valid tag; {allowed}")
    elif tag_patterns.shortest_common_tag(TagSet((value,))) is None:
        allowed = "tags consist of letters, digits, '_', '.' and '-', and do not begin with '.' or '-'"
        raise ValueError(f"no tag can match {shown}: {allowed}; write a tag pattern such as '1.*'")
    return value


def parse_platform(value: object) -> Platform:
    """Return a platform that execution points can have. Raises ValueError."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    system, _, rest = value.partition("/")
    architecture, slash, variant = rest.partition("/")
    architecture = architecture.lower()
    known = _OTHER_NAMES.get(architecture, architecture)
    if system != "linux" or known != architecture or known not in ARCHITECTURES or (slash and not _VARIANT.fullmatch(variant)):
        meant = known if known in ARCHITECTURES else yamlfile.closest(known, ARCHITECTURES)
        instead = f"write linux/{meant}" if meant else f"write linux/ and one of {', '.join(ARCHITECTURES)}"
        raise ValueError(f"{yamlfile.quoted(value)} is not a platform of execution points; {instead}")
    return Platform(system, architecture, "" if (architecture, variant) in _DEFAULT_VARIANTS else variant)


def parse_conditions(text: str) -> Conditions:
    """Return the conditions of a variant, at least one. Raises ValueError."""
    if not text.strip():
        raise ValueError("the conditions are empty; write some, such as x86-64-v3, or remove when: for a variant without any")
    return Conditions.parse(text)


def parse_date(value: object) -> date:
    """Return a date from a YAML date or a text such as 2027-01-31. Raises ValueError."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a day of the calendar; write a date such as 2027-01-31") from None
    raise ValueError(f"{yamlfile.quoted(str(value))} is not a date; write it as 2027-01-31")


def check_text(value: str) -> str:
    """Return the value if it is one line of printable text. Raises ValueError."""
    if not value.strip() or not value.isprintable():
        raise ValueError(f"{yamlfile.quoted(value)} is empty or has unprintable characters; write one line of text")
    return value


def text_parser(parse: Callable[[str], T]) -> Callable[[object], T]:
    """Return a function that parses a text and refuses all other values; ``parse`` raises ValueError."""

    def parse_text(value: object) -> T:
        if not isinstance(value, str):
            raise PydanticKnownError("string_type")
        return parse(value)

    return parse_text


def parse_keep(value: object) -> int:
    """Return the number of tags to keep, 1 or more. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        shown = yamlfile.quoted(str(value))
        raise ValueError(f"{shown} is not a number of tags to keep; write 1 or more, or leave the key out to keep all")
    return value
