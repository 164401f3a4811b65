"""A publisher host with a CVMFS repository: complete runs, and checks of what they published."""

from __future__ import annotations

import contextlib
import io
import time
from typing import TYPE_CHECKING

from publisher.build.sandbox import verify_tree
from publisher.cli.assembly import run as assemble
from publisher.cli.assembly.registry import make_intake
from publisher.cli.assembly.run_options import RunOptions
from publisher.cli.state_directory import lock_state
from publisher.contract import manifest
from publisher.fileindex.format import read_file_index
from publisher.maintain import verify
from publisher.maintain.adoption.apply import Adopter
from publisher.publish.manifest.manifest_copy import ManifestCopy
from publisher.publish.publication import Publication
from publisher.settings.sources import load_settings
from publisher.state import paths
from publisher.state.signing import Signer
from publisher.system.progress import LineDisplay
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.images.layers import file, tar
from tests.support.images.runnable import runnable
from tests.support.publisher.host import Host
from tests.support.registries.registry import RegistryServer, push_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from publisher.contract.records import Version
    from publisher.fileindex.format import IndexedFile
    from publisher.publish.intake import Intake
    from publisher.publish.report import RunReport
    from publisher.settings.settings import PublisherSettings
    from publisher.state.built import BuiltImage
    from publisher.state.snapshot import Snapshot
    from tests.support.cvmfs.real import RealCvmfs
    from tests.support.cvmfs.stand_in import FakeCvmfs


class CvmfsHost:
    """A publisher host with a CVMFS repository and a registry."""

    def __init__(self, where: Path, registry: RegistryServer, cvmfs: FakeCvmfs | RealCvmfs) -> None:
        self.cvmfs = cvmfs
        self.host = Host(where, registry)
        self.host.repository = cvmfs.spool / "rdonly"
        self.registry = registry

    def publication(self) -> Publication:
        repository = self.cvmfs.repository(parents=paths.image_directories())
        copy = ManifestCopy(self.host.state / "published")
        return Publication(repository, DirectoryOrigin(self.host.origin), Signer(self.host.key), clock=time.time, copy=copy)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[PublisherSettings, Publication, Snapshot, Intake, LineDisplay]]:
        chosen = load_settings(
            {
                "images": str(self.host.list),
                "repository": f"cvmfs:{self.cvmfs.fqrn}",
                "origin": str(self.host.origin),
                "state": str(self.host.state),
                "key": str(self.host.key),
                "insecure_registry": (self.registry.address,),
            },
            {},
        )
        publication = self.publication()
        with lock_state(chosen.state), LineDisplay(io.StringIO()) as shown, make_intake(chosen, shown) as intake:
            snapshot, _ = publication.open()
            yield chosen, publication, snapshot, intake, shown

    def sync(self) -> RunReport:
        with self._opened() as (chosen, publication, snapshot, intake, shown):
            plan = assemble.plan_run(chosen, assemble.load_list(chosen), snapshot, intake, RunOptions())
            return assemble.run_sync(chosen, plan, snapshot, intake=intake, publication=publication, display=shown, collect=True)

    def adopt(self) -> None:
        with self._opened() as (chosen, publication, snapshot, intake, _):
            selected = assemble.select_entries(assemble.load_list(chosen), (), intake)
            Adopter(publication.repository, intake, selected.entries, selected.unlisted, clock=time.time).run(
                snapshot, publication
            )

    def push(self, name: str, version: int) -> None:
        """Push an image with many files; another version changes one of them."""
        said = f"{name} {version}".encode()
        push_image(self.registry.address, name, "1", [tar(runnable()), tar([file("etc/motd", said, mode=0o644)])])

    def before_storing(self, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
        """Do something before each SIF is stored, when a transaction is open; where none is, the run fails."""
        store = Publication.store_sif

        def wait_and_store(publication: Publication, build: BuiltImage) -> None:
            ends = time.monotonic() + 60
            while not self.cvmfs.flag.exists():
                assert time.monotonic() < ends, "no transaction was opened before the SIF was stored"
                time.sleep(0.01)
            do()
            store(publication, build)

        monkeypatch.setattr(Publication, "store_sif", wait_and_store)

    def problems(self) -> list[str]:
        """Return what ``publisher verify`` finds, once a run has begun and recovered."""
        publication = self.publication()
        snapshot, _ = publication.open()
        repository, origin = publication.repository, publication.origin
        found = [*verify.verify_manifest(repository, origin, time.time(), None), *verify.verify_links(repository, snapshot)]
        for build in verify.select_builds(snapshot, ()):
            found += verify.verify_build(repository, origin, build)
        return found

    def sound(self) -> int:
        """Check that everything that a manifest or a link names exists and is complete; return the versions."""
        host, seen = self.host, 0
        for where, index in ((host.repository / ".publisher", host.index()), (host.origin / "manifest", host.index(origin=True))):
            for sha256 in filter(None, index.shards if index is not None else ()):
                shard = manifest.Shard.parse((where / manifest.shard_name(sha256)).read_bytes(), sha256)
                for record in map(shard.record, shard.records):
                    assert record is not None
                    for _, version in record.versions():
                        assert version.sif is not None
                        assert (host.origin / version.sif.path).stat().st_size == version.sif.size
                        self.whole(version)
                        seen += 1
        for link in (host.repository / "kill").glob("*"):
            assert not link.readlink().is_absolute()
            assert (link / ".singularity.d/runscript").is_file(), f"{link} dangles"
        return seen

    def whole(self, version: Version) -> None:
        """Compare every path of a sandbox with its file index, by content."""
        assert version.sandbox is not None
        index = self.host.repository / paths.file_index_path(version.content)

        def lines() -> Iterator[IndexedFile]:
            with index.open("rb") as content:
                yield from read_file_index(content)

        assert list(verify_tree.differences(lines(), str(self.host.repository / version.sandbox))) == []
