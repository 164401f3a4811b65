from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher import oci
from publisher.errors import UnsupportedError
from publisher.oci import Descriptor, Kind, Platform

DIGEST = "sha256:" + "0a" * 32
OTHER = "sha256:" + "0b" * 32
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
AMD64 = Platform("linux", "amd64")


def described(media_type: str = oci.OCI_CONFIG, digest: object = DIGEST, size: object = 7, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def manifest(**fields: object) -> bytes:
    document: dict[str, object] = {"schemaVersion": 2, "config": described(), "layers": [described(LAYER)]}
    return json.dumps(document | fields).encode()


def index(*entries: dict[str, object], **fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": list(entries)} | fields).encode()


def entry(platform: str | None = "linux/amd64", digest: str = DIGEST, **more: object) -> dict[str, object]:
    described_as = described(str(more.pop("mediaType", oci.OCI_MANIFEST)), digest, **more)
    if platform is None:
        return described_as
    return described_as | {"platform": dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))}


def config(**fields: object) -> bytes:
    document = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}} | fields
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def offered(*platforms: str | None) -> tuple[Descriptor, ...]:
    """Numbered by their sizes, from 1."""
    return oci.parse_index(index(*(entry(platform, size=size) for size, platform in enumerate(platforms, 1))))


# --- what a body is


@pytest.mark.parametrize(
    ("media_type", "body", "kind"),
    [
        (oci.OCI_INDEX, index(), Kind.INDEX),
        (oci.DOCKER_LIST, index(mediaType=oci.DOCKER_LIST), Kind.INDEX),
        (oci.OCI_MANIFEST, manifest(), Kind.MANIFEST),
        (f"{oci.DOCKER_MANIFEST}; charset=utf-8", manifest(), Kind.MANIFEST),
        ("application/json", manifest(), Kind.MANIFEST),
        ("text/plain", index(mediaType=oci.OCI_INDEX), Kind.INDEX),
        ("", index(), Kind.INDEX),
    ],
)
def test_a_body_is_what_it_says_and_looks_like_also_without_a_media_type(media_type: str, body: bytes, kind: Kind) -> None:
    assert oci.kind_of(media_type, body) is kind


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"fsLayers": []}'),
        ("application/vnd.docker.distribution.manifest.v1+json", b"{}"),
        ("", b'{"schemaVersion": 1, "fsLayers": [], "history": []}'),
    ],
)
def test_schema_1_is_refused_by_its_name(media_type: str, body: bytes) -> None:
    with pytest.raises(UnsupportedError, match="schema 1"):
        oci.kind_of(media_type, body)


def test_a_body_that_could_be_read_both_ways_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="both as an index and as an image manifest"):
        oci.kind_of(oci.OCI_MANIFEST, manifest(manifests=[]))


def test_a_body_that_is_not_what_it_calls_itself_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"claims to be '.*index.*', but its fields are those of the kind 'manifest'"):
        oci.kind_of("", manifest(mediaType=oci.OCI_INDEX))


def test_an_artifact_without_config_and_layers_is_refused_with_its_type() -> None:
    with pytest.raises(UnsupportedError, match=r"application/vnd\.example"):
        oci.kind_of("application/vnd.example", b"{}")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 300_000, "nested too deeply"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested too deeply"),
        (b"{", "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        ('{"schemaVersion": 2}'.encode("utf-16"), "not JSON"),
        (b"[]", "not a JSON object"),
        (b" " * (oci.MANIFEST_LIMIT + 1), "the limit is 4194304"),
    ],
)
def test_hostile_json_is_refused_with_a_reason(body: bytes, why: str) -> None:
    for parse in (lambda: oci.kind_of("", body), lambda: oci.parse_index(body), lambda: oci.parse_manifest(body, DIGEST)):
        with pytest.raises(UnsupportedError, match=why):
            parse()


def test_a_config_may_be_larger_than_a_manifest_and_is_bounded_too() -> None:
    labels = {"a": "b" * oci.MANIFEST_LIMIT}
    assert oci.parse_config(config(config={"Labels": labels})).platform == AMD64
    with pytest.raises(UnsupportedError, match="the limit is 8388608"):
        oci.parse_config(b" " * (oci.CONFIG_LIMIT + 1))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([DIGEST, LAYER, oci.OCI_CONFIG]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mediaType", "digest", "size", "platform", "os", "architecture", "annotations", "diff_ids"]), inner
        )
    ),
    max_leaves=8,
)
FIELDS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "os", "architecture", "rootfs", "artifactType"]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_whatever_the_fields_hold_nothing_but_a_refusal_comes_of_it(document: dict[str, object]) -> None:
    body = json.dumps(document).encode()
    for parse in (
        lambda: oci.kind_of("", body),
        lambda: oci.parse_index(body),
        lambda: oci.parse_manifest(body, DIGEST),
        lambda: oci.parse_config(body),
    ):
        with contextlib.suppress(UnsupportedError):
            parse()


# --- indexes


