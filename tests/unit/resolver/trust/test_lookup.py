from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.contract.conditions import HostCapacity
from publisher.contract.errors import ExpectedError, InvalidReferenceError
from publisher.contract.records import BLOCKED, SUPERSEDED, Record
from publisher.resolver.config import machine
from publisher.resolver.errors import ArchitectureError, BlockedError, UnknownImageError, VariantError
from publisher.resolver.trust import lookup
from tests.support.ep.execution_point import digest, record, sif_content, sif_of, version

if TYPE_CHECKING:
    from publisher.resolver.trust.lookup import FoundVersion

ROOTS = ("/cvmfs/images.example.org", "/mnt/images")
OLD, NEW, ARM = version("old", state=SUPERSEDED), version("new"), version("arm")
ROCKY = record("htc/rocky:9", amd64=[NEW, OLD], arm64=[ARM])
DEBIAN = record("library/debian:12", "docker.io/library/debian:12")
LATEST = record("htc/rocky:latest")
OTHER = record("htc/gone:1", amd64=[version("bad", state=BLOCKED, reason="malware"), version("good", state=SUPERSEDED)])
ALMA = record("library/alma:9")
NESTED = record("ghcr.io/a/b:1", "ghcr.io/a/b:1")


def known(*records: Record) -> dict[str, Record]:
    return {key: one for one in records for key in (*one.aliases(), one.name)}


def unread() -> HostCapacity:
    """What the host offers must not be asked for images without variants."""
    raise AssertionError


def find(text: str, arch: str = "amd64") -> FoundVersion:
    keys = known(ROCKY, DEBIAN, ALMA, LATEST, OTHER, NESTED)
    return lookup.find_version(lookup.parse_query(text, ROOTS), arch, keys.get, unread)


@pytest.mark.parametrize(
    "text",
    [
        "/cvmfs/images.example.org/htc/rocky:9",
        "/cvmfs/images.example.org//htc/rocky:9/",
        "/mnt/images/htc/rocky:9",
        "/mnt/./images/./htc//rocky:9/.",
        "htc/rocky:9",
        "docker://hub.example.org/htc/rocky:9",
        "hub.example.org/htc/rocky:9",
        digest("new"),
        digest("index of htc/rocky:9"),
        f"htc/rocky@{digest('new')}",
        f"docker://ghcr.io/elsewhere/rocky:9@{digest('new')}",
        f"sha256:{sif_of(sif_content('new')).sha256}",
        f"/cvmfs/images.example.org/{NEW.sandbox}",
        f"/mnt/images/{NEW.sandbox}/",
    ],
)
def test_every_spelling_leads_to_the_image(text: str) -> None:
    found = find(text)
    assert (found.name, found.arch, found.version) == ("htc/rocky:9", "amd64", NEW)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("htc/rocky", "htc/rocky:latest"),
        ("/cvmfs/images.example.org/htc/rocky", "htc/rocky:latest"),
        ("docker://hub.example.org/htc/rocky", "htc/rocky:latest"),
        ("debian:12", "library/debian:12"),
        ("docker://debian:12", "library/debian:12"),
        ("alma:9", "library/alma:9"),
        ("docker.io/library/debian:12", "library/debian:12"),
        ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
    ],
)
def test_defaults_of_names_are_those_of_references(text: str, name: str) -> None:
    assert find(text).name == name


@pytest.mark.parametrize("text", ["docker://htc/rocky:9", "docker://docker.io/htc/rocky:9", "docker://ghcr.io/htc/rocky:9"])
def test_a_reference_never_leads_to_another_registrys_image(text: str) -> None:
    with pytest.raises(UnknownImageError):
        find(text)


@pytest.mark.parametrize(
    "text",
    [digest("old"), f"/mnt/images/{OLD.sandbox}", f"sha256:{sif_of(sif_content('old')).sha256}", f"htc/rocky:9@{digest('old')}"],
)
def test_a_digest_leads_to_that_very_version_after_the_tag_has_moved(text: str) -> None:
    assert find(text).version is OLD


