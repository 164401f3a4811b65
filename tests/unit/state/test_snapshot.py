from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract import manifest
from publisher.contract.manifest import Record
from publisher.errors import CatalogError
from publisher.plan.make import make_plan
from publisher.state import snapshot as catalogs
from publisher.state import transitions
from publisher.state.signing import PublicKey, Signer, new_key
from publisher.state.snapshot import Catalog
from tests.support.publisher.built_values import AMD64, ARM64, answer, carried_out, digest, entry

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.state.snapshot import Edition

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


def filled(*names: str) -> Catalog:
    entries = [entry(name, [AMD64, ARM64]) for name in names]
    answers = {one.name: answer(one.name, [AMD64, ARM64]) for one in entries}
    return carried_out(make_plan(entries, answers, Catalog(REPOSITORY)), Catalog(REPOSITORY), NOW)


def files_of(edition: Edition) -> dict[str, bytes]:
    return {**edition.shards, manifest.INDEX_NAME: edition.index}


def test_an_edition_reads_back_as_the_catalog_it_was_made_of(signer: Signer) -> None:
    edition = catalogs.edition(filled("htc/rocky:9", "htc/debian:12"), signer, serial=7, now=NOW)
    back = catalogs.load(files_of(edition).get, REPOSITORY, [signer.public])
    assert back is not None
    assert (back.serial, back.generated, back.expires) == (7, NOW, NOW + 14 * 86400)
    written = {name: record.to_json() for name, record in edition.catalog.records.items()}
    assert {name: record.to_json() for name, record in back.records.items()} == written
    assert sorted(written) == ["htc/debian:12", "htc/rocky:9"]


name_lists = st.lists(st.sampled_from([f"a/image-{number}:1" for number in range(6)]), max_size=4, unique=True)


@given(st.lists(st.tuples(name_lists, name_lists, name_lists, st.sampled_from("xyz")), min_size=1, max_size=4))
def test_an_edition_of_what_changed_is_that_of_the_whole(steps: list[tuple[list[str], list[str], list[str], str]]) -> None:
    """The images' content comes and goes among names, and with it the aliases that they share; names end to mean something."""
    catalog, published = Catalog(REPOSITORY), dict[str, bytes]()
    for serial, (new, ended, gone, content) in enumerate(steps, 1):
        entries = [entry(name, [AMD64, ARM64]) for name in new]
        plan = make_plan(entries, {name: answer(content, [AMD64, ARM64]) for name in new}, catalog, whole=False)
        catalog = carried_out(plan, catalog, NOW + serial)
        over = {name: transitions.leaving(catalog.records[name], NOW, NOW) for name in ended if name in catalog.records}
        catalog = catalog.with_records({name: transitions.ended(one, NOW) for name, one in over.items()}).without(gone)
        if not catalog.touched:
            continue
        whole = catalogs.edition(Catalog(REPOSITORY, records=catalog.records), _Signer(), serial=serial, now=NOW)
        edition = catalogs.edition(catalog, _Signer(), serial=serial, now=NOW)
        published |= edition.shards
        assert edition.catalog.shards == whole.catalog.shards
        assert whole.shards.items() <= published.items(), "and what was not made anew is there"
        catalog = edition.catalog


def test_what_did_not_change_is_not_made_anew_and_all_is_where_nothing_did(signer: Signer) -> None:
    first = catalogs.edition(filled(*(f"a/image-{number}:1" for number in range(50))), signer, serial=1, now=NOW).catalog
    changed = first.with_records({"a/image-0:1": transitions.leaving(first.records["a/image-0:1"], NOW, NOW + 1)})
    assert changed.touched == {manifest.shard_number("a/image-0:1", manifest.SHARDS)}, "its aliases still mean the name"
    assert len(catalogs.edition(changed, signer, serial=2, now=NOW).shards) == 1
    again = catalogs.edition(first, signer, serial=2, now=NOW)
    assert {manifest.shard_name(one) for one in first.shards if one is not None} == again.shards.keys()


def test_every_key_is_found_in_the_one_shard_it_hashes_into(signer: Signer) -> None:
    catalog = filled("htc/rocky:9", "hub.example.org/htc/debian:12")
    edition = catalogs.edition(catalog, signer, serial=1, now=NOW)
    index = manifest.Index.parse(manifest.unseal(edition.index)[0], REPOSITORY)
    for record in catalog.records.values():
        for key in [record.name, *record.aliases()]:
            sha256 = index.shard_for(key)
            assert sha256 is not None
            shard = manifest.Shard.parse(edition.shards[manifest.shard_name(sha256)], sha256)
            assert shard.records.get(key, {}).get("source") == record.source or shard.aliases[key] == record.name
    assert "docker://hub.example.org/htc/debian:12" in catalog.records["htc/debian:12"].aliases()


def test_a_change_touches_only_the_shards_it_is_in(signer: Signer) -> None:
    before = catalogs.edition(filled("htc/rocky:9"), signer, serial=1, now=NOW)
    after = catalogs.edition(filled("htc/rocky:9", "htc/debian:12"), signer, serial=2, now=NOW)
    keys = len({"htc/debian:12", *filled("htc/debian:12").records["htc/debian:12"].aliases()})
    assert 0 < len(set(after.shards) - set(before.shards)) <= keys


