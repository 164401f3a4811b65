"""A transaction of ours, in a CVMFS repository, that goes wrong or is killed: mended, or told with what to do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from publisher.targets.repositories.cvmfs.server import CvmfsTimeouts
from tests.support.cvmfs.contract_changes import announce
from tests.support.cvmfs.stand_in import FakeCvmfs, fill
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.targets.repositories.base import Transaction


pytestmark = pytest.mark.system

INDEX = ".publisher/index.json"


# a transaction of ours that goes wrong


def test_nothing_to_publish_is_no_revision(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    announce(fake.repository(), b"1", lambda change: change.remove("nothing"))
    with fake.repository().transaction():
        pass
    assert fake.revision() == 2
    assert fake.commands() == ["transaction", "publish", "transaction", "abort"]


@pytest.mark.parametrize("fault", ["fail 1 Synchronization failed", "kill"])
def test_a_publish_that_fails_is_discarded_and_the_next_one_works(fake: FakeCvmfs, fault: str) -> None:
    fake.fault("publish", fault)
    with pytest.raises(RepositoryError, match="publish"):
        announce(fake.repository())
    assert not fake.flag.exists()
    assert fake.repository().read(INDEX) is None
    assert fake.commands()[-1] == "abort"
    announce(fake.repository())
    assert (fake.repository().read(INDEX), fake.revision()) == (b"1", 2)


def test_a_publish_is_believed_by_the_revision_and_not_by_its_status(fake: FakeCvmfs) -> None:
    fake.fault("publish", "lie")
    with pytest.raises(RepositoryError, match="reports that it has published, but the stratum 0 still shows revision 1"):
        announce(fake.repository())
    assert not fake.flag.exists()
    assert fake.repository().read(INDEX) is None


@pytest.mark.parametrize(("fault", "told"), [("fail-late", "gc -f"), ("killed-late", "cvmfs_server publish")])
def test_a_publish_that_fails_after_its_revision_is_out_is_published(fake: FakeCvmfs, fault: str, told: str) -> None:
    """As when the garbage collection that runs in it fails: the tool ends with 1, and leaves the transaction open."""
    fake.fault("publish", fault)
    repository = fake.repository()
    announce(repository)
    assert not fake.flag.exists()
    assert (fake.repository().read(INDEX), fake.revision()) == (b"1", 2)
    (said,) = repository.take_warnings()
    assert said.startswith("revision 2 is published all the same: ")
    assert told in said
    assert repository.take_warnings() == []
    assert fake.repository().recover() == []


def test_somebody_who_reads_where_the_tool_unmounts_costs_a_note_and_a_wait(fake: FakeCvmfs) -> None:
    """The tool dies of it when the revision is out, and its abort fails for as long as the file is open."""
    announce(fake.repository())
    repository = fake.repository(timeout=0.1)
    with (fake.spool / "rdonly" / INDEX).open() as reader:
        announce(repository, b"2")
        assert reader.read() == "1"
        assert "revision 3 is published all the same" in repository.take_warnings()[0]
        with pytest.raises(RepositoryError, match="abort failed with status 5") as error:
            fake.repository(timeout=0.1).recover()
        assert "lsof" in (error.value.hint or "")
    (said,) = fake.repository().recover()
    assert said.startswith("closed an interrupted transaction, which was published")
    assert fake.repository().read(INDEX) == b"2"


def test_a_reader_who_leaves_in_time_is_waited_for(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    ready, leave = os.pipe(), os.pipe()

    def read() -> None:
        with (fake.spool / "rdonly" / INDEX).open():
            os.write(ready[1], b".")
            os.read(leave[0], 1)

    reader = child_process.start(read)
    os.read(ready[0], 1)
    fake.fault("publish", "fail 1 no")
    publisher = child_process.start(lambda: announce(fake.repository(), b"2"))
    deadline = time.monotonic() + 30
    while "busy" not in fake.commands():  # the first abort has come to nothing
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.write(leave[1], b".")
    assert child_process.end(reader) == 0
    assert child_process.end(publisher) == 1
    assert not fake.flag.exists()
    assert fake.claimed() == []


@pytest.mark.parametrize(
    ("command", "fault", "content"), [("transaction", "interrupt-late", None), ("publish", "interrupt", b"1")]
)
def test_an_interrupt_waits_for_the_tool_and_leaves_nothing_open(
    fake: FakeCvmfs, command: str, fault: str, content: bytes | None
) -> None:
    def publisher() -> None:
        fake.fault(command, f"{fault} {os.getpid()}")
        announce(fake.repository())

    assert child_process.end(child_process.start(publisher)) == 1
    assert not fake.flag.exists()
    assert fake.claimed() == []
    assert fake.repository().read(INDEX) == content
    announce(fake.repository(), b"2")
    assert fake.repository().read(INDEX) == b"2"


def test_a_publish_that_does_not_end_is_ended(fake: FakeCvmfs) -> None:
    fake.fault("publish", "hang")
    with pytest.raises(RepositoryError, match="publish did not end within 1 s"):
        announce(fake.repository(timeouts=CvmfsTimeouts(publish=1)))
    assert not fake.flag.exists()
    announce(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


@pytest.mark.parametrize("fault", ["fail 1 cannot load manifest: the web server is down", "kill"])
def test_an_abort_that_fails_is_made_up_for_by_the_next_run(fake: FakeCvmfs, fault: str) -> None:
    fake.fault("publish", "fail 1 Synchronization failed")
    fake.fault("abort", fault)
    with pytest.raises(RepositoryError, match="Synchronization failed"):
        announce(fake.repository())
    assert fake.flag.exists()
    (said,) = fake.repository().recover()
    assert said.startswith("discarded an interrupted")
    assert not fake.flag.exists()
    announce(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_a_file_that_is_open_for_writing_below_the_mount_is_told(fake: FakeCvmfs) -> None:
    writers: list[IO[str]] = []
    with pytest.raises(RepositoryError, match="Open writable file descriptors") as error:
        announce(fake.repository(), b"1", lambda _: writers.append((fake.mount / "theirs").open("w")))
    writers.pop().close()
    assert "lsof" in (error.value.hint or "")
    assert not fake.flag.exists()


def test_a_reader_below_the_mount_stops_nothing(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    with (fake.mount / INDEX).open() as reader:
        announce(fake.repository(), b"2")
        assert reader.read() == "1"
    assert fake.repository().read(INDEX) == b"2"


def test_a_refused_template_is_unpacked_instead(fake: FakeCvmfs) -> None:
    announce(fake.repository(), b"1", lambda change: fill(change.tree(".images/00/one")))
    fake.fault("transaction", "fail 22 CernVM-FS transaction error: cannot clone directory tree")
    with fake.repository().transaction() as transaction:
        assert transaction.clone(".images/00/one", ".images/00/two") is None
        fill(transaction.tree(".images/00/two"))
    assert fake.repository().read(".images/00/two/file0") == b"content"


def test_extended_attributes_are_kept_as_its_settings_say(fake: FakeCvmfs) -> None:
    assert not fake.repository().keeps_xattrs
    fake.configuration.write_text(fake.configuration.read_text().replace("'false'", "'true'"))
    assert fake.repository().keeps_xattrs
    assert fake.repository().can_clone


def test_names_that_mean_something_to_cvmfs_are_refused(fake: FakeCvmfs) -> None:
    with fake.repository().transaction() as transaction:
        for path in (".cvmfsdirtab", ".cvmfs/x"):
            with pytest.raises(RepositoryError, match="CVMFS"):
                transaction.write(path, b"")
    assert fake.commands() == []


# what a killed run leaves


def test_what_a_killed_run_started_is_waited_for(fake: FakeCvmfs) -> None:
    """Its publish goes on without it."""

    def open_and_be_killed() -> None:
        with fake.repository().transaction() as transaction:
            transaction.write(INDEX, b"1")
            fake.fault("publish", "hang")

    child = child_process.start(open_and_be_killed)
    hanging = _wait_for(lambda: _publishing(fake))
    os.kill(child, 9)
    child_process.end(child)
    with pytest.raises(RepositoryError, match=f"still at work, as process {hanging}") as error:
        fake.repository(timeout=0).recover()
    assert f"kill {hanging}" in (error.value.hint or "")
    os.kill(hanging, 9)
    assert fake.repository().recover() == [f"discarded an interrupted one (opened by process {child})"]
    assert not fake.flag.exists()


def test_what_a_killed_run_left_writing_below_the_mount_is_waited_for(fake: FakeCvmfs) -> None:
    """Programs that unpack go on without it."""
    ready, ended = os.pipe(), os.pipe()

    def open_and_be_killed() -> None:
        with fake.repository().transaction() as transaction:
            tree = transaction.tree(".images/00/one")
            tree.mkdir()
            script = f"exec 3>{tree}/file; echo >&{ready[1]}; read x <&{ended[0]}"
            subprocess.Popen(["bash", "-c", script], pass_fds=(ready[1], ended[0]), start_new_session=True)
            os.read(ready[0], 1)
            os.kill(os.getpid(), 9)

    child = child_process.start(open_and_be_killed)
    assert child_process.end(child) == -9
    with pytest.raises(RepositoryError, match="still at work, as process"):
        fake.repository(timeout=0).recover()
    assert "abort" not in fake.commands()
    os.write(ended[1], b"\n")
    assert fake.repository().recover() == [f"discarded an interrupted one (opened by process {child})"]
    for descriptor in (*ready, *ended):
        os.close(descriptor)


def test_a_stratum_0_that_goes_away_while_publishing_leaves_no_belief(fake: FakeCvmfs) -> None:
    published = (fake.stratum / ".cvmfspublished").read_bytes()
    fake.fault("publish", "lie")
    with pytest.raises(RepositoryError, match=r"\.cvmfspublished"):
        announce(fake.repository(), b"1", lambda _: (fake.stratum / ".cvmfspublished").write_bytes(b"--\n"))
    (fake.stratum / ".cvmfspublished").write_bytes(published)
    fake.repository().recover()
    assert not fake.flag.exists()
    announce(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_a_tree_that_cannot_be_deleted_is_an_error_of_the_repository(fake: FakeCvmfs) -> None:
    def stand_in_the_way(_: Transaction) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "in-the-way", fake.mount / ".images/00/one"], check=True)

    announce(fake.repository(), b"1", lambda change: fill(change.tree(".images/00/one")))
    with pytest.raises(RepositoryError, match="cannot delete"):
        announce(fake.repository(), b"2", lambda change: change.remove(".images/00/one"), stand_in_the_way)
    subprocess.run(["umount", "-l", fake.mount / ".images/00/one"], check=False)
    fake.repository().recover()
    assert fake.repository().exists(".images/00/one/file0")


def test_nothing_but_a_name_is_taken_for_a_repository(fake: FakeCvmfs) -> None:
    for name in ("../x", "a;b", ""):
        with pytest.raises(RepositoryError, match="is not a valid name of a CVMFS repository"):
            fake.named(name)


def test_a_transaction_that_is_over_takes_no_more(fake: FakeCvmfs) -> None:
    with fake.repository().transaction() as transaction:
        pass
    with pytest.raises(RepositoryError, match="is over"):
        transaction.write(INDEX, b"1")
    assert fake.commands() == []


def test_what_was_published_before_the_kill_is_told_so(fake: FakeCvmfs) -> None:
    fake.fault("publish", "killed-late")
    fake.fault("abort", "kill")
    announce(fake.repository())
    (said,) = fake.repository().recover()
    assert said.startswith("closed an interrupted transaction, which was published")
    assert fake.repository().read(INDEX) == b"1"


def test_a_damaged_claim_is_for_the_operator(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    for content in ("", "{}", '{"schema": 2}', "[]"):
        (fake.spool / "image-publisher" / "claim").write_text(content)
        with pytest.raises(RepositoryError, match="image-publisher/claim is damaged") as error:
            fake.repository().recover()
        assert "remove the file" in (error.value.hint or "")


def _wait_for(look: Callable[[], int | None]) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.02)
    pytest.fail("it did not come to that")


def _publishing(fake: FakeCvmfs) -> int | None:
    """The process of the stand-in that hangs in a publish: it has taken its lock and the fault."""
    if (fake.root / "faults/publish").exists() or not (fake.spool / "is_publishing.lock").exists():
        return None
    ours = f"CVMFS_FAKE_ROOT={fake.root}".encode()  # other tests publish at the same time
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            words = (process / "cmdline").read_bytes().split(b"\0")
            if (
                words[0] == str(fake.python).encode()
                and ours in (process / "environ").read_bytes().split(b"\0")
                and any(
                    word.endswith(b"fakes/cvmfs_server") and words[place + 1 : place + 2] == [b"publish"]
                    for place, word in enumerate(words)
                )
            ):
                return int(process.name)
    return None