def test_the_digest_of_a_config_leads_to_an_image_with_it() -> None:
    """It is the one that a SIF has in its labels, and ``docker images`` shows."""
    one = record("n:1", amd64=[version("n", config=digest("config"))])
    want = lookup.parse_query(digest("config"), ROOTS)
    assert lookup.find_version(want, "amd64", dict.fromkeys(one.aliases(), one).get, unread).version is one.current("amd64")


def test_the_machine_decides_among_architectures() -> None:
    assert find("htc/rocky:9", "arm64").version is ARM
    assert find("/mnt/images/.arch/arm64/htc/rocky:9").version is ARM
    assert find(digest("arm"), "arm64").version is ARM


def test_an_architecture_with_a_variant_has_two_parts_in_a_path() -> None:
    seven = Record("v2/x:1", "hub.example.org/v2/x:1", digest("index"), {"arm/v7": [version("seven")]})
    want = lookup.parse_query("/mnt/images/.arch/arm/v7/v2/x:1", ROOTS)
    assert lookup.find_version(want, "amd64", known(seven).get, unread).arch == "arm/v7"


def test_a_missing_architecture_is_reported_with_the_available_ones() -> None:
    with pytest.raises(UnknownImageError, match=r"htc/rocky:9 is not published for s390x \(it is published for amd64, arm64\)"):
        find("htc/rocky:9", "s390x")
    with pytest.raises(UnknownImageError, match="for arm64, but this machine is amd64"):
        find(digest("arm"))
    with pytest.raises(UnknownImageError, match="no longer published for any architecture"):
        lookup.find_version(lookup.parse_query("n:1", ROOTS), "amd64", known(record("n:1", amd64=[OLD])).get, unread)


@pytest.mark.parametrize("text", ["htc/gone:1", digest("bad"), "docker://hub.example.org/htc/gone:1"])
def test_a_blocked_image_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(BlockedError, match="blocked: malware") as failure:
        find(text)
    assert failure.value.exit_code == 1


def test_a_good_version_of_a_blocked_name_is_found_by_its_digest() -> None:
    assert find(digest("good")).version.digest == digest("good")


def test_an_alias_whose_version_is_gone_never_leads_to_another_one() -> None:
    want = lookup.parse_query(digest("vanished"), ROOTS)
    with pytest.raises(UnknownImageError, match="no longer a version of htc/rocky:9"):
        lookup.find_version(want, "amd64", {digest("vanished"): ROCKY}.get, unread)


@pytest.mark.parametrize("text", ["", "a\nb", "/cvmfs/images.example.org/a\x1b", "sha256:\udcff", "docker://A", "a@sha256:1"])
def test_an_invalid_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        find(text)


@pytest.mark.parametrize(
    "text", ["/cvmfs/other.example.org/htc/rocky:9", "/cvmfs/images.example.organic/a:1", "./htc/rocky:9", "/a"]
)
def test_a_path_outside_the_repository_is_refused(text: str) -> None:
    with pytest.raises(UnknownImageError, match=r"is not in the repository /cvmfs/images\.example\.org"):
        find(text)


@pytest.mark.parametrize(
    "text", ["htc/rocky:8", "nothing", "sha256:12", "/mnt/images/.images/ab/cd", "/mnt/images/.arch/arm64", "A:1"]
)
def test_an_unknown_image_is_the_users_error(text: str) -> None:
    with pytest.raises(ExpectedError, match=r"no image .* is published") as failure:
        find(text)
    assert failure.value.exit_code == 1
    assert failure.value.hint


def test_machines_have_gos_names() -> None:
    machines = ["x86_64", "aarch64", "armv7l", "riscv64", "s390x"]
    assert [machine.go_name(one) for one in machines] == ["amd64", "arm64", "arm/v7", "riscv64", "s390x"]


