"""A CVMFS repository in every state that was met on a real server, on the stand-in: each is told with what to do, or mended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from publisher.repositories.cvmfs import Deadlines
from tests.support import children
from tests.support.cvmfs import FQRN, FakeCvmfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from publisher.repositories import Repository, Transaction

pytestmark = pytest.mark.system

INDEX = ".publisher/index.json"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeCvmfs]:
    made = FakeCvmfs(tmp_path)
    yield made
    made.close()


def publish(repository: Repository, content: bytes = b"1", *more: Callable[[Transaction], object]) -> None:
    with repository.transaction() as transaction:
        transaction.write(INDEX, content)
        for step in more:
            step(transaction)


def publish_after(fake: FakeCvmfs, work: Callable[[], object]) -> None:
    """Publish, with something done between our look at the repository and our first change."""
    with fake.repository().transaction() as transaction:
        work()
        transaction.write(INDEX, b"1")


def make(tree: Path, files: int = 3) -> None:
    tree.mkdir()
    for number in range(files):
        (tree / f"file{number}").write_bytes(b"content")
    (tree / ".cvmfscatalog").touch()


def refused(fake: FakeCvmfs, reason: str, hint: str, **more: object) -> None:
    """A run is refused at its start, and a transaction too, with what to do; nothing is opened."""
    before = fake.commands()
    for use in (lambda: fake.repository(**more).recover(), lambda: publish(fake.repository(**more))):
        with pytest.raises(RepositoryError, match=reason) as error:
            use()
        assert hint in (error.value.hint or "")
    assert fake.commands() == before
    assert not fake.flag.exists()


# before work


def test_a_healthy_repository_has_nothing_to_say(fake: FakeCvmfs) -> None:
    assert fake.repository().recover() == []
    publish(fake.repository())
    assert fake.commands() == ["transaction", "publish"]
    assert fake.revision() == 2


def test_an_expired_whitelist_is_told_before_work(fake: FakeCvmfs) -> None:
    fake.expire_whitelist(-60)
    refused(fake, "whitelist has expired", f"cvmfs_server resign {FQRN}")


def test_a_whitelist_that_will_expire_is_told_ahead(fake: FakeCvmfs) -> None:
    fake.expire_whitelist(30 * 3600)
    (said,) = fake.repository().recover()
    assert "expires in 30 h" in said
    assert f"cvmfs_server resign {FQRN}" in said


def test_a_stratum_0_that_does_not_answer_is_told_before_work(fake: FakeCvmfs) -> None:
    (fake.stratum / ".cvmfswhitelist").unlink()
    refused(fake, "whitelist cannot be read", "web server")


def test_a_stratum_0_elsewhere_is_asked_itself(fake: FakeCvmfs) -> None:
    """What `cvmfs_server list` finds in order need not be what clients get."""
    (fake.stratum / ".cvmfspublished").unlink()
    with pytest.raises(RepositoryError, match=r"stratum 0 file://.* cannot be read"):
        publish(fake.repository())
    assert fake.commands() == []


def test_a_repository_that_is_not_there_is_told(fake: FakeCvmfs) -> None:
    for name in ("other.example.org", f"x{FQRN}", FQRN[1:]):
        with pytest.raises(RepositoryError, match="no such repository on this host") as error:
            fake.named(name).recover()
        assert f"cvmfs_server mkfs {name}" in (error.value.hint or "")


def test_an_unmounted_repository_is_not_an_empty_one(fake: FakeCvmfs) -> None:
    """As after a reboot: nothing may be published as if nothing had been."""
    publish(fake.repository())
    subprocess.run(["umount", "-l", fake.spool / "rdonly"], check=True)
    refused(fake, "mounts are not as they should be", f"cvmfs_server mount {FQRN}")
    for look in (lambda: fake.repository().read(INDEX), lambda: fake.repository().exists(INDEX), fake.repository().links):
        with pytest.raises(RepositoryError, match="not mounted"):
            look()
    fake.run("mount", FQRN)
    assert fake.repository().read(INDEX) == b"1"


def test_a_repository_with_an_old_tag_checked_out_is_not_published_to(fake: FakeCvmfs) -> None:
    (fake.spool / "checkout").touch()
    refused(fake, "an old tag is checked out", f"cvmfs_server checkout {FQRN}")


def test_a_host_without_the_stratum_0s_address_is_told(fake: FakeCvmfs) -> None:
    fake.configuration.write_text("CVMFS_STRATUM0_OTHER=x\n")
    with pytest.raises(RepositoryError):
        fake.repository().recover()
    fake.configuration.unlink()
    with pytest.raises(RepositoryError, match=r"server\.conf"):
        _ = fake.repository().clones


# somebody else's transaction


def test_somebody_elses_transaction_is_never_touched(fake: FakeCvmfs) -> None:
    fake.run("transaction", FQRN)
    (fake.mount / "theirs").write_text("work")
    before = fake.commands()
    assert fake.repository().recover() == []
    with pytest.raises(RepositoryError, match="somebody else's transaction is open") as error:
        publish(fake.repository())
    assert "not touched" in (error.value.hint or "")
    assert fake.commands() == before
    assert (fake.mount / "theirs").read_text() == "work"
    fake.run("publish", FQRN)
    publish(fake.repository())
    assert fake.repository().read("theirs") == b"work"


def test_a_transaction_that_somebody_opens_just_before_ours_is_not_touched(fake: FakeCvmfs) -> None:
    """Between our look and our opening: the tool says 17, and whose it is is known."""
    with pytest.raises(RepositoryError, match="somebody else's"):
        publish_after(fake, lambda: fake.run("transaction", FQRN))
    assert "abort" not in fake.commands()
    assert fake.flag.exists()
    assert fake.repository().recover() == []
    assert fake.flag.exists()


def test_the_tools_own_refusal_counts_where_our_look_missed_it(fake: FakeCvmfs) -> None:
    fake.fault("transaction", "fail 17 CernVM-FS transaction error: another transaction is already open")
    with pytest.raises(RepositoryError, match="somebody else's transaction is open"):
        publish(fake.repository())
    assert [path.name for path in (fake.spool / "image-publisher").iterdir()] == ["lock"]


def test_what_somebody_opened_after_an_operator_ended_ours_is_theirs(fake: FakeCvmfs) -> None:
    def open_and_be_killed() -> None:
        with fake.repository().transaction() as transaction:
            transaction.write(INDEX, b"1")
            os.kill(os.getpid(), 9)

    assert children.end(children.start(open_and_be_killed)) == -9
    fake.run("abort", "-f", FQRN)
    fake.run("transaction", FQRN)
    (fake.mount / "theirs").write_text("work")
    assert fake.repository().recover() == []
    assert (fake.mount / "theirs").read_text() == "work"
    assert [path.name for path in (fake.spool / "image-publisher").iterdir()] == ["lock"]


def test_a_transaction_whose_opening_was_cut_off_without_a_trace_is_for_the_operator(fake: FakeCvmfs) -> None:
    """All at one blow, as when the power goes: nothing proves whose the open transaction is."""
    fake.fault("transaction", "killed-late")
    with pytest.raises(RepositoryError):
        publish(fake.repository())
    for use in (fake.repository().recover, lambda: publish(fake.repository())):
        with pytest.raises(RepositoryError, match="whose it is cannot be told") as error:
            use()
        assert f"cvmfs_server abort -f {FQRN}" in (error.value.hint or "")
    assert "abort" not in fake.commands()
    fake.run("abort", "-f", FQRN)
    publish(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_somebody_elses_publish_is_waited_for_and_what_a_dead_one_left_is_not(fake: FakeCvmfs) -> None:
    """The file is there after a kill, too: it is the lock on it that counts."""
    with (fake.spool / "is_publishing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RepositoryError, match="somebody else's transaction is open"):
            publish(fake.repository())
        assert fake.commands() == []
    assert "unhealthy" in fake.listed()
    with pytest.raises(RepositoryError, match="mounts are not as they should be"):
        publish(fake.repository())
    (fake.spool / "is_publishing.lock").unlink()
    publish(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


# a transaction of ours that goes wrong


def test_nothing_to_publish_is_no_revision(fake: FakeCvmfs) -> None:
    publish(fake.repository())
    publish(fake.repository(), b"1", lambda change: change.remove("nothing"))
    with fake.repository().transaction():
        pass
    assert fake.revision() == 2
    assert fake.commands() == ["transaction", "publish", "transaction", "abort"]


@pytest.mark.parametrize("fault", ["fail 1 Synchronization failed", "kill"])
def test_a_publish_that_fails_is_discarded_and_the_next_one_works(fake: FakeCvmfs, fault: str) -> None:
    fake.fault("publish", fault)
    with pytest.raises(RepositoryError, match="publish"):
        publish(fake.repository())
    assert not fake.flag.exists()
    assert fake.repository().read(INDEX) is None
    assert fake.commands()[-1] == "abort"
    publish(fake.repository())
    assert (fake.repository().read(INDEX), fake.revision()) == (b"1", 2)


def test_a_publish_is_believed_by_the_revision_and_not_by_its_status(fake: FakeCvmfs) -> None:
    fake.fault("publish", "lie")
    with pytest.raises(RepositoryError, match="says that it has published, but the stratum 0 still shows revision 1"):
        publish(fake.repository())
    assert not fake.flag.exists()
    assert fake.repository().read(INDEX) is None


@pytest.mark.parametrize("fault", ["fail-late", "killed-late"])
def test_a_publish_that_fails_after_its_revision_is_out_is_published(fake: FakeCvmfs, fault: str) -> None:
    """As when the garbage collection that runs in it fails: the tool ends with 1, and leaves the transaction open."""
    fake.fault("publish", fault)
    publish(fake.repository())
    assert not fake.flag.exists()
    assert (fake.repository().read(INDEX), fake.revision()) == (b"1", 2)
    assert fake.repository().recover() == []


def test_a_publish_that_does_not_end_is_ended(fake: FakeCvmfs) -> None:
    fake.fault("publish", "hang")
    with pytest.raises(RepositoryError, match="publish did not end within 1 s"):
        publish(fake.repository(deadlines=Deadlines(publish=1)))
    assert not fake.flag.exists()
    publish(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


@pytest.mark.parametrize("fault", ["fail 1 cannot load manifest: the web server is down", "kill"])
def test_an_abort_that_fails_is_made_up_for_by_the_next_run(fake: FakeCvmfs, fault: str) -> None:
    fake.fault("publish", "fail 1 Synchronization failed")
    fake.fault("abort", fault)
    with pytest.raises(RepositoryError, match="Synchronization failed"):
        publish(fake.repository())
    assert fake.flag.exists()
    (said,) = fake.repository().recover()
    assert said.startswith("discarded an interrupted")
    assert not fake.flag.exists()
    publish(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_a_file_that_is_open_for_writing_below_the_mount_is_told(fake: FakeCvmfs) -> None:
    writers: list[IO[str]] = []
    with pytest.raises(RepositoryError, match="Open writable file descriptors") as error:
        publish(fake.repository(), b"1", lambda _: writers.append((fake.mount / "theirs").open("w")))
    writers.pop().close()
    assert "lsof" in (error.value.hint or "")
    assert not fake.flag.exists()


def test_a_reader_below_the_mount_stops_nothing(fake: FakeCvmfs) -> None:
    publish(fake.repository())
    with (fake.mount / INDEX).open() as reader:
        publish(fake.repository(), b"2")
        assert reader.read() == "1"
    assert fake.repository().read(INDEX) == b"2"


def test_a_refused_template_is_unpacked_instead(fake: FakeCvmfs) -> None:
    publish(fake.repository(), b"1", lambda change: make(change.tree(".images/00/one")))
    fake.fault("transaction", "fail 22 CernVM-FS transaction error: cannot clone directory tree")
    with fake.repository().transaction() as transaction:
        assert transaction.clone(".images/00/one", ".images/00/two") is None
        make(transaction.tree(".images/00/two"))
    assert fake.repository().read(".images/00/two/file0") == b"content"


def test_extended_attributes_keep_it_from_cloning(fake: FakeCvmfs) -> None:
    """No file index knows them."""
    assert fake.repository().clones
    fake.configuration.write_text(fake.configuration.read_text().replace("'false'", "'true'"))
    assert not fake.repository().clones


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

    child = children.start(open_and_be_killed)
    hanging = _wait_for(lambda: _publishing(fake))
    os.kill(child, 9)
    children.end(child)
    with pytest.raises(RepositoryError, match=f"still at work, as process {hanging}") as error:
        fake.repository(patience=0).recover()
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

    child = children.start(open_and_be_killed)
    assert children.end(child) == -9
    with pytest.raises(RepositoryError, match="still at work, as process"):
        fake.repository(patience=0).recover()
    assert "abort" not in fake.commands()
    os.write(ended[1], b"\n")
    assert fake.repository().recover() == [f"discarded an interrupted one (opened by process {child})"]
    for descriptor in (*ready, *ended):
        os.close(descriptor)


def test_a_stratum_0_that_goes_away_while_publishing_leaves_no_belief(fake: FakeCvmfs) -> None:
    published = (fake.stratum / ".cvmfspublished").read_bytes()
    fake.fault("publish", "lie")
    with pytest.raises(RepositoryError, match=r"\.cvmfspublished"):
        publish(fake.repository(), b"1", lambda _: (fake.stratum / ".cvmfspublished").write_bytes(b"--\n"))
    (fake.stratum / ".cvmfspublished").write_bytes(published)
    fake.repository().recover()
    assert not fake.flag.exists()
    publish(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_a_tree_that_cannot_be_deleted_is_an_error_of_the_repository(fake: FakeCvmfs) -> None:
    def stand_in_the_way(_: Transaction) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "in-the-way", fake.mount / ".images/00/one"], check=True)

    publish(fake.repository(), b"1", lambda change: make(change.tree(".images/00/one")))
    with pytest.raises(RepositoryError, match="cannot delete"):
        publish(fake.repository(), b"2", lambda change: change.remove(".images/00/one"), stand_in_the_way)
    subprocess.run(["umount", "-l", fake.mount / ".images/00/one"], check=False)
    fake.repository().recover()
    assert fake.repository().exists(".images/00/one/file0")


def test_nothing_but_a_name_is_taken_for_a_repository(fake: FakeCvmfs) -> None:
    for name in ("../x", "a;b", ""):
        with pytest.raises(RepositoryError, match="no name of a CVMFS repository"):
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
    publish(fake.repository())
    (said,) = fake.repository().recover()
    assert said.startswith("closed an interrupted transaction, which was published")
    assert fake.repository().read(INDEX) == b"1"


def test_a_damaged_claim_is_for_the_operator(fake: FakeCvmfs) -> None:
    publish(fake.repository())
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
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0] == str(fake.python).encode() and any(
                word.endswith(b"fakes/cvmfs_server") and words[place + 1 : place + 2] == [b"publish"]
                for place, word in enumerate(words)
            ):
                return int(process.name)
    return None


# what it costs


def test_what_a_publish_costs_does_not_grow_with_the_images_of_a_repository(fake: FakeCvmfs) -> None:
    """By the measured model: what is new, and the catalogs from the root to it, whatever else there is."""
    parents = [f".images/{number:02x}" for number in range(256)]

    def add(first: int, count: int, files: int) -> dict[str, int]:
        with fake.repository(parents=parents).transaction() as transaction:
            for number in range(first, first + count):
                path = f".images/{number % 256:02x}/{number:08x}"
                make(transaction.tree(path), files)
                transaction.link(f"many/image:{number}", f"../{path}")
            if first == 0:
                transaction.write(".images/.cvmfscatalog", b"")
            transaction.write(INDEX, json.dumps([first, count]).encode())
        costs: dict[str, int] = fake.log()[-1]
        return costs

    add(0, 10, 3)
    small = add(10, 1, 3)
    add(11, 300, 40)
    large = add(311, 1, 3)
    assert large["entries"] == small["entries"]
    assert large["bytes"] <= small["bytes"] + 2  # the index says a larger number
    assert large["catalog_entries"] - small["catalog_entries"] == 301 * 2  # a link and a directory for each image, no file of it
