from __future__ import annotations

import hashlib
from functools import partial

import pytest

from publisher.contract.records import Record, Sif, Version
from publisher.errors import DeniedError, NotFoundError, PublisherError, UnavailableError
from publisher.maintain.adoption import judge as adoption
from publisher.maintain.adoption import throttle
from publisher.maintain.adoption.judge import (
    LinkVerdict,
    OldLink,
    adopt_unresolved,
    find_old_links,
    judge_listed,
    judge_unlisted,
    old_sandbox_path,
)
from publisher.maintain.adoption.throttle import BatchQuota
from publisher.oci import Descriptor, ImageManifest
from publisher.plan.make import make_plan
from publisher.plan.model import Action, Plan, ResolvedReference, UnlistedPattern
from publisher.state.snapshot import Snapshot
from tests.support.publisher.built_values import AMD64, ARM64, digest, entry

NOW = 1_800_000_000
FQRN = "singularity.opensciencegrid.org"
LAYERS = ("3cd3f1b6" * 8, "a01aa4ed" * 8)
BY_LAYERS = hashlib.sha256(("3cd3f1b6" * 8 + "a01aa4ed" * 8).encode()).hexdigest()


def image(name: str = "one", layers: tuple[str, ...] = LAYERS) -> ImageManifest:
    of_layers = tuple(Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", f"sha256:{layer}", 1) for layer in layers)
    config = Descriptor("application/vnd.oci.image.config.v1+json", digest("config"), 1)
    return ImageManifest(digest(name), "application/vnd.oci.image.manifest.v1+json", config, of_layers)


def link(content: str = BY_LAYERS, index: bool = False, name: str = "htc/rocky:9") -> OldLink:
    return OldLink(name, f".images/{'sha256:' if index else ''}{content[:2]}/{content[2:]}")


def test_the_older_tools_links_are_told_apart_from_others() -> None:
    layers, index = "4f" + "8" * 62, "9b" + "c" * 62
    links = {
        "htc/rocky:9": f"/cvmfs/{FQRN}/.images/4f/{layers[2:]}",
        "lscsoft/lalsuite/lalsuite-v6.53:stretch": f"/cvmfs/{FQRN}/.images/sha256:9b/{index[2:]}",
        "htc/given/back:1": f"../../.images/4f/{layers[2:]}",
        "htc/nowhere:1": f"../../.images/4f/{layers[2:]}",
        ".arch/arm64/htc/rocky:9": f"../../../.images/4f/{layers[2:]}",
        "htc/elsewhere:1": f"/cvmfs/other.example.org/.images/4f/{layers[2:]}",
        "htc/short:1": f"/cvmfs/{FQRN}/.images/4f/888",
        "htc/up:1": f"/cvmfs/{FQRN}/.images/../4f/{layers[2:]}",
        "readme": f"/cvmfs/{FQRN}/.images/4f/{layers[2:]}",
    }
    found = find_old_links(links, FQRN)
    assert [(one.name, one.digest) for one in found] == [
        ("htc/rocky:9", f"sha256:{layers}"),
        ("lscsoft/lalsuite/lalsuite-v6.53:stretch", f"sha256:{index}"),
        ("htc/given/back:1", f"sha256:{layers}"),
    ]
    assert found[1].sandbox == f".images/sha256:9b/{index[2:]}"


def test_the_old_hash_is_of_the_ordered_layers_or_of_the_index() -> None:
    assert old_sandbox_path(image(), None) == f".images/{BY_LAYERS[:2]}/{BY_LAYERS[2:]}"
    assert old_sandbox_path(image(layers=LAYERS[::-1]), None) != old_sandbox_path(image(), None)
    index = digest("index")
    assert old_sandbox_path(image(), index) == f".images/sha256:{index[7:9]}/{index[9:]}"


def test_an_image_with_the_old_hash_is_current_under_its_true_digest() -> None:
    judged = judge_listed(
        link(), entry("htc/rocky:9"), ResolvedReference(digest("one"), {AMD64: digest("one")}), {AMD64: image()}, NOW
    )
    assert judged.verdict is LinkVerdict.CURRENT
    assert judged.record is not None
    assert judged.record.reference == "docker.io/htc/rocky:9"
    (version,) = judged.record.platforms["amd64"]
    assert (version.digest, version.sandbox, version.sif) == (digest("one"), link().sandbox, None)
    plan = planned(judged.record)
    assert (plan.items[0].action, plan.items[0].targets[0].adopted) == (Action.EXTENDED, version), "it wants its SIF"
    assert plan.items[0].reason.endswith("is current as it was adopted, and gets its SIF")


def test_the_older_tool_took_the_amd64_image_of_an_index() -> None:
    answer = ResolvedReference(digest("index"), {ARM64: digest("arm"), AMD64: digest("one")})
    images = {ARM64: image("arm"), AMD64: image("one")}
    judged = judge_listed(link(digest("index")[7:], index=True), entry("htc/rocky:9", [ARM64, AMD64]), answer, images, NOW)
    assert judged.record is not None
    assert [(platform, version.digest) for platform, version in judged.record.versions()] == [("amd64", digest("one"))]


def test_a_tag_with_only_another_architecture_is_adopted_for_that() -> None:
    one = entry("cmssw/cms:rhel9-aarch64", [ARM64])
    judged = judge_listed(
        link(name=one.name), one, ResolvedReference(digest("arm"), {ARM64: digest("arm")}), {ARM64: image("arm")}, NOW
    )
    assert judged.record is not None
    assert list(judged.record.platforms) == ["arm64"]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (ResolvedReference(digest("new"), {AMD64: digest("new")}), LinkVerdict.OUTDATED),
        (NotFoundError("there is none"), LinkVerdict.OUTDATED),
        (DeniedError("it is private"), LinkVerdict.OUTDATED),
        (UnavailableError("it is down"), LinkVerdict.UNKNOWN),
    ],
)
def test_an_outdated_link_is_adopted_under_its_old_hash_and_an_unknown_one_is_not(
    answer: ResolvedReference | PublisherError, verdict: LinkVerdict
) -> None:
    rocky = entry("htc/rocky:9")
    judged = judge_listed(link(), rocky, answer, {AMD64: image(layers=LAYERS[:1])}, NOW)
    assert judged.verdict is verdict
    assert (judged.record is None) is (verdict is LinkVerdict.UNKNOWN)
    taken = judged if judged.record is not None else adopt_unresolved(judged, rocky, NOW)
    assert taken.record is not None
    (version,) = taken.record.platforms["amd64"]
    assert (version.digest, version.sandbox) == (f"sha256:{BY_LAYERS}", link().sandbox)
    plan = planned(taken.record)
    assert (plan.items[0].action, plan.items[0].targets[0].adopted) == (Action.CHANGED, None), "a sync builds what there is now"


