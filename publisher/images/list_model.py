"""The data model of images.yaml, version 1. ``rules.py`` validates single values; editors show the descriptions to users."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

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

from publisher.contract import units
from publisher.contract.conditions import Conditions
from publisher.images import json_schema, rules, sif_sources, signer, tag_patterns
from publisher.images.rules import WrittenReference
from publisher.oci import Platform

if TYPE_CHECKING:
    from publisher.contract.reference import Reference

VERSION = 1
_Item = TypeVar("_Item")


def _distinct(value: list[_Item]) -> list[_Item]:
    duplicate = next((item for position, item in enumerate(value) if item in value[:position]), None)
    if duplicate is not None:
        raise ValueError(f"{duplicate} appears twice; remove one")
    return value


def _not_null(value: object) -> object:
    if value is None:
        raise ValueError("the value is missing")  # a key without a value is not the same as a key that is left out
    return value


_Optional = Annotated[_Item | None, BeforeValidator(_not_null)]
_LENGTH: Any = Field(min_length=1, max_length=20)
_Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(rules.check_text)]
_Written = Annotated[WrittenReference, PlainValidator(rules.parse_image), WithJsonSchema(json_schema.IMAGE)]
_TagPatterns = Annotated[
    list[Annotated[str, PlainValidator(rules.parse_tag_or_pattern), WithJsonSchema(json_schema.TAG_OR_PATTERN)]],
    _LENGTH,
    AfterValidator(_distinct),
]
_Platforms = Annotated[
    list[Annotated[Platform, PlainValidator(rules.parse_platform), WithJsonSchema(json_schema.PLATFORM)]],
    _LENGTH,
    AfterValidator(_distinct),
]
_Formats = Annotated[list[Literal["sandbox", "sif"]], _LENGTH, AfterValidator(_distinct)]
_Size = Annotated[int, PlainValidator(units.positive_size), WithJsonSchema(json_schema.SIZE)]
_Conditions = Annotated[
    Conditions, PlainValidator(rules.text_parser(rules.parse_conditions)), WithJsonSchema(json_schema.CONDITIONS)
]
_Name = Annotated[str, PlainValidator(rules.text_parser(rules.parse_name)), WithJsonSchema(json_schema.NAME)]
_Sha256 = Annotated[str, PlainValidator(rules.text_parser(rules.parse_sha256)), WithJsonSchema(json_schema.SHA256)]
_Date = Annotated[date, PlainValidator(rules.parse_date), WithJsonSchema(json_schema.DATE)]
_Key = Annotated[bytes, PlainValidator(rules.text_parser(signer.parse_public_key)), WithJsonSchema(json_schema.PUBLIC_KEY)]
_Count = Annotated[int, PlainValidator(rules.parse_keep), WithJsonSchema({"type": "integer", "minimum": 1})]


class _ListPart(BaseModel):
    """The base of all parts of the file: unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ListDefaults(_ListPart):
    """Default values for the whole list."""

    platforms: _Platforms = Field(
        default_factory=lambda: [Platform("linux", "amd64")],
        description="The platforms to publish, such as linux/amd64 and linux/arm64. Default: linux/amd64.",
        json_schema_extra={"default": ["linux/amd64"]},
    )
    formats: _Formats = Field(
        default=["sandbox", "sif"],
        description="The formats to publish: sandbox (a directory on CVMFS), sif (one file on OSDF), or both. Default: both.",
    )
    max_size: _Optional[_Size] = Field(
        default=None,
        description="The largest total size of an image's unpacked files, such as 20 GB. A larger image is not published.",
    )


class PublicationKeys(BaseModel):
    """The keys of an entry that select its images; other keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: _Written = Field(
        description="The image: [registry/]repository[:tag][@digest]. The default registry is Docker Hub, the default tag"
        " is latest. A tag pattern (*, ?, [...]) in place of the tag selects all tags that match it. Or a SIF:"
        " oras://registry/repository:tag, osdf:///path/file.sif or https://host/path/file.sif."
    )
    tags: _Optional[_TagPatterns] = Field(
        default=None,
        description="The tags to publish, as names or as tag patterns such as 1.*. The image is then a repository without a tag.",
    )
    exclude: _Optional[_TagPatterns] = Field(
        default=None,
        description="Tags that are not published although a tag pattern of this entry matches them, as names or as tag patterns.",
    )
    keep: _Optional[_Count] = Field(
        default=None,
        description="How many of the tags that match the tag patterns are published; the newest are. Default: all of them.",
    )
    order: _Optional[Literal["version", "name"]] = Field(
        default=None,
        description="How keep finds the newest tags. version (the default) compares numbers as numbers and puts a release above"
        " its rc, beta, alpha and dev tags; name compares tags as text.",
    )
    name: _Optional[_Name] = Field(
        default=None, description="The name of a SIF at a URL, such as lab/solver:1.2. Only osdf:// and https:// need it."
    )
    sha256: _Optional[_Sha256] = Field(
        default=None, description="The sha256 of a SIF at a URL, 64 hexadecimal digits. Only osdf:// and https:// need it."
    )

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"image": value}

    @property
    def tag_names(self) -> tuple[str, ...]:
        """The tags that the entry names: the image's own tag, or those among ``tags`` that are not tag patterns."""
        if self.tags is not None:
            return tuple(tag for tag in self.tags if not tag_patterns.is_pattern(tag))
        return () if self.image.reference.tag is None else (self.image.reference.tag,)

    @property
    def references(self) -> tuple[Reference, ...]:
        """The references of the images that the entry names: one for each of ``tag_names``, or the one SIF at its URL."""
        listed = self.image.reference
        if sif_sources.is_url(listed):
            return () if self.name is None else (sif_reference(listed, self.sha256),)
        return tuple(listed if listed.tag == tag else listed.pointing_at(tag) for tag in self.tag_names)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The entry's tag patterns."""
        if self.tags is not None:
            return tuple(tag for tag in self.tags if tag_patterns.is_pattern(tag))
        return () if self.image.tag_pattern is None else (self.image.tag_pattern,)


