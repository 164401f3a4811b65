"""The rules for single values of images.yaml.

Their ValueErrors are sentences for the file's author: what is wrong, and what to write instead.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import NamedTuple

from pydantic_core import PydanticKnownError

from publisher.contract import reference as references
from publisher.contract.errors import InvalidReferenceError
from publisher.contract.reference import Reference
from publisher.images import tag_globs
from publisher.images.tag_globs import TagSet
from publisher.oci import Platform
from publisher.system import yamlfile

ARCHITECTURES = ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")
"""Go's names, of those that Linux runs on."""
_OTHER_WORDS = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armhf": "arm", "ppc64el": "ppc64le"}
_DEFAULT_VARIANTS = {("arm64", "v8"), ("amd64", "v1")}  # said or not said, the same platform (containerd's platforms package)
_VARIANT = re.compile(r"v[0-9]{1,2}", re.ASCII)
_OWN_NAMES = (".images", ".arch", ".publisher", ".transaction")
_OWN_PREFIXES = (".cvmfs", ".wh.")
_LONGEST = 512  # characters of a reference: 255, a tag of 128, a digest
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


class WrittenReference(NamedTuple):
    """What stands behind ``image``: the reference, and what its tag is.

    Attributes:
        reference: with the tag ``latest`` where none is said, without any where it is a wildcard.
        glob: the wildcard, None where there is none.
        bare: neither tag nor digest stands there.
    """

    reference: Reference
    glob: str | None = None
    bare: bool = False


def written(value: object) -> WrittenReference:
    """What an entry's ``image`` says."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    shown = yamlfile.quoted(value)
    if len(value) > _LONGEST:
        raise ValueError(f"{shown} is longer than any reference; write [registry/]repository[:tag]")
    for part in value.removeprefix("docker://").split("/"):
        if part in (".", "..") or part.startswith(_OWN_PREFIXES) or part.partition(":")[0] in _OWN_NAMES:
            raise ValueError(f"{shown} has the part {yamlfile.quoted(part)}, which no published name may have; leave it out")
    if value.startswith(("http://", "https://")):
        raise ValueError(f"{shown} is a web address; write {yamlfile.quoted(value.partition('://')[2])}")
    bare, tag = _split_tag(value)
    if tag_globs.is_wildcard(bare):
        text = f"{shown} has a wildcard in its registry or repository; wildcards are for tags, write an entry for each repository"
        raise ValueError(text)
    if not tag_globs.is_wildcard(tag):
        return _one(value, shown, bare=value == bare)
    glob, at, _ = tag.partition("@")
    if at:
        raise ValueError(f"{shown} has a wildcard and a digest; write {f'{bare}:{glob}'!r}, or the one tag that is meant")
    reference = _parsed(bare)
    return WrittenReference(Reference(reference.registry, reference.repository), glob=tag_or_glob(glob))


def _one(value: str, shown: str, *, bare: bool) -> WrittenReference:
    reference = _parsed(value)
    if reference.tag is None:
        without, _, digest = value.partition("@")
        raise ValueError(f"{shown} has a digest alone, which makes no name; write {f'{without}:TAG@{digest}'!r}")
    return WrittenReference(reference, bare=bare)


def _parsed(text: str) -> Reference:
    try:
        return references.parse(text)
    except InvalidReferenceError as error:
        raise ValueError(f"{error.reason}; write [registry/]repository[:tag], such as 'htc/rocky:9'") from None


def _split_tag(value: str) -> tuple[str, str]:
    """What stands before the tag, and the tag with all that follows it."""
    above, slash, last = value.rpartition("/")
    repository, _, tag = last.partition(":")
    return f"{above}{slash}{repository}", tag


def tag_or_glob(value: object) -> str:
    """A tag, or a wildcard that some tag can match."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    shown = yamlfile.quoted(value)
    if not value or len(value) > tag_globs.LONGEST_TAG:
        raise ValueError(f"{shown} is no tag and no wildcard for tags; write 1 to {tag_globs.LONGEST_TAG} characters")
    if not tag_globs.is_wildcard(value):
        if not _TAG.fullmatch(value):
            raise ValueError(f"{shown} is no tag; write letters, digits, '_', '.' and '-', the first no '.' or '-'")
    elif tag_globs.example(TagSet((value,))) is None:
        allowed = "tags are made of letters, digits, '_', '.' and '-', and begin with none of the last two"
        raise ValueError(f"no tag can match {shown}: {allowed}; write a wildcard such as '1.*'")
    return value


def platform(value: object) -> Platform:
    """A platform of execution points."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    system, _, rest = value.partition("/")
    architecture, slash, variant = rest.partition("/")
    architecture = architecture.lower()
    known = _OTHER_WORDS.get(architecture, architecture)
    if system != "linux" or known != architecture or known not in ARCHITECTURES or (slash and not _VARIANT.fullmatch(variant)):
        meant = known if known in ARCHITECTURES else yamlfile.close(known, ARCHITECTURES)
        instead = f"write linux/{meant}" if meant else f"write linux/ and one of {', '.join(ARCHITECTURES)}"
        raise ValueError(f"{yamlfile.quoted(value)} is no platform of execution points; {instead}")
    return Platform(system, architecture, "" if (architecture, variant) in _DEFAULT_VARIANTS else variant)


def day(value: object) -> date:
    """A day of the calendar."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"there is no day {value!r} in the calendar") from None
    raise ValueError(f"{yamlfile.quoted(str(value))} is no date; write it as 2027-01-31")


def text(value: str) -> str:
    """A line of text."""
    if not value.strip() or not value.isprintable():
        raise ValueError(f"{yamlfile.quoted(value)} is no line of text; write one, of printable characters")
    return value


def count(value: object) -> int:
    """How many to keep."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"{yamlfile.quoted(str(value))} is no number of tags to keep; write 1 or more, or leave the key out for all"
        )
    return value