def test_the_images_of_an_index_come_in_its_order() -> None:
    found = oci.parse_index(index(entry("linux/arm64/v8", size=1), entry("linux/amd64", mediaType=oci.DOCKER_MANIFEST, size=2)))
    assert found == (
        Descriptor(oci.OCI_MANIFEST, DIGEST, 1, Platform("linux", "arm64", "v8")),
        Descriptor(oci.DOCKER_MANIFEST, DIGEST, 2, AMD64),
    )


@pytest.mark.parametrize(
    "attached",
    [
        entry("unknown/unknown"),
        entry("linux/amd64", annotations={"vnd.docker.reference.type": "attestation-manifest"}),
        entry(None, artifactType="application/vnd.example.sbom"),
        entry("linux/amd64", mediaType=oci.OCI_INDEX),
        entry("linux/amd64", mediaType="application/vnd.cncf.helm.chart"),
    ],
)
def test_attestations_artifacts_and_inner_indexes_are_passed_over(attached: dict[str, object]) -> None:
    assert [found.digest for found in oci.parse_index(index(attached, entry(digest=OTHER), attached))] == [OTHER]


@pytest.mark.parametrize(
    ("attached", "why"),
    [
        (entry("linux/amd64", mediaType=oci.OCI_INDEX), "has other indexes and no images, .* by the digest of one of them"),
        (entry("linux/amd64", mediaType=oci.DOCKER_LIST), "has other indexes and no images"),
        (entry("unknown/unknown"), "has attestations or other artifacts and no image .*push the image itself"),
        (entry(None, artifactType="application/vnd.example.sbom"), "has attestations or other artifacts and no image"),
    ],
)
def test_an_index_without_an_image_says_what_it_has(attached: dict[str, object], why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        oci.parse_index(index(attached, attached))


def test_layers_of_other_compressions_say_what_to_push() -> None:
    layer = described("application/vnd.oci.image.layer.v1.tar+bzip2")
    body = json.dumps({"config": described(oci.OCI_CONFIG), "layers": [layer]}).encode()
    with pytest.raises(
        UnsupportedError, match=r"tar\+bzip2' \(the image's owner has to push it with layers that are .* gzip or zstd"
    ):
        oci.parse_manifest(body, DIGEST)


def test_an_index_that_go_wrote_without_entries_is_an_empty_one() -> None:
    assert oci.parse_index(b'{"schemaVersion": 2, "manifests": null}') == ()


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"manifests": {}}, "are not a list"),
        ({"manifests": [7]}, "entry 1 of the index is missing or not an object"),
        ({"manifests": [entry(), described(size=-1)]}, "entry 2 of the index has no valid size"),
        ({"manifests": [described(size=True)]}, "has no valid size"),
        ({"manifests": [described(digest="sha256:0A" + "0a" * 31)]}, "no valid digest"),
        ({"manifests": [described(digest=DIGEST + "\n")]}, "no valid digest"),
        ({"manifests": [described(digest="sha512:" + "0a" * 64)]}, "a sha512 digest: only sha256"),
        ({"manifests": [described(platform="linux/amd64")]}, "platform that is not an object"),
        ({"manifests": [described(platform={"os": "linux", "architecture": 64})]}, "a part that is not a short string"),
        ({"manifests": [described() | {"mediaType": 1}]}, "mediaType that is not a string"),
    ],
)
def test_an_unsound_index_is_refused_with_the_place(broken: dict[str, object], why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        oci.parse_index(index(**broken))


# --- platforms


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 2),
        ("linux/amd64", ["windows/amd64", "linux/amd64"], 2),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 2),
        ("linux/amd64", ["linux/386", "linux/amd64/v1"], 2),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 2),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], 2),
        ("linux/arm64/v8", ["linux/arm64"], 1),
        ("linux/arm", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], 3),
        ("linux/arm/v6", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], 2),
        ("linux/arm/v6", ["linux/arm/v5", "linux/arm/v7"], 1),
        ("linux/amd64", ["linux/x86_64"], 1),
        ("linux/arm64", ["linux/aarch64"], 1),
        ("linux/riscv64", ["linux/riscv64/rva23"], None),
        ("linux/riscv64/rva23", ["linux/riscv64", "linux/riscv64/rva23"], 2),
        ("linux/amd64", [None], 1),
        ("linux/amd64", [None, "linux/arm64"], None),
        ("linux/amd64", ["linux/amd64/v2"], None),
        ("linux/amd64", [], None),
    ],
)
def test_the_platform_is_chosen_as_containerd_does(wanted: str, there: list[str | None], chosen: int | None) -> None:
    platform = Platform(*wanted.split("/"))
    if chosen is None:
        with pytest.raises(UnsupportedError, match=f"no image for {wanted}"):
            oci.choose_platform(offered(*there), platform)
    else:
        assert oci.choose_platform(offered(*there), platform).size == chosen


def test_a_refusal_lists_what_there_is() -> None:
    with pytest.raises(UnsupportedError, match=r"\(it has linux/arm64/v8, linux/s390x\)$"):
        oci.choose_platform(offered("linux/s390x", "linux/arm64/v8"), AMD64)
    with pytest.raises(UnsupportedError, match=r"\(it has no image at all\)$"):
        oci.choose_platform((), AMD64)