def test_an_unavailable_image_manifest_gives_no_verdict() -> None:
    said = ResolvedReference(digest("one"), {AMD64: digest("one")})
    assert judge_listed(link(), entry("htc/rocky:9"), said, UnavailableError("it is down"), NOW).verdict is LinkVerdict.UNKNOWN


def test_an_unlisted_name_is_adopted_and_one_of_an_unlistable_wildcard_is_not() -> None:
    judged = judge_unlisted(link(), [], NOW)
    assert judged.record is not None
    assert judged.record.reference == f"{adoption.UNKNOWN_SOURCE}/htc/rocky:9"
    waiting = UnlistedPattern("docker.io/htc/rocky:*", lambda name: name.startswith("htc/rocky:"), UnavailableError("it is down"))
    assert judge_unlisted(link(), [waiting], NOW).record is None
    removed = make_plan([], {}, Snapshot(FQRN, 1, records={judged.record.name: judged.record}), allow_mass_removal=True)
    assert [one.name for one in removed.removals] == ["htc/rocky:9"], "it leaves like any other that the list does not have"


# --- the batch quota of their SIFs


def planned(record: Record) -> Plan:
    snapshot = Snapshot(FQRN, 1, records={record.name: record})
    one = entry(record.reference)
    return make_plan([one], {one.name: ResolvedReference(digest("one"), {AMD64: digest("one")})}, snapshot)


def adopted(number: int, sif: Sif | None = None) -> Record:
    text = f"image {number}"
    sandbox = link(digest(f"old {number}")[7:]).sandbox
    version = Version(digest(text), sandbox=sandbox, sif=sif, published=NOW)
    return Record(f"a/{number}:1", f"docker.io/a/{number}:1", digest(text), {"amd64": [version]})


def published_names(count: int, quota: BatchQuota, done: int = 0) -> list[str]:
    entries = [entry(f"a/{number}:1") for number in range(count)]
    answers = {f"a/{n}:1": ResolvedReference(digest(f"image {n}"), {AMD64: digest(f"image {n}")}) for n in range(count)}
    sif = partial(Sif, size=1)
    records = {f"a/{n}:1": adopted(n, sif(f"sif/{n}.sif", "0" * 64) if n < done else None) for n in range(count)}
    plan = throttle.throttle_adopted(make_plan(entries, answers, Snapshot(FQRN, 1, records=records)), quota)
    assert {item.action for item in plan.items} <= {Action.EXTENDED, Action.UNCHANGED}
    return [item.entry.name for item in plan.work]


def test_the_quota_limits_the_sifs_of_adopted_images_in_a_run() -> None:
    assert published_names(5, BatchQuota(2, 0)) == ["a/0:1", "a/1:1"]
    assert published_names(5, BatchQuota(2, 0), done=2) == ["a/2:1", "a/3:1"]
    assert published_names(5, BatchQuota(9, 0)) == [f"a/{number}:1" for number in range(5)]


def test_an_item_with_other_changes_is_not_throttled() -> None:
    one = entry("a/0:1")
    both = adopted(0).platforms["amd64"]
    record = Record("a/0:1", "docker.io/a/0:1", digest("image 0"), {"amd64": both, "arm64": both})
    answers = {"a/0:1": ResolvedReference(digest("image 0"), {AMD64: digest("image 0")})}
    plan = make_plan([one], answers, Snapshot(FQRN, 1, records={"a/0:1": record}))
    assert [item.leaving for item in throttle.throttle_adopted(plan, BatchQuota(0, 0)).work] == [("arm64",)]


def test_images_that_always_fail_do_not_hold_up_the_others() -> None:
    tried = {name for day in range(5) for name in published_names(5, BatchQuota(2, day))}
    assert tried == {f"a/{number}:1" for number in range(5)}
