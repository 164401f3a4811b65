from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract import manifest
from publisher.contract.records import Record
from publisher.errors import PublishedManifestError
from publisher.plan.make import make_plan
from publisher.state import snapshot as snapshots
from publisher.state import transitions
from publisher.state.signing import PublicKey, Signer, new_key
from publisher.state.snapshot import Snapshot
from tests.support.publisher.built_values import AMD64, ARM64, answer, carried_out, digest, entry

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.state.snapshot import Revision

NOW = 1_800_000_000
REPOSITORY = "images.example.org"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    path = tmp_path_factory.mktemp("keys") / "key"
    new_key(path)
    return Signer(path)


class _Signer(Signer):
    """Signs nothing: signatures are not what is looked at."""

    def __init__(self) -> None: ...

    def sign(self, payload: bytes) -> dict[str, bytes]:
        return {"none": payload[:0]}


def filled(*names: str) -> Snapshot:
    entries = [entry(name, [AMD64, ARM64]) for name in names]
    answers = {one.name: answer(one.name, [AMD64, ARM64]) for one in entries}
    return carried_out(make_plan(entries, answers, Snapshot(REPOSITORY)), Snapshot(REPOSITORY), NOW)


def files_of(revision: Revision) -> dict[str, bytes]:
    return {**revision.shards, manifest.INDEX_NAME: revision.index}


def test_an_edition_reads_back_as_the_catalog_it_was_made_of(signer: Signer) -> None:
    revision = snapshots.make_revision(filled("htc/rocky:9", "htc/debian:12"), signer, serial=7, now=NOW)
    back = snapshots.load(files_of(revision).get, REPOSITORY, [signer.public])
    assert back is not None
    assert (back.serial, back.generated, back.expires) == (7, NOW, NOW + 14 * 86400)
    written = {name: record.to_json() for name, record in revision.snapshot.records.items()}
    assert {name: record.to_json() for name, record in back.records.items()} == written
    assert sorted(written) == ["htc/debian:12", "htc/rocky:9"]


name_lists = st.lists(st.sampled_from([f"a/image-{number}:1" for number in range(6)]), max_size=4, unique=True)


@pytest.mark.untraced
@given(st.lists(st.tuples(name_lists, name_lists, name_lists, st.sampled_from("xyz")), min_size=1, max_size=4))
def test_an_edition_of_what_changed_is_that_of_the_whole(steps: list[tuple[list[str], list[str], list[str], str]]) -> None:
    """The images' content comes and goes among names, and with it the aliases that they share; names end to mean something."""
    snapshot, published = Snapshot(REPOSITORY), dict[str, bytes]()
    for serial, (new, ended, gone, content) in enumerate(steps, 1):
        entries = [entry(name, [AMD64, ARM64]) for name in new]
        plan = make_plan(entries, {name: answer(content, [AMD64, ARM64]) for name in new}, snapshot, whole=False)
        snapshot = carried_out(plan, snapshot, NOW + serial)
        over = {name: transitions.expire(snapshot.records[name], NOW, NOW) for name in ended if name in snapshot.records}
        snapshot = snapshot.with_records({name: transitions.supersede_expired(one, NOW) for name, one in over.items()}).without(
            gone
        )
        if not snapshot.touched:
            continue
        whole = snapshots.make_revision(Snapshot(REPOSITORY, records=snapshot.records), _Signer(), serial=serial, now=NOW)
        revision = snapshots.make_revision(snapshot, _Signer(), serial=serial, now=NOW)
        published |= revision.shards
        assert revision.snapshot.shards == whole.snapshot.shards
        assert whole.shards.items() <= published.items(), "and what was not made anew is there"
        snapshot = revision.snapshot


def test_what_did_not_change_is_not_made_anew_and_all_is_where_nothing_did(signer: Signer) -> None:
    first = snapshots.make_revision(filled(*(f"a/image-{number}:1" for number in range(50))), signer, serial=1, now=NOW).snapshot
    changed = first.with_records({"a/image-0:1": transitions.expire(first.records["a/image-0:1"], NOW, NOW + 1)})
    assert changed.touched == {manifest.shard_number("a/image-0:1", manifest.SHARDS)}, "its aliases still mean the name"
    assert len(snapshots.make_revision(changed, signer, serial=2, now=NOW).shards) == 1
    again = snapshots.make_revision(first, signer, serial=2, now=NOW)
    assert {manifest.shard_name(one) for one in first.shards if one is not None} == again.shards.keys()


def test_every_key_is_found_in_the_one_shard_it_hashes_into(signer: Signer) -> None:
    snapshot = filled("htc/rocky:9", "hub.example.org/htc/debian:12")
    revision = snapshots.make_revision(snapshot, signer, serial=1, now=NOW)
    index = manifest.Index.parse(manifest.unseal(revision.index)[0], REPOSITORY)
    for record in snapshot.records.values():
        for key in [record.name, *record.aliases()]:
            sha256 = index.shard_for(key)
            assert sha256 is not None
            shard = manifest.Shard.parse(revision.shards[manifest.shard_name(sha256)], sha256)
            assert shard.records.get(key, {}).get("reference") == record.reference or shard.aliases[key] == record.name
    assert "docker://hub.example.org/htc/debian:12" in snapshot.records["htc/debian:12"].aliases()


def test_a_change_touches_only_the_shards_it_is_in(signer: Signer) -> None:
    before = snapshots.make_revision(filled("htc/rocky:9"), signer, serial=1, now=NOW)
    after = snapshots.make_revision(filled("htc/rocky:9", "htc/debian:12"), signer, serial=2, now=NOW)
    keys = len({"htc/debian:12", *filled("htc/debian:12").records["htc/debian:12"].aliases()})
    assert 0 < len(set(after.shards) - set(before.shards)) <= keys


