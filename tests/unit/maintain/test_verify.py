from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING, TypeVar

import pytest

from publisher.contract import manifest
from publisher.contract.records import BLOCKED, CURRENT, Chunks, Sif, Version
from publisher.errors import OriginError
from publisher.maintain import block, verify
from publisher.maintain.chunk_tables import replace_table
from publisher.signing.manifest_signer import JointSigner
from publisher.state import paths, transitions
from publisher.state.authorization import open_authorization
from publisher.state.signing import Signer, load_public_key, new_key
from publisher.state.snapshot import make_revision
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.origins.replicated import ReplicatedOrigin
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.ep.execution_point import Key
from tests.support.ep.two_levels import DAY, keys_document
from tests.support.publisher.built_values import answer, digest, entry
from tests.support.publisher.prepublished import INDEX, NAME, NOW, Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.chunks.reader import ByteReader
    from publisher.state.authorization import Authorization
    from publisher.state.signing import PublicKey

T = TypeVar("T")
ROCKY = "htc/rocky:9"


# --- links, manifest, SIFs


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "place").mkdir()
    place = Place(tmp_path / "place")
    place.publish(place.publication(), (entry(ROCKY), answer("one")), (entry("a/b:1", formats=["sif"]), answer("two")))
    return place


def built_as(place: Place, name: str) -> verify.VerifiedBuild:
    snapshot, _ = place.publication().open()
    (found,) = verify.select_builds(snapshot, (name,))
    return found


def manifest_problems(place: Place, now: float | None = None, *trusted: PublicKey) -> list[str]:
    """Return the problems of the manifest."""
    keys = trusted or (place.signer.public,)
    return list(verify.verify_manifest(place.repository, place.origin, place.now if now is None else now, keys))


def problems(place: Place, now: float | None = None) -> list[str]:
    snapshot, _ = place.publication().open()
    found = manifest_problems(place, now)
    found += [*verify.verify_links(place.repository, snapshot), *verify.verify_catalogs(place.repository, snapshot)]
    return found


def test_sound_links_and_manifest_have_no_problems(place: Place) -> None:
    assert problems(place) == []


def test_a_missing_wrong_or_stray_link_is_reported(place: Place) -> None:
    link = place.repository.root / ROCKY
    before = os.readlink(link)  # noqa: PTH115 - its text
    link.unlink()
    assert problems(place) == [f"{ROCKY}: the link is missing"]
    link.symlink_to("../.images/ab/cd")
    assert problems(place) == [f"{ROCKY}: the link points to ../.images/ab/cd, not to {before}"]
    link.unlink()
    link.symlink_to(f"/cvmfs/{place.repository.name}/{paths.sandbox_path(digest('one linux/amd64'))}")
    assert problems(place) == [], "the older tool's links are absolute"
    (link.parent / "stray:1").symlink_to("../.images/ab/cd")
    assert problems(place) == ["htc/stray:1: the manifest has no image for this link"]


def test_a_different_damaged_or_expired_manifest_is_reported(place: Place) -> None:
    (shard, *_) = place.origin.names("manifest/shards")
    (place.origin.root / shard).write_bytes(b"{}")
    name = shard.removeprefix("manifest/")
    assert problems(place) == [f"the origin's {name} is damaged"]
    (place.origin.root / shard).unlink()
    assert problems(place) == [f"the origin has no {name}, which the manifest names"]
    assert any("expired" in line for line in problems(place, place.now + manifest.LIFETIME + 7200))
    place.origin.remove(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}")
    found = manifest_problems(place)
    assert found[0].startswith("the origin's manifest differs from the repository's")
    (place.repository.root / INDEX).unlink()
    assert manifest_problems(place) == ["the repository has no manifest"]


def test_a_manifest_signed_by_somebody_else_is_reported_in_both_places(place: Place) -> None:
    new_key(place.where / "thief")
    thief = Signer(place.where / "thief")
    snapshot, _ = place.publication().open()
    forged = make_revision(snapshot, thief, serial=snapshot.serial, now=place.now).index
    by_whom = "is signed neither by this publisher's key nor by a key in trusted_keys"
    place.origin.replace(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}", forged)
    assert manifest_problems(place)[1:] == [f"the origin's manifest {by_whom}"]
    (place.repository.root / INDEX).write_bytes(forged)
    assert manifest_problems(place) == [f"the repository's manifest {by_whom}", f"the origin's manifest {by_whom}"]
    assert manifest_problems(place, place.now, place.signer.public, thief.public) == [], "as while a key is rotated"
    assert list(verify.verify_manifest(place.repository, place.origin, place.now, None)) == []
    place.origin.replace(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}", b"no index")
    assert "the origin's manifest is damaged" in manifest_problems(place)


