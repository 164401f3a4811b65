"""What publishing one image costs in a small repository, and in one of 2,000 images with millions of entries."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from publisher.state import paths, transitions
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.repositories.base import Repository
from tests.support.cvmfs.stand_in import FakeCvmfs
from tests.support.publisher.built_values import answer, built, digest, entry
from tests.support.publisher.prepublished import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from io import BufferedRandom
    from pathlib import Path

    from publisher.contract.records import Record
    from publisher.targets.repositories.base import Transaction

pytestmark = pytest.mark.system

SMALL, LARGE = 20, 2000  # images


class Counted(Repository):
    """A repository that counts how often it is looked at."""

    def __init__(self, inner: Repository) -> None:
        self.name, self.root, self.can_clone, self.keeps_xattrs = inner.name, inner.root, inner.can_clone, False
        self._inner = inner
        self.counts: Counter[str] = Counter()

    def hold(self) -> AbstractContextManager[None]:
        return self._inner.hold()

    def recover(self) -> list[str]:
        return self._inner.recover()

    def require_idle(self) -> None:
        self._inner.require_idle()

    def transaction(self) -> AbstractContextManager[Transaction]:
        self.counts["transactions"] += 1
        return self._inner.transaction()

    def read(self, path: str) -> bytes | None:
        self.counts["files read"] += 1
        return self._inner.read(path)

    def exists(self, path: str) -> bool:
        self.counts["paths looked at"] += 1
        return self._inner.exists(path)

    def links(self) -> dict[str, str]:
        raise AssertionError("that walks through all there is")


class CountedOrigin(DirectoryOrigin):
    """An origin that counts how often it is asked: each time is a request to a server."""

    def __init__(self, root: Path, counts: Counter[str]) -> None:
        super().__init__(root)
        self._counts = counts

    def size(self, name: str) -> int | None:
        self._counts["objects looked at"] += 1
        return super().size(name)

    def read(self, name: str) -> bytes | None:
        self._counts["objects read"] += 1
        return super().read(name)

    def _store(self, name: str, fill: Callable[[BufferedRandom], None], sha256: str, size: int) -> bool:
        self._counts["objects stored"] += 1
        return super()._store(name, fill, sha256, size)

    def names(self, prefix: str = "") -> Iterator[str]:
        raise AssertionError(f"that walks through all there is in {prefix!r}")


class Filled:
    """A publisher with a stand-in repository that has a number of images, of two builds each."""

    def __init__(self, where: Path, images: int) -> None:
        where.mkdir()
        self.fake = FakeCvmfs(where)
        self.place = Place(where)
        self.repository = Counted(self.fake.repository(parents=paths.image_directories()))
        self.place.repository = self.repository  # type: ignore[assignment]  # which of them is the point
        self.place.origin = CountedOrigin(self.place.origin.root, self.repository.counts)
        self.lower = self.fake.stratum / "store/lower"
        publication = self.place.publication()
        self.place.publish(publication, (entry("htc/rocky:9"), answer("before")))
        listed = {record.name: record for record in map(self.image, range(images))}
        publication.change(publication.open()[0], listed, relink=False)

    def image(self, number: int) -> Record:
        """Return the record of an image; its sandboxes, links and file indexes are as a publication leaves them."""
        name = f"group{number % 100}/image-{number}:1"
        texts = [f"{name} {build}" for build in ("new", "old")]
        found = [transitions.make_version(digest(text), built(text), ("sandbox", "sif"), int(self.place.now)) for text in texts]
        for version in found:
            assert version.sandbox is not None
            sandbox = self.lower / version.sandbox
            sandbox.mkdir(parents=True)
            (sandbox / ".cvmfscatalog").touch()
            index = self.lower / paths.file_index_path(version.content)
            index.parent.mkdir(parents=True, exist_ok=True)
            index.touch()
        link = self.lower / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(paths.link_target(name, str(found[0].sandbox)))
        return transitions.set_current(None, f"docker.io/{name}", digest(name), {"amd64": found[0]}, name)

    def cost(self, text: str) -> Counter[str]:
        """Return the cost of publishing one image, once the run has begun."""
        publication = self.place.publication()
        snapshot, _ = publication.open()
        staged = self.place.stage(entry("htc/rocky:9"), answer(text), snapshot)
        for build in staged.builds.values():
            publication.store_sif(build)
        self.repository.counts.clear()
        assert publication.publish(snapshot, [staged]).behind is None
        log = self.fake.log()[-1]
        assert log["command"] == "publish"
        return self.repository.counts + Counter({name: log[name] for name in ("entries", "bytes", "catalog_entries")})


def test_publishing_one_image_costs_no_more_in_a_repository_of_thousands(tmp_path: Path) -> None:
    small, large = (Filled(tmp_path / str(images), images) for images in (SMALL, LARGE))
    try:
        few, many = small.cost("now"), large.cost("now")
        for name in many.keys() - {"bytes", "catalog_entries"}:
            assert many[name] <= few[name] + 1, "or a shard that is empty in the small one"
        assert few.keys() == many.keys()
        assert many["entries"] < 30
        assert many["bytes"] < 200_000, "a handful of shards, each a 256th of the manifest, and two indexes"
        assert many["catalog_entries"] < 8 * LARGE, "what stands in the two catalogs that all images share"
        for sandbox in (large.lower / ".images").glob("*/*"):
            for number in range(10):
                (sandbox / f"file{number}").touch()
        more = large.cost("later")
        assert more["catalog_entries"] - many["catalog_entries"] < 100, "20,000 files more are in no catalog that was touched"
        assert more["entries"] <= many["entries"]
    finally:
        small.fake.close()
        large.fake.close()