def test_nothing_published_is_no_catalog(signer: Signer) -> None:
    assert snapshots.load(lambda _: None, REPOSITORY, [signer.public]) is None


def test_an_empty_catalog_can_be_published(signer: Signer) -> None:
    revision = snapshots.make_revision(Snapshot(REPOSITORY), signer, serial=1, now=NOW)
    back = snapshots.load(files_of(revision).get, REPOSITORY, [signer.public])
    assert back is not None
    assert not back.records


def test_a_manifest_that_somebody_else_signed_stops_the_run(signer: Signer, tmp_path: Path) -> None:
    other = new_key(tmp_path / "other")
    revision = snapshots.make_revision(filled("htc/rocky:9"), signer, serial=1, now=NOW)
    with pytest.raises(PublishedManifestError, match="not signed by this publisher's key"):
        snapshots.load(files_of(revision).get, REPOSITORY, [other])
    assert snapshots.load(files_of(revision).get, REPOSITORY, [other, signer.public]) is not None
    assert snapshots.load(files_of(revision).get, REPOSITORY, None) is not None


def test_another_repositorys_manifest_is_refused(signer: Signer) -> None:
    revision = snapshots.make_revision(filled("htc/rocky:9"), signer, serial=1, now=NOW)
    with pytest.raises(PublishedManifestError, match=r"images\.example\.org"):
        snapshots.load(files_of(revision).get, "other.example.org", [signer.public])


def test_a_missing_or_altered_shard_is_told(signer: Signer) -> None:
    revision = snapshots.make_revision(filled("htc/rocky:9"), signer, serial=1, now=NOW)
    name = next(iter(revision.shards))
    missing = {key: content for key, content in files_of(revision).items() if key != name}
    with pytest.raises(PublishedManifestError, match="lacks its shard"):
        snapshots.load(missing.get, REPOSITORY, [signer.public])
    altered = files_of(revision) | {name: revision.shards[name].replace(b"schema", b"Schema")}
    with pytest.raises(PublishedManifestError, match="does not match its sha256"):
        snapshots.load(altered.get, REPOSITORY, [signer.public])


def test_the_serial_elsewhere_counts_only_when_it_is_ours(signer: Signer, tmp_path: Path) -> None:
    revision = snapshots.make_revision(filled("htc/rocky:9"), signer, serial=41, now=NOW)
    keys: list[PublicKey] = [signer.public]
    assert snapshots.read_index(revision.index, REPOSITORY, keys).serial == 41
    with pytest.raises(PublishedManifestError):
        snapshots.read_index(revision.index, REPOSITORY, [new_key(tmp_path / "other")])
    with pytest.raises(PublishedManifestError, match="cannot be used"):
        snapshots.read_index(b"{", REPOSITORY, keys)


def test_an_index_is_signed_anew_past_half_of_its_life(signer: Signer) -> None:
    snapshot = snapshots.make_revision(filled("htc/rocky:9"), signer, serial=1, now=NOW).snapshot
    assert snapshots.due_for_signing(snapshot, NOW + 7 * 86400 - 1) is None
    assert "half of its lifetime" in str(snapshots.due_for_signing(snapshot, NOW + 7 * 86400))
    assert snapshots.due_for_signing(snapshot, NOW - 3600) is None
    assert "not come yet" in str(snapshots.due_for_signing(snapshot, NOW - 3601))
    assert snapshots.due_for_signing(Snapshot(REPOSITORY), NOW) is None, "where nothing is published nothing grows old"


def test_of_names_with_one_content_the_first_has_the_alias(signer: Signer) -> None:
    entries = [entry("htc/b:1"), entry("htc/a:1")]
    answers = {one.name: answer("same") for one in entries}
    plan = make_plan(entries, answers, Snapshot(REPOSITORY))
    revision = snapshots.make_revision(carried_out(plan, Snapshot(REPOSITORY), NOW), signer, serial=1, now=NOW)
    key = digest("same linux/amd64")
    shards = [manifest.Shard.parse(content, name[7:-5]) for name, content in revision.shards.items()]
    assert [shard.aliases[key] for shard in shards if key in shard.aliases] == ["htc/a:1"]


texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=8)


@given(st.dictionaries(texts, st.one_of(st.none(), st.integers(), texts), max_size=4))
def test_canonical_json_is_one_spelling(value: dict[str, object]) -> None:
    spelled = manifest.canonical(value)
    assert spelled == manifest.canonical(dict(reversed(value.items())))
    assert spelled.isascii()


def test_an_alias_leads_to_a_name_that_means_something_before_one_that_does_not(signer: Signer) -> None:
    there = filled("a/gone:1", "b/alive:1")
    gone = transitions.supersede_expired(transitions.expire(there.records["a/gone:1"], NOW, NOW), NOW)
    alive = there.records["b/alive:1"]
    shared = Record(
        "b/alive:1", alive.reference, alive.digest, gone.platforms | {"amd64": there.records["a/gone:1"].platforms["amd64"]}
    )
    revision = snapshots.make_revision(there.with_records({"a/gone:1": gone, "b/alive:1": shared}), signer, serial=1, now=NOW)
    index = manifest.Index.parse(manifest.unseal(revision.index)[0], REPOSITORY)
    alias = gone.platforms["amd64"][0].digest
    sha256 = index.shard_for(alias)
    assert sha256 is not None
    assert manifest.Shard.parse(revision.shards[manifest.shard_name(sha256)], sha256).aliases[alias] == "b/alive:1"