RIFT = Record(
    "rift/rift:1",
    "hub.example.org/rift/rift:1",
    digest("rift"),
    {
        "amd64": [version("plain")],
        "amd64,x86-64-v3": [version("v3")],
        "amd64,x86-64-v3,cuda>=12.0": [version("cuda12")],
        "amd64,x86-64-v3,cuda>=14.0": [version("bad", state=BLOCKED, reason="malware")],
        "arm64,gpu": [version("arm")],
        "amd64,x86-64-v4": [version("left", state=SUPERSEDED)],
    },
)


def choose(host: HostCapacity, text: str = "rift/rift:1", record: Record = RIFT) -> FoundVersion:
    return lookup.find_version(lookup.parse_query(text, ROOTS), host.arch, known(record).get, lambda: host)


@pytest.mark.parametrize(
    ("host", "variant"),
    [
        (HostCapacity("amd64", 1), "amd64"),
        (HostCapacity("amd64", 4), "amd64,x86-64-v3"),
        (HostCapacity("amd64", 2, gpu="nvidia", quantities={"cuda": 124}), "amd64"),
        (HostCapacity("amd64", 3, gpu="nvidia", quantities={"cuda": 124}), "amd64,x86-64-v3,cuda>=12.0"),
        (HostCapacity("amd64", 3, gpu="nvidia"), "amd64,x86-64-v3"),
        (HostCapacity("arm64", gpu="other"), "arm64,gpu"),
    ],
)
def test_a_host_gets_the_most_specific_variant_that_it_can_run(host: HostCapacity, variant: str) -> None:
    found = choose(host)
    assert (found.variant, found.arch) == (variant, host.arch)
    assert found.version is RIFT.platforms[variant][0]


def test_a_host_whose_best_variant_is_blocked_gets_no_other() -> None:
    with pytest.raises(BlockedError, match="malware"):
        choose(HostCapacity("amd64", 4, gpu="nvidia", quantities={"cuda": 140}))


def test_no_variant_for_a_host_says_for_each_what_it_needs() -> None:
    family = record("rift/rift:1", **{"amd64,x86-64-v4": [version("a")], "amd64,nvidia-gpu": [version("b")]})
    with pytest.raises(VariantError) as refused:
        choose(HostCapacity("amd64", 3), record=family)
    assert refused.value.reason == (
        "no variant of rift/rift:1 is for this host: amd64,nvidia-gpu: it needs a GPU of NVIDIA, and the job has none;"
        " amd64,x86-64-v4: it needs x86-64-v4, and this host has x86-64-v3"
    )
    with pytest.raises(ArchitectureError, match="not published for riscv64"):
        choose(HostCapacity("riscv64"), record=family)


def test_a_condition_that_a_newer_publisher_wrote_is_not_met() -> None:
    family = record("rift/rift:1", **{"amd64": [version("a")], "amd64,npu": [version("b")]})
    assert choose(HostCapacity("amd64", 3), record=family).variant == "amd64"
    only = record("rift/rift:1", **{"amd64,npu": [version("b")]})
    with pytest.raises(VariantError, match="amd64,npu: this version of image-resolver does not know its conditions"):
        choose(HostCapacity("amd64", 3), record=only)


def test_a_digest_means_one_build_whatever_the_host_offers() -> None:
    weak = HostCapacity("amd64", 1)
    sif = sif_of(sif_content("cuda12")).sha256
    sandbox = RIFT.platforms["amd64,x86-64-v3,cuda>=12.0"][0].sandbox
    for text in (digest("cuda12"), f"sha256:{sif}", f"/mnt/images/{sandbox}"):
        assert choose(weak, text).version.digest == digest("cuda12")
    strong = HostCapacity("amd64", 4)
    assert choose(strong, RIFT.digest).variant == "amd64", "the digest of the name means its build without conditions"
    assert choose(weak, "/mnt/images/.arch/amd64,x86-64-v3/rift/rift:1").variant == "amd64,x86-64-v3"
    with pytest.raises(ArchitectureError):
        choose(strong, digest("arm"))


def test_an_image_without_variants_has_none() -> None:
    assert find("htc/rocky:9").variant is None