def test_nothing_published_is_no_catalog(signer: Signer) -> None:
    assert catalogs.load(lambda _: None, REPOSITORY, [signer.public]) is None


def test_an_empty_catalog_can_be_published(signer: Signer) -> None:
    edition = catalogs.edition(Catalog(REPOSITORY), signer, serial=1, now=NOW)
    back = catalogs.load(files_of(edition).get, REPOSITORY, [signer.public])
    assert back is not None
    assert not back.records


def test_a_manifest_that_somebody_else_signed_stops_the_run(signer: Signer, tmp_path: Path) -> None:
    other = new_key(tmp_path / "other")
    edition = catalogs.edition(filled("htc/rocky:9"), signer, serial=1, now=NOW)
    with pytest.raises(CatalogError, match="not signed by this publisher's key"):
        catalogs.load(files_of(edition).get, REPOSITORY, [other])
    assert catalogs.load(files_of(edition).get, REPOSITORY, [other, signer.public]) is not None
    assert catalogs.load(files_of(edition).get, REPOSITORY, None) is not None


def test_another_repositorys_manifest_is_refused(signer: Signer) -> None:
    edition = catalogs.edition(filled("htc/rocky:9"), signer, serial=1, now=NOW)
    with pytest.raises(CatalogError, match=r"images\.example\.org"):
        catalogs.load(files_of(edition).get, "other.example.org", [signer.public])


def test_a_missing_or_altered_shard_is_told(signer: Signer) -> None:
    edition = catalogs.edition(filled("htc/rocky:9"), signer, serial=1, now=NOW)
    name = next(iter(edition.shards))
    missing = {key: content for key, content in files_of(edition).items() if key != name}
    with pytest.raises(CatalogError, match="not there"):
        catalogs.load(missing.get, REPOSITORY, [signer.public])
    altered = files_of(edition) | {name: edition.shards[name].replace(b"schema", b"Schema")}
    with pytest.raises(CatalogError, match="other bytes"):
        catalogs.load(altered.get, REPOSITORY, [signer.public])


def test_the_serial_elsewhere_counts_only_when_it_is_ours(signer: Signer, tmp_path: Path) -> None:
    edition = catalogs.edition(filled("htc/rocky:9"), signer, serial=41, now=NOW)
    keys: list[PublicKey] = [signer.public]
    assert catalogs.serial_of(edition.index, REPOSITORY, keys) == 41
    assert catalogs.serial_of(None, REPOSITORY, keys) == 0
    with pytest.raises(CatalogError):
        catalogs.serial_of(edition.index, REPOSITORY, [new_key(tmp_path / "other")])
    with pytest.raises(CatalogError, match="cannot be used"):
        catalogs.serial_of(b"{", REPOSITORY, keys)


def test_an_index_is_signed_anew_past_half_of_its_life(signer: Signer) -> None:
    catalog = catalogs.edition(filled("htc/rocky:9"), signer, serial=1, now=NOW).catalog
    assert not catalogs.half_spent(catalog, NOW + 7 * 86400 - 1)
    assert catalogs.half_spent(catalog, NOW + 7 * 86400)
    assert not catalogs.half_spent(Catalog(REPOSITORY), NOW), "where nothing is published nothing grows old"


def test_of_names_with_one_content_the_first_has_the_alias(signer: Signer) -> None:
    entries = [entry("htc/b:1"), entry("htc/a:1")]
    answers = {one.name: answer("same") for one in entries}
    plan = make_plan(entries, answers, Catalog(REPOSITORY))
    edition = catalogs.edition(carried_out(plan, Catalog(REPOSITORY), NOW), signer, serial=1, now=NOW)
    key = digest("same linux/amd64")
    shards = [manifest.Shard.parse(content, name[7:-5]) for name, content in edition.shards.items()]
    assert [shard.aliases[key] for shard in shards if key in shard.aliases] == ["htc/a:1"]


texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=8)


@given(st.dictionaries(texts, st.one_of(st.none(), st.integers(), texts), max_size=4))
def test_canonical_json_is_one_spelling(value: dict[str, object]) -> None:
    spelled = manifest.canonical(value)
    assert spelled == manifest.canonical(dict(reversed(value.items())))
    assert spelled.isascii()


def test_an_alias_leads_to_a_name_that_means_something_before_one_that_does_not(signer: Signer) -> None:
    there = filled("a/gone:1", "b/alive:1")
    gone = transitions.ended(transitions.leaving(there.records["a/gone:1"], NOW, NOW), NOW)
    alive = there.records["b/alive:1"]
    shared = Record(
        "b/alive:1", alive.source, alive.digest, gone.platforms | {"amd64": there.records["a/gone:1"].platforms["amd64"]}
    )
    edition = catalogs.edition(there.with_records({"a/gone:1": gone, "b/alive:1": shared}), signer, serial=1, now=NOW)
    index = manifest.Index.parse(manifest.unseal(edition.index)[0], REPOSITORY)
    alias = gone.platforms["amd64"][0].manifest
    sha256 = index.shard_for(alias)
    assert sha256 is not None
    assert manifest.Shard.parse(edition.shards[manifest.shard_name(sha256)], sha256).aliases[alias] == "b/alive:1"
