"""Witnesses of the publication log on a disk that fails at each write; see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import git

from publisher.publish.manifest.witness import GitWitness, OriginWitness, Witness, bring_up_to_date
from publisher.state.paths import REPOSITORY_MANIFEST
from publisher.state.publication_log import entry_name
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.machine.failing_writes import must_advise
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import INDEX, Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.machine.failing_writes import FailingDisk

SERIALS = (1, 2, 3)


def main(failing: FailingDisk) -> None:
    """Send two publications to a directory and to a git repository that have the one before, with an error at each write."""
    disk, before, where = failing.root, failing.where / "before", failing.where / "place"
    where.mkdir()
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", disk / "witness.git"], check=True)
    place = Place(where)
    files: dict[str, bytes] = {}
    for serial in SERIALS:
        place.publish(place.publication(), (entry(f"a/{serial}:1"), answer(str(serial))))
        files |= {name: read(place, name) for name in (f"indexes/{serial}.json", entry_name(serial))}
        if serial == min(SERIALS):
            inform(place, directory(disk))
            inform(place, clone(disk))
            shutil.copytree(disk, before)

    def restore() -> None:
        shutil.rmtree(disk)
        shutil.copytree(before, disk)

    def check(witness: Callable[[Path], Witness], seen: Callable[[Path], dict[str, bytes]]) -> None:
        assert seen(disk).items() <= files.items(), "nothing wrong is shown"
        inform(place, witness(disk))
        rest = {name: files[name] for name in files if name != "indexes/2.json"}  # which no run between them has sent
        assert seen(disk) == rest, f"the next run sends the rest: {set(seen(disk)) ^ set(rest)}"

    failing.fail(
        lambda: must_advise(lambda: inform(place, directory(disk))), lambda: check(directory, in_directory), restore=restore
    )
    failing.wrap("git")
    failing.fail(lambda: must_advise(lambda: inform(place, clone(disk))), lambda: check(clone, in_repository), restore=restore)


def clone(disk: Path) -> Witness:
    return GitWitness(str(disk / "witness.git"), disk / "clone")


def directory(disk: Path) -> Witness:
    return OriginWitness(DirectoryOrigin(disk / "witness"))


def in_repository(disk: Path) -> dict[str, bytes]:
    """Return what whoever fetches from the repository gets."""
    tree = git.Repo(disk / "witness.git", odbt=git.GitDB).heads.main.commit.tree
    return {str(blob.path): blob.data_stream.read() for blob in tree.traverse() if isinstance(blob, git.Blob)}


def in_directory(disk: Path) -> dict[str, bytes]:
    top = disk / "witness"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*.json")}


def inform(place: Place, witness: Witness) -> None:
    bring_up_to_date(
        witness, lambda name: place.repository.read(f"{REPOSITORY_MANIFEST}/{name}"), place.repository.read(INDEX) or b""
    )


def read(place: Place, name: str) -> bytes:
    """Return a file of the log, or the present index under its name in the witness."""
    content = place.repository.read(INDEX if name.startswith("indexes/") else f"{REPOSITORY_MANIFEST}/{name}")
    assert content is not None
    return content
