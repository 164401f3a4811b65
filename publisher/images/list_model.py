"""What may stand in images.yaml, version 1. ``rules.py`` has the rules for single values; the descriptions are for editors."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from publisher.images import json_schema, rules, tag_globs
from publisher.images.rules import WrittenReference
from publisher.oci import Platform
from publisher.system import quantities

VERSION = 1
_Item = TypeVar("_Item")


def _distinct(value: list[_Item]) -> list[_Item]:
    again = next((item for position, item in enumerate(value) if item in value[:position]), None)
    if again is not None:
        raise ValueError(f"{again} is named twice; leave one out")
    return value


def _given(value: object) -> object:
    if value is None:
        raise ValueError("nothing stands here")  # a key without a value would be read as one that is left out
    return value


_Optional = Annotated[_Item | None, BeforeValidator(_given)]
_SOME: Any = Field(min_length=1, max_length=20)
_Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(rules.text)]
_Written = Annotated[WrittenReference, PlainValidator(rules.written), WithJsonSchema(json_schema.IMAGE)]
_Globs = Annotated[
    list[Annotated[str, PlainValidator(rules.tag_or_glob), WithJsonSchema(json_schema.TAG_OR_GLOB)]],
    _SOME,
    AfterValidator(_distinct),
]
_Platforms = Annotated[
    list[Annotated[Platform, PlainValidator(rules.platform), WithJsonSchema(json_schema.PLATFORM)]],
    _SOME,
    AfterValidator(_distinct),
]
_Formats = Annotated[list[Literal["sandbox", "sif"]], _SOME, AfterValidator(_distinct)]
_Size = Annotated[int, PlainValidator(quantities.size), WithJsonSchema(json_schema.SIZE)]
_Day = Annotated[date, PlainValidator(rules.day), WithJsonSchema(json_schema.DAY)]
_Count = Annotated[int, PlainValidator(rules.count), WithJsonSchema({"type": "integer", "minimum": 1})]


class _ListPart(BaseModel):
    """What all parts of the file have in common: keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ListDefaults(_ListPart):
    """What holds for entries that do not say it themselves."""

    platforms: _Platforms = Field(
        default_factory=lambda: [Platform("linux", "amd64")],
        description="platforms that are published",
        json_schema_extra={"default": ["linux/amd64"]},
    )
    formats: _Formats = Field(
        default=["sandbox", "sif"], description="what is made of an image: a directory (sandbox), a file (sif), or both"
    )
    max_size: _Optional[_Size] = Field(default=None, description="size that an image's files may have, unpacked")


class PublicationKeys(BaseModel):
    """Which images an entry means; its other keys are let pass."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: _Written = Field(
        description="[registry/]repository[:tag][@digest]; without a registry Docker Hub's, without a tag latest;"
        " a wildcard (*, ?, [...]) for a tag means all tags that it matches"
    )
    tags: _Optional[_Globs] = Field(
        default=None, description="tags, and wildcards for tags; image names the repository alone then"
    )
    exclude: _Optional[_Globs] = Field(default=None, description="tags that the wildcards leave out, or wildcards for them")
    keep: _Optional[_Count] = Field(default=None, description="how many of the tags that the wildcards match: the newest")
    order: _Optional[Literal["version", "name"]] = Field(
        default=None,
        description="which tags are newest: version (the default; numbers as numbers, releases above their rc, beta, alpha and"
        " dev), or name (as text)",
    )

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"image": value}

    @property
    def named(self) -> tuple[str, ...]:
        """The tags that stand there by name: the image's own, or those among ``tags``."""
        if self.tags is not None:
            return tuple(tag for tag in self.tags if not tag_globs.is_wildcard(tag))
        return () if self.image.reference.tag is None else (self.image.reference.tag,)

    @property
    def wildcards(self) -> tuple[str, ...]:
        """The wildcards for tags."""
        if self.tags is not None:
            return tuple(tag for tag in self.tags if tag_globs.is_wildcard(tag))
        return () if self.image.glob is None else (self.image.glob,)


class ListedImage(PublicationKeys):
    """An entry: a reference, or a mapping."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=json_schema.entry)

    platforms: _Optional[_Platforms] = Field(default=None, description="platforms that are published")
    formats: _Optional[_Formats] = Field(
        default=None, description="what is made of it: a directory (sandbox), a file (sif) or both"
    )
    owner: _Optional[_Text] = Field(default=None, description="who answers for it")
    project: _Optional[_Text] = Field(default=None, description="what it is for")
    expires: _Optional[_Day] = Field(default=None, description="the last day it is published: 2027-01-31")
    max_size: _Optional[_Size] = Field(default=None, description="size that its files may have, unpacked: 20 GB")
    private: _Optional[Literal["allowed"]] = Field(
        default=None, description="may be published to everybody though it cannot be pulled anonymously, if the operator agrees"
    )


class ListGroup(_ListPart):
    """Images that belong together."""

    title: _Text = Field(description="what they have in common")
    images: list[ListedImage] = Field(description="references, or mappings where more is to be said")


class ListFile(_ListPart):
    """The images that are published. A reference for each, or a mapping where more is to be said."""

    version: Literal[1] = Field(description="of this format")
    defaults: ListDefaults = Field(
        default_factory=ListDefaults, description="what holds for entries that do not say it themselves"
    )
    groups: list[ListGroup] = Field(description="the images, by what they have in common")
