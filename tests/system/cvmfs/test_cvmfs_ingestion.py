"""Sandboxes of new images that ``cvmfs_server ingest`` publishes from a stream, in whole runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError
from tests.support.cvmfs.stand_in import FakeCvmfs
from tests.support.images.layers import file, tar
from tests.support.images.runnable import runnable
from tests.support.machine import child_process
from tests.support.registries.registry import push_image
from tests.system.cvmfs.test_kill_cvmfs_sync import Change, Start

if TYPE_CHECKING:
    from tests.support.cvmfs.host import CvmfsHost

pytestmark = pytest.mark.system

NEW = "kill/new"
CAPABILITY = {"SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}
INGESTED, UNPACKED = ["ingest", "transaction", "publish"], ["transaction", "publish"]


@pytest.fixture
def in_use(there: CvmfsHost) -> CvmfsHost:
    """A host whose repository has an image already, and a list with a new one."""
    there.push("kill/first", 1)
    there.host.images("kill/first:1")
    assert there.sync().exit_code == 0
    there.push(NEW, 1)
    there.host.images("kill/first:1", f"{NEW}:1")
    return there


def commands(there: CvmfsHost) -> list[str]:
    """Return what the runs since the first one have asked the tool to do."""
    return [command for command in there.cvmfs.commands() if command != "version"][len(UNPACKED) :]


def stand_in(there: CvmfsHost) -> FakeCvmfs:
    if not isinstance(there.cvmfs, FakeCvmfs):
        pytest.skip("a real repository gets neither other settings nor these faults")
    return there.cvmfs


def configure(there: CvmfsHost, line: str) -> None:
    with stand_in(there).configuration.open("a") as settings:
        settings.write(f"{line}\n")


def is_clean(there: CvmfsHost) -> None:
    """Both images are whole, and nothing else is there."""
    assert there.sound() == 4
    assert there.problems() == []
    assert len(sandboxes(there)) == 2
    assert not there.cvmfs.flag.exists()
    assert there.cvmfs.claimed() == []


def sandboxes(there: CvmfsHost) -> list[str]:
    return [path.name for path in (there.host.repository / ".images").glob("*/*")]


def test_a_new_image_is_ingested_while_its_sif_is_checked(in_use: CvmfsHost, monkeypatch: pytest.MonkeyPatch) -> None:
    in_use.before_storing(monkeypatch, lambda: None)
    assert in_use.sync().exit_code == 0
    assert commands(in_use) == INGESTED
    is_clean(in_use)


def test_files_that_a_publish_cuts_into_chunks_are_not_ingested(in_use: CvmfsHost) -> None:
    configure(in_use, "CVMFS_MAX_CHUNK_SIZE=100000")
    assert in_use.sync().exit_code == 0
    assert commands(in_use) == INGESTED
    ingest, _, publish = in_use.cvmfs.log()[-3:]
    assert ingest["bytes"] < 1_000_000 < publish["bytes"], "programs and libraries are larger"
    is_clean(in_use)


def test_nothing_is_published_of_an_image_that_is_refused(in_use: CvmfsHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OriginError("the origin is full")

    before, revision = sandboxes(in_use), in_use.cvmfs.revision()
    with monkeypatch.context() as patched:
        in_use.before_storing(patched, refuse)
        assert in_use.sync().exit_code == 4
    assert (sandboxes(in_use), in_use.cvmfs.revision()) == (before, revision)
    assert in_use.sync().exit_code == 0
    is_clean(in_use)


def test_an_image_that_cannot_be_ingested_is_unpacked(in_use: CvmfsHost) -> None:
    stand_in(in_use).fault("ingest", "fail 1 Synchronization failed")
    assert in_use.sync().exit_code == 0
    assert commands(in_use) == UNPACKED
    is_clean(in_use)


def test_a_tool_that_dies_when_the_tree_is_out_is_noticed(in_use: CvmfsHost) -> None:
    stand_in(in_use).fault("ingest", "killed-late")
    assert in_use.sync().exit_code == 0
    assert commands(in_use) == ["abort", "transaction", "publish"]
    is_clean(in_use)


@pytest.mark.parametrize(
    "line",
    [
        "CVMFS_HASH_ALGORITHM=shake128",
        "CVMFS_COMPRESSION_ALGORITHM=none",
        "CVMFS_EXTERNAL_DATA=true",
        "CVMFS_MAX_CHUNK_SIZE=large",
    ],
)
def test_ingest_is_left_alone_where_it_does_not_do_what_the_repository_wants(in_use: CvmfsHost, line: str) -> None:
    configure(in_use, line)
    assert in_use.sync().exit_code == 0
    assert commands(in_use) == UNPACKED
    is_clean(in_use)


def test_an_older_tool_which_would_change_owners_does_not_ingest(in_use: CvmfsHost) -> None:
    (stand_in(in_use).root / "version").write_text("2.11.5")
    assert in_use.sync().exit_code == 0
    assert commands(in_use) == UNPACKED
    is_clean(in_use)


@pytest.mark.parametrize(("kept", "expected"), [("true", UNPACKED), ("false", INGESTED)])
def test_extended_attributes_are_not_lost(in_use: CvmfsHost, kept: str, expected: list[str]) -> None:
    configure(in_use, f"CVMFS_INCLUDE_XATTRS={kept}")
    layers = [tar(runnable()), tar([file("bin/ping", b"ping", mode=0o755, pax=CAPABILITY)])]
    push_image(in_use.registry.address, NEW, "1", layers)
    assert in_use.sync().exit_code == 0
    assert commands(in_use) == expected
    assert in_use.sound() == 4


def test_a_kill_while_the_end_of_the_stream_is_held_costs_only_a_rerun(
    in_use: CvmfsHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, revision = sandboxes(in_use), in_use.cvmfs.revision()
    with monkeypatch.context() as patched:
        in_use.before_storing(patched, lambda: None)
        assert child_process.killed_when(Change("os.link", ".sif"), lambda: assert_synced(in_use))
    in_use.cvmfs.repository().recover()
    assert (sandboxes(in_use), in_use.cvmfs.revision()) == (before, revision)
    assert_synced(in_use)
    is_clean(in_use)


def test_a_kill_before_an_ingested_tree_is_named_costs_only_a_rerun(in_use: CvmfsHost) -> None:
    assert child_process.killed_when(Start("transaction"), lambda: assert_synced(in_use))
    assert len(sandboxes(in_use)) == 3, "the tree, and the file that says that it is not complete"
    (line,) = in_use.cvmfs.repository().recover()
    assert line.endswith("which an interrupted run has ingested and not completed")
    assert len(sandboxes(in_use)) == 1, "its image may have been blocked meanwhile, or have left the list"
    assert in_use.cvmfs.repository().recover() == []
    in_use.sound()
    assert_synced(in_use)
    is_clean(in_use)


def assert_synced(there: CvmfsHost) -> None:
    assert there.sync().exit_code == 0