def test_an_image_is_refused_when_its_own_config_is_of_another_platform() -> None:
    arm = oci.parse_config(config(architecture="arm64", variant="v8"))
    oci.check_platform(arm, Platform("linux", "arm64"))
    with pytest.raises(UnsupportedError, match=r"for linux/arm64/v8, not for linux/amd64 \(under platforms:"):
        oci.check_platform(arm, AMD64)
    with pytest.raises(
        UnsupportedError, match=r"for linux/amd64/v3, not for linux/amd64 \(under platforms:, name linux/amd64/v3"
    ):
        oci.check_platform(oci.parse_config(config(variant="v3")), AMD64)


# --- manifests


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_layers_of_every_kind_are_taken_in_order(media_type: str) -> None:
    layers = [described(media_type, OTHER, 5, urls=["https://example.org/layer"]), described(media_type, DIGEST, 0)]
    parsed = oci.parse_manifest(manifest(layers=layers), OTHER)
    assert parsed.digest == OTHER
    assert parsed.media_type == oci.OCI_MANIFEST
    assert parsed.config == Descriptor(oci.OCI_CONFIG, DIGEST, 7)
    assert parsed.layers == (Descriptor(media_type, OTHER, 5), Descriptor(media_type, DIGEST, 0))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"config": described("application/vnd.cncf.helm.config.v1+json")}, r"an artifact of the type .*helm"),
        (
            {"config": described("application/vnd.oci.empty.v1+json"), "artifactType": "a/signature"},
            "artifact of the type 'a/sig",
        ),
        ({"config": described("application/octet-stream")}, "an artifact of the type 'application/octet-stream'"),
        ({"config": None}, "the manifest's config is missing"),
        ({"config": described(size=oci.CONFIG_LIMIT + 1)}, "config has 8388609 bytes"),
        (
            {"layers": [described(LAYER), described("application/vnd.in-toto+json")]},
            r"layer 2 is not a tar archive but .*in-toto",
        ),
        ({"layers": [described(LAYER + "+encrypted")]}, "layer 1 is not a tar archive"),
        ({"layers": [{"mediaType": LAYER, "size": 1}]}, "layer 1 has no valid digest"),
        ({"layers": "all"}, "layers are not a list"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(fields: dict[str, object], why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        oci.parse_manifest(manifest(**fields), DIGEST)


@pytest.mark.parametrize("media_type", ["application/octet-stream", "text/html", ""])
def test_docker_manifests_may_misname_their_config(media_type: str) -> None:
    body = manifest(mediaType=oci.DOCKER_MANIFEST, config=described(media_type))
    assert oci.parse_manifest(body, DIGEST).media_type == oci.DOCKER_MANIFEST


# --- configs


def test_a_config_keeps_its_bytes_and_gets_go_s_name_for_the_architecture() -> None:
    raw = config(architecture="x86_64", config={"Env": ["A=1"]})
    assert oci.parse_config(raw) == oci.ImageConfig(AMD64, (DIGEST,), raw)
    assert oci.parse_config(config(architecture="armel")).platform == Platform("linux", "arm", "v6")


@pytest.mark.parametrize(
    "fields",
    [
        {"history": "none"},
        {"history": [{"created": 7}, None]},
        {"rootfs": {"type": 7, "diff_ids": [DIGEST]}},
        {"rootfs": {"type": "layers+base", "diff_ids": [DIGEST]}},
    ],
)
def test_what_is_not_read_of_a_config_may_be_malformed(fields: dict[str, object]) -> None:
    assert oci.parse_config(config(**fields)).diff_ids == (DIGEST,)


def test_an_image_may_have_no_layers() -> None:
    bare = oci.parse_config(config(rootfs={"type": "layers", "diff_ids": None}))
    assert oci.join(oci.parse_manifest(manifest(layers=[]), OTHER), bare).config.diff_ids == ()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"os": "windows"}, "operating system 'windows', not for linux"),
        ({"os": ...}, r"has no operating system \(its owner"),
        ({"architecture": ...}, "has no architecture"),
        ({"architecture": ""}, "has no architecture"),
        ({"rootfs": ...}, "no rootfs"),
        ({"rootfs": {"diff_ids": ["abc"]}}, "a diff_id of the config has no valid digest"),
        ({"rootfs": {"diff_ids": DIGEST}}, "are not a list"),
    ],
)
def test_a_config_that_cannot_be_published_is_refused_with_the_reason(fields: dict[str, object], why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        oci.parse_config(config(**fields))


def test_manifest_and_config_must_speak_of_the_same_number_of_layers() -> None:
    parsed = oci.parse_manifest(manifest(), OTHER)
    image = oci.join(parsed, oci.parse_config(config()))
    assert (image.manifest, image.platform) == (parsed, AMD64)
    with pytest.raises(UnsupportedError, match="manifest has 1 layers, its config 2 diff_ids"):
        oci.join(parsed, oci.parse_config(config(rootfs={"diff_ids": [DIGEST, OTHER]})))