def test_a_missing_or_damaged_file_index_is_reported(place: Place) -> None:
    build, path = built_as(place, ROCKY), paths.file_index_path(digest("one linux/amd64"))
    (place.repository.root / path).write_bytes(b"other")
    said = list(verify.verify_build(place.repository, place.origin, build))
    assert said[-1].endswith(f"the file index {path} is damaged")
    (place.repository.root / path).unlink()
    said = list(verify.verify_build(place.repository, place.origin, build))
    assert said[-1].endswith(f"the file index {path} is missing")


def test_the_reported_digest_blocks_exactly_the_damaged_build(place: Place) -> None:
    publication = place.publication()
    snapshot = place.publish(publication, (entry(ROCKY), answer("newer"))).snapshot
    (place.repository.root / paths.file_index_path(digest("one linux/amd64"))).unlink()
    damaged = next(one for one in verify.select_builds(snapshot, (ROCKY,)) if one.version.digest == digest("one linux/amd64"))
    line = list(verify.verify_build(place.repository, place.origin, damaged))[-1]
    assert line.endswith("is missing")
    name, platform, said = line.split(": ")[0].split(" ")
    assert (name, platform) == (ROCKY, "amd64")
    down = block.plan_block(snapshot, said, place.now, "damaged")
    after = block.apply(publication, snapshot, down).snapshot
    assert [version.state for _, version in after.records[ROCKY].versions()] == [CURRENT, BLOCKED]
    assert (place.repository.root / ROCKY / "content").read_text() == digest("newer linux/amd64")


def test_a_sandbox_is_read_consistently_and_the_sif_apart_from_it(place: Place) -> None:
    """A publish waits until a consistent read ends."""
    reading, read = [False], {}

    class Looked(DirectoryRepository):
        def read_consistently(self, read_all: Callable[[], T]) -> T:
            reading[0] = True
            try:
                return read_all()
            finally:
                reading[0] = False

        def exists(self, path: str) -> bool:
            read["sandbox"] = reading[0]
            return super().exists(path)

    class Stored(DirectoryOrigin):
        def sha256(self, name: str, reader: ByteReader | None = None) -> str | None:
            read["sif"] = reading[0]
            return super().sha256(name, reader)

    there = Looked(place.repository.root, place.repository.name)
    build = built_as(place, ROCKY)
    shutil.rmtree(place.repository.root / paths.sandbox_path(build.version.digest))
    (said,) = verify.verify_build(there, Stored(place.origin.root), build)
    assert said.endswith("is missing")
    assert read == {"sandbox": True, "sif": False}


def test_a_missing_catalog_mark_is_reported(place: Place) -> None:
    (place.repository.root / ".images/.cvmfscatalog").unlink()
    assert problems(place) == [".images has no .cvmfscatalog"]


def test_a_shared_build_is_verified_once(place: Place) -> None:
    publication = place.publication()
    snapshot = place.publish(publication, (entry("htc/rocky:latest"), answer("one"))).snapshot
    assert [build.name for build in verify.select_builds(snapshot, ())] == ["a/b:1", ROCKY]
    assert [build.name for build in verify.select_builds(snapshot, ("htc/rocky:latest",))] == ["htc/rocky:latest"]


def test_a_lost_sif_is_reported_whatever_forms_another_name_of_its_image_has(place: Place) -> None:
    """The sandbox of both is the same one."""
    place.publish(place.publication(), (entry("a/sandboxed:1", formats=["sandbox"]), answer("one")))
    snapshot, _ = place.publication().open()
    for name in place.origin.names("sif"):
        place.origin.remove(name)
    builds = verify.select_builds(snapshot, ())
    said = [line for build in builds for line in verify.verify_sif(place.origin, build)]
    assert sum("the SIF" in line and line.endswith("is missing") for line in said) == 2
    assert {build.name for build in verify.select_missing(place.origin, builds)} == {"a/b:1", ROCKY}


def test_a_sif_that_cannot_be_repaired_stays_a_problem(place: Place) -> None:
    build = built_as(place, ROCKY)
    assert build.version.sif is not None
    (place.origin.root / build.version.sif.path).write_bytes(b"x" * build.version.sif.size)

    def fail(_: verify.VerifiedBuild) -> None:
        raise OriginError("no reason")

    repaired: list[verify.VerifiedBuild] = []
    (said,) = verify.verify_sif(place.origin, build, verify.Repairs(fail, fail))
    assert said.endswith("is damaged, and cannot be restored: no reason")
    assert list(verify.verify_sif(place.origin, build, verify.Repairs(repaired.append, fail))) == []
    assert repaired == [build]