def sif_reference(listed: Reference, sha256: str | None) -> Reference:
    """Return a listed reference, with the digest that pins it if it is the URL of a SIF."""
    return listed.pointing_at(None, f"sha256:{sha256}") if sif_sources.is_url(listed) and sha256 else listed


class ListedSigner(_ListPart):
    """The signer of an image: an identity with its issuer, or a public key."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=json_schema.SIGNER)

    identity: _Optional[_Text] = Field(
        default=None,
        description="The identity in the signing certificate: the URL of a workflow with its ref, or an e-mail address.",
    )
    issuer: _Optional[_Text] = Field(
        default=None,
        description="The OpenID Connect issuer of the identity, such as https://token.actions.githubusercontent.com.",
    )
    public_key: _Optional[_Key] = Field(default=None, description="The public key in PEM, the content of cosign.pub.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        has_identity = self.identity is not None and self.issuer is not None
        if has_identity != (self.public_key is None) or (self.public_key is not None and (self.identity or self.issuer)):
            raise ValueError("write either identity and issuer, or public_key")
        return self


class ListedVariant(_ListPart):
    """One of several builds of an image: the image that is built for some hosts, and which hosts these are."""

    image: _Written = Field(description="The image that hosts get which meet the conditions, with a single tag.")
    sha256: _Optional[_Sha256] = Field(
        default=None, description="The sha256 of the image, if it is a SIF at a URL (osdf:// or https://)."
    )
    when: _Optional[_Conditions] = Field(
        default=None,
        description="What the variant needs of a host, separated by commas: an architecture (arm64), an x86-64 level (x86-64-v3),"
        " gpu or nvidia-gpu, and bounds such as cuda>=12.4, capability<9.0 and memory>=64GB. Default: nothing.",
    )


class ListedImage(PublicationKeys):
    """An image: its reference alone, or a mapping with more keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=json_schema.allow_plain_reference)

    platforms: _Optional[_Platforms] = Field(
        default=None, description="The platforms to publish, such as [linux/amd64, linux/arm64]. Default: the list's default."
    )
    formats: _Optional[_Formats] = Field(
        default=None,
        description="The formats to publish: sandbox (a directory on CVMFS), sif (one file on OSDF), or both."
        " Default: the list's default.",
    )
    variants: _Optional[Annotated[list[ListedVariant], _LENGTH]] = Field(
        default=None,
        description="Several builds with this one name. Each host gets the most specific variant whose conditions it meets.",
    )
    owner: _Optional[_Text] = Field(default=None, description="The person or group that is responsible for the image.")
    project: _Optional[_Text] = Field(default=None, description="The project that uses the image.")
    expires: _Optional[_Date] = Field(
        default=None, description="The last day on which the image is published, such as 2027-01-31. Default: no end."
    )
    max_size: _Optional[_Size] = Field(
        default=None,
        description="The largest total size of the image's unpacked files, such as 20 GB. A larger image is not published.",
    )
    private: _Optional[Literal["allowed"]] = Field(
        default=None,
        description="Write allowed to publish an image that cannot be pulled anonymously. Everybody can then read it."
        " The operator has to agree.",
    )
    require: _Optional[Literal["signed"]] = Field(
        default=None,
        description="Write signed to publish only what signed_by has signed; otherwise the last good version stays published.",
    )
    signed_by: _Optional[ListedSigner] = Field(
        default=None, description="Whose signature the image must have: identity and issuer, or public_key."
    )


class ListGroup(_ListPart):
    """A group of images that belong together."""

    title: _Text = Field(description="What the images of the group have in common, such as Linux distributions.")
    images: list[ListedImage] = Field(description="The images: a reference for each, or a mapping for an image with more keys.")


class ListFile(_ListPart):
    """The list of images to publish. Each image is a reference, or a mapping with more keys."""

    version: Literal[1] = Field(description="The version of this file format: 1.")
    defaults: ListDefaults = Field(
        default_factory=ListDefaults, description="Default values: each applies to every image that does not set the key itself."
    )
    images: list[ListedImage] = Field(default=[], description="Images without a group; a short list needs no groups.")
    groups: list[ListGroup] = Field(default=[], description="The images, in groups that belong together.")