def tabled(place: Place) -> tuple[verify.VerifiedBuild, Path]:
    """A build with a chunk table, and the table's file in the origin."""
    place.tables = True
    place.publish(place.publication(), (entry("c/tabled:1"), answer("tabled")))
    build = built_as(place, "c/tabled:1")
    assert build.version.sif is not None
    assert build.version.sif.chunks is not None
    return build, place.origin.root / build.version.sif.chunks.path


def test_a_chunk_table_is_verified_with_its_sif(place: Place) -> None:
    build, _ = tabled(place)
    assert list(verify.verify_sif(place.origin, build)) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
    ],
)
def test_a_bad_chunk_table_is_reported_and_restored(place: Place, damage: Callable[[Path], object], said: str) -> None:
    build, path = tabled(place)
    right = path.read_bytes()
    damage(path)
    (line,) = verify.verify_sif(place.origin, build)
    assert "the chunk table" in line
    assert line.endswith(said)
    publication = place.publication()
    snapshot, _ = publication.open()

    def restore(build: verify.VerifiedBuild) -> None:
        assert build.version.sif is not None
        assert replace_table(publication, snapshot, build.version.sif) is snapshot, "the records are right already"

    def fail(_: verify.VerifiedBuild) -> None:
        raise AssertionError("the SIF is right")

    assert list(verify.verify_sif(place.origin, build, verify.Repairs(fail, restore))) == []
    assert path.read_bytes() == right
    assert list(verify.verify_sif(place.origin, build)) == []


def test_a_chunk_table_of_other_chunks_is_reported(place: Place) -> None:
    """Nothing but the SIF itself shows it: the table is what the manifest names."""
    build, path = tabled(place)
    sif = build.version.sif
    assert sif is not None
    wrong = path.read_bytes()[:-1] + b"x"
    chunks = Chunks(hashlib.sha256(wrong).hexdigest(), len(wrong))
    place.origin.put_bytes(chunks.path, wrong)
    (changed,) = transitions.set_chunks([place.publication().open()[0].records["c/tabled:1"]], {sif.path: chunks}).values()
    (line,) = verify.verify_sif(place.origin, verify.VerifiedBuild("c/tabled:1", "amd64", next(changed.versions())[1]))
    assert line.endswith("does not fit it")


def test_a_chunk_table_that_the_origin_does_not_list_is_found_without_reading(place: Place) -> None:
    build, path = tabled(place)
    builds = [built_as(place, ROCKY), build]
    assert verify.select_missing(place.origin, builds) == []
    path.unlink()
    assert verify.select_missing(place.origin, builds) == [build]


def test_what_execution_points_with_the_root_key_would_refuse_is_reported(place: Place) -> None:
    root, signer = Key(), Key()
    signer.keyid, signer.pem = place.signer.public.keyid, place.signer.public.pem
    content = keys_document(signer, root=root, now=place.now, repository=NAME).content()
    authorization = open_authorization(content, [load_public_key(root.pem, "root")], NAME)
    place.signer = JointSigner([place.signer], authorization)  # type: ignore[assignment]  # another kind of signer
    place.publish(place.publication(), (entry("htc/rocky:9"), answer("one")))

    def found(authorization: Authorization | None, now: float = NOW) -> list[str]:
        return list(verify.verify_authorization(place.repository, authorization, now))

    assert found(authorization) == []
    assert found(None) == ["the published manifest has a keys document, and this publisher has none"]
    assert found(authorization, NOW + 8 * DAY)[0].startswith("the keys document lets this publisher sign until")
    other = keys_document(Key(), root=root, now=place.now, version=2, repository=NAME).content()
    (line,) = found(open_authorization(other, [load_public_key(root.pem, "root")], NAME))
    assert line.startswith("the published manifest has 0 of the 1 signatures")


def test_what_a_following_origin_lacks_is_reported(tmp_path: Path) -> None:
    content = b"a SIF"
    sif = Sif("sif/ab/x.sif", hashlib.sha256(content).hexdigest(), len(content), Chunks("c" * 64, 7))
    build = verify.VerifiedBuild(ROCKY, "amd64", Version(digest("x"), sandbox=None, sif=sif, published=1))
    first, second = DirectoryOrigin(tmp_path / "first"), DirectoryOrigin(tmp_path / "second")
    first.put_bytes(sif.path, content)
    both = ReplicatedOrigin(first, {"second": second})
    assert set(verify.objects([build])) == {sif.path, f"sif/cc/{'c' * 64}.chunks"}
    assert list(verify.verify_followers(both, [build], deep=True)) == [f"the origin second lacks {sif.path}, or has it damaged"]
    second.put_bytes(sif.path, content)
    assert list(verify.verify_followers(both, [build], deep=True)) == []
    assert list(verify.verify_followers(first, [build], deep=True)) == []
