"""A CVMFS repository in every state that was met on a real server, before work: each is told with what to do, and left alone."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError, SpaceError
from publisher.system.tar_stream import header
from publisher.targets.repositories.cvmfs.host import HostPaths
from publisher.targets.repositories.cvmfs.repository import CvmfsRepository
from tests.support.cvmfs.contract_changes import announce
from tests.support.cvmfs.stand_in import FQRN, FakeCvmfs, fill
from tests.support.machine import child_process
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path


pytestmark = pytest.mark.system

INDEX = ".publisher/index.json"


def publish_after(fake: FakeCvmfs, work: Callable[[], object]) -> None:
    """Publish, with something done between our look at the repository and our first change."""
    with fake.repository().transaction() as transaction:
        work()
        transaction.write(INDEX, b"1")


def refused(fake: FakeCvmfs, reason: str, hint: str, **more: object) -> None:
    """A run is refused at its start, and a transaction too, with what to do; nothing is opened."""
    before = fake.commands()
    for use in (lambda: fake.repository(**more).recover(), lambda: announce(fake.repository(**more))):
        with pytest.raises(RepositoryError, match=reason) as error:
            use()
        assert hint in (error.value.hint or "")
    assert fake.commands() == before
    assert not fake.flag.exists()


# before work


def open_and_be_killed(fake: FakeCvmfs) -> None:
    """A run of ours leaves its transaction open."""

    def run() -> None:
        with fake.repository().transaction() as transaction:
            transaction.write(INDEX, b"1")
            os.kill(os.getpid(), 9)

    assert child_process.end(child_process.start(run)) == -9


def test_a_healthy_repository_has_nothing_to_say(fake: FakeCvmfs) -> None:
    assert fake.repository().recover() == []
    announce(fake.repository())
    assert fake.commands() == ["transaction", "publish"]
    assert fake.revision() == 2


@pytest.mark.parametrize("conf", [None, "CVMFS_STRATUM0=http://never-answers.invalid\n"])
def test_another_repository_of_the_host_stops_nothing(fake: FakeCvmfs, conf: str | None) -> None:
    """The tool's own `list` walks all of them: it fails for an empty directory, and hangs if a web server does."""
    other = fake.root / "etc/other.example.org"
    other.mkdir()
    if conf is None:
        assert fake.run("list", check=False).returncode == 2
    else:
        (other / "server.conf").write_text(conf)
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run([fake.program, "list"], timeout=1, check=False, stdout=subprocess.DEVNULL)
    assert fake.repository().recover() == []
    announce(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_a_replica_is_not_published_to(fake: FakeCvmfs) -> None:
    (fake.root / "etc" / FQRN / "replica.conf").touch()
    refused(fake, "this is a stratum 1", "where the stratum 0 is published")


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
    refused(fake, r"stratum 0 .* cannot be read: \.cvmfswhitelist", "web server")


def test_a_stratum_0_elsewhere_is_asked_itself(fake: FakeCvmfs) -> None:
    """What `cvmfs_server list` finds in order need not be what clients get."""
    (fake.stratum / ".cvmfspublished").unlink()
    with pytest.raises(RepositoryError, match=r"stratum 0 file://.* cannot be read"):
        announce(fake.repository())
    assert fake.commands() == []


def test_a_repository_that_is_not_there_is_told(fake: FakeCvmfs) -> None:
    for name in ("other.example.org", f"x{FQRN}", FQRN[1:]):
        with pytest.raises(RepositoryError, match="no such repository on this host") as error:
            fake.named(name).recover()
        assert f"cvmfs_server mkfs {name}" in (error.value.hint or "")


def test_an_unmounted_repository_is_not_an_empty_one(fake: FakeCvmfs) -> None:
    """As after a reboot: nothing may be published as if nothing had been."""
    announce(fake.repository())
    subprocess.run(["umount", "-l", fake.spool / "rdonly"], check=True)
    refused(fake, "mounts are not as they should be", f"cvmfs_server mount {FQRN}")
    for look in (lambda: fake.repository().read(INDEX), lambda: fake.repository().exists(INDEX), fake.repository().links):
        with pytest.raises(RepositoryError, match="not mounted"):
            look()
    fake.run("mount", FQRN)
    assert fake.repository().read(INDEX) == b"1"


def test_a_host_that_has_its_repositories_behind_a_link_is_as_good(fake: FakeCvmfs, tmp_path: Path) -> None:
    """The kernel shows mounts without symbolic links."""
    (tmp_path / "link").symlink_to(fake.root)
    host_paths = HostPaths(*(tmp_path / "link" / part for part in ("cvmfs", "spool", "etc", "kernel")))
    repository = CvmfsRepository(FQRN, program=str(fake.program), host_paths=host_paths)
    assert repository.recover() == []
    announce(repository)
    assert repository.read(INDEX) == b"1"


def test_a_repository_with_an_old_tag_checked_out_is_not_published_to(fake: FakeCvmfs) -> None:
    (fake.spool / "checkout").touch()
    refused(fake, "an old tag is checked out", f"cvmfs_server checkout {FQRN}")


def test_a_host_without_the_stratum_0s_address_is_told(fake: FakeCvmfs) -> None:
    fake.configuration.write_text("CVMFS_STRATUM0_OTHER=x\n")
    with pytest.raises(RepositoryError):
        fake.repository().recover()
    fake.configuration.unlink()
    with pytest.raises(RepositoryError, match=r"server\.conf"):
        _ = fake.repository().keeps_xattrs


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("CVMFS_AUTO_TAG=true", "tagged content is never collected; set it to false"),
        ("CVMFS_AUTO_GC=true", "fails with it; set it to false"),
        ("CVMFS_GARBAGE_COLLECTION=false", "stays in the storage for ever; set it to true"),
        ("CVMFS_FORCE_REMOUNT_WARNING=true", "waits a minute"),
        ("CVMFS_AUTO_REPAIR_MOUNTPOINT=false", "by hand after a killed publish; set it to true"),
        ("CVMFS_ENFORCE_LIMITS=true", "keeps all others from being published"),
    ],
)
def test_a_setting_that_makes_trouble_is_told_before_work_and_stops_nothing(fake: FakeCvmfs, line: str, told: str) -> None:
    with fake.configuration.open("a") as conf:
        conf.write(f"{line}\n")
    (said,) = fake.repository().recover()
    assert line in said
    assert told in said
    announce(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_what_is_set_for_all_repositories_counts_where_theirs_say_nothing(fake: FakeCvmfs) -> None:
    (fake.root / "server.local").write_text("CVMFS_AUTOCATALOGS=true\nCVMFS_AUTO_TAG=true\n")
    (said,) = fake.repository().recover()
    assert "CVMFS_AUTOCATALOGS=true" in said


# readers


def test_a_reader_waits_for_the_mount_that_a_publish_takes_away_at_its_end(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    fake.run("transaction", FQRN)
    subprocess.run(["umount", fake.spool / "rdonly"], check=True)
    read, write = os.pipe()
    child = child_process.start(lambda: os.write(write, fake.repository().read(INDEX) or b"nothing"))
    try:
        with pytest.raises(RepositoryError, match="not mounted"):
            fake.repository(timeout=0.2).read(INDEX)
        assert child_process.running(child)
        fake.run("abort", "-f", FQRN)
        assert os.read(read, 100) == b"1"
    finally:
        assert child_process.end(child) == 0


def test_a_look_is_taken_anew_where_a_publish_came_in_between(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    looks = []

    def look() -> bytes | None:
        looks.append(fake.repository().read(INDEX))
        if len(looks) == 1:
            fake.run("transaction", FQRN)
            (fake.mount / INDEX).write_bytes(b"2")
            fake.run("publish", "-f", FQRN)
        return looks[-1]

    assert fake.repository().read_consistently(look) == b"2"
    assert looks == [b"1", b"2"]


def test_a_look_that_publishes_never_leave_alone_is_given_up(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    looks = []

    def look() -> None:
        looks.append(fake.repository().read(INDEX))
        if len(looks) < 9:
            fake.run("transaction", FQRN)
            fake.run("publish", "-f", FQRN)

    with pytest.raises(RepositoryError, match="a publish came in between"):
        fake.repository().read_consistently(look)
    assert len(looks) == 5


def ingest(fake: FakeCvmfs) -> None:
    with fake.repository().ingest(".images/00") as stream:
        stream.add(header(b"00", b"5", mode=0o755))
    announce(fake.repository(), b"2", lambda change: change.complete(".images/00"))


@pytest.mark.parametrize(
    ("publish", "commands"),
    [
        (lambda fake: announce(fake.repository(), b"2"), ["transaction", "publish"]),
        (ingest, ["ingest", "transaction", "publish"]),
    ],
)
def test_a_publish_waits_for_who_looks_and_who_looks_for_a_publish(
    fake: FakeCvmfs, publish: Callable[[FakeCvmfs], None], commands: list[str]
) -> None:
    """The tool fails halfway where anybody reads in the published mount."""
    announce(fake.repository(), b"1", lambda change: fill(change.tree(".images/first")))
    inside, go_on = os.pipe(), os.pipe()

    def look_long() -> None:
        def look() -> None:
            with (fake.spool / "rdonly" / INDEX).open():
                os.write(inside[1], b".")
                os.read(go_on[0], 1)

        fake.repository().read_consistently(look)

    looking = child_process.start(look_long)
    os.read(inside[0], 1)
    publishing = child_process.start(lambda: publish(fake))
    deadline = time.monotonic() + 30
    while _lockable(fake, "gate") and time.monotonic() < deadline:
        time.sleep(0.02)
    inside_still = _lockable(fake, "readers")
    os.write(go_on[1], b".")
    assert inside_still, "the publish holds it although somebody looks"
    assert child_process.end(looking) == 0
    assert child_process.end(publishing) == 0
    assert fake.commands() == ["transaction", "publish", *commands]
    assert fake.repository().read(INDEX) == b"2"
    assert {path.name for path in (fake.spool / "image-publisher").iterdir()} == {"lock", "boot", "gate", "readers"}


def _lockable(fake: FakeCvmfs, name: str) -> bool:
    """Whether a reader could have this lock of the gate at once."""
    with (fake.spool / "image-publisher" / name).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


# somebody else's transaction


def test_somebody_elses_transaction_is_never_touched(fake: FakeCvmfs) -> None:
    fake.run("transaction", FQRN)
    (fake.mount / "theirs").write_text("work")
    before = fake.commands()
    assert fake.repository().recover() == []
    with pytest.raises(RepositoryError, match="somebody else's transaction is open") as error:
        announce(fake.repository())
    assert "not touched" in (error.value.hint or "")
    assert fake.commands() == before
    assert (fake.mount / "theirs").read_text() == "work"
    fake.run("publish", FQRN)
    announce(fake.repository())
    assert fake.repository().read("theirs") == b"work"


def test_a_transaction_that_somebody_opens_just_before_ours_is_not_touched(fake: FakeCvmfs) -> None:
    """Between our look and our opening: the tool says 17, and whose it is is known."""
    with pytest.raises(RepositoryError, match="somebody else's"):
        publish_after(fake, lambda: fake.run("transaction", FQRN))
    assert "abort" not in fake.commands()
    assert fake.flag.exists()
    assert fake.repository().recover() == []
    assert fake.flag.exists()


def test_a_publish_of_somebody_else_that_ends_while_ours_begins_is_not_taken_for_ours(fake: FakeCvmfs) -> None:
    class Stratum(FileServer):
        def answer(self, request: BaseHTTPRequestHandler) -> None:
            if request.path == "/.cvmfspublished" and fake.flag.exists() and not fake.claimed():
                before = (fake.stratum / ".cvmfspublished").read_bytes()
                fake.run("publish", FQRN)
                fake.fault("publish", "fail 1 no")
                request.send_response(200)
                request.send_header("Content-Length", str(len(before)))
                request.end_headers()
                request.wfile.write(before)
            else:
                super().answer(request)

    with Stratum(fake.stratum) as server:
        conf = fake.configuration.read_text()
        fake.configuration.write_text(conf.replace(f"file://{fake.stratum}", server.url))
        with pytest.raises(RepositoryError, match="somebody else's transaction is open"):
            publish_after(fake, lambda: fake.run("transaction", FQRN))
        fake.run("publish", FQRN)
        announce(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_the_tools_own_refusal_counts_where_our_look_missed_it(fake: FakeCvmfs) -> None:
    fake.fault("transaction", "fail 17 CernVM-FS transaction error: another transaction is already open")
    with pytest.raises(RepositoryError, match="somebody else's transaction is open"):
        announce(fake.repository())
    assert fake.claimed() == []


def test_what_somebody_opened_after_an_operator_ended_ours_is_theirs(fake: FakeCvmfs) -> None:
    open_and_be_killed(fake)
    fake.run("abort", "-f", FQRN)
    fake.run("transaction", FQRN)
    (fake.mount / "theirs").write_text("work")
    assert fake.repository().recover() == []
    assert (fake.mount / "theirs").read_text() == "work"
    assert fake.claimed() == []


def cut_off_while_opening(fake: FakeCvmfs) -> None:
    """A run and its tool end at one blow, while the transaction is being opened."""
    fake.fault("transaction", "cut-late")
    with pytest.raises(RepositoryError):
        announce(fake.repository())
    assert fake.flag.exists()


def test_a_tool_that_is_killed_while_it_opens_costs_only_a_rerun(fake: FakeCvmfs) -> None:
    fake.fault("transaction", "killed-late")
    with pytest.raises(RepositoryError):
        announce(fake.repository())
    announce(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_a_transaction_whose_opening_was_cut_off_without_a_trace_is_for_the_operator(fake: FakeCvmfs) -> None:
    """Without a reboot, somebody else may have opened it since and not have written yet."""
    cut_off_while_opening(fake)
    for use in (fake.repository().recover, lambda: announce(fake.repository())):
        with pytest.raises(RepositoryError, match="it is unknown whether it is ours") as error:
            use()
        assert f"cvmfs_server abort -f {FQRN}" in (error.value.hint or "")
    assert "abort" not in fake.commands()
    fake.run("abort", "-f", FQRN)
    announce(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


def test_a_transaction_without_a_record_in_which_something_was_written_is_somebody_elses(fake: FakeCvmfs) -> None:
    """Ours is on record before we write."""
    cut_off_while_opening(fake)
    (fake.mount / "theirs").write_text("work")
    assert fake.repository().recover() == []
    with pytest.raises(RepositoryError, match="somebody else's transaction is open"):
        announce(fake.repository())
    assert (fake.mount / "theirs").read_text() == "work"
    assert fake.claimed() == []


# power cuts


def test_a_power_cut_while_a_transaction_is_opened_is_recovered_from(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    cut_off_while_opening(fake)
    fake.reboot()
    (said,) = fake.repository().recover()
    assert said.startswith("discarded an interrupted one")
    assert not fake.flag.exists()
    announce(fake.repository(), b"2")
    assert fake.repository().read(INDEX) == b"2"


def test_what_somebody_opened_after_the_reboot_is_theirs(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    cut_off_while_opening(fake)
    fake.reboot()
    fake.run("abort", "-f", FQRN)
    fake.run("transaction", FQRN)
    os.utime(fake.flag, (time.time() + 60, time.time() + 60))
    assert fake.repository().recover() == []
    assert fake.flag.exists()
    assert fake.claimed() == []


def test_a_power_cut_in_the_middle_of_a_transaction_is_recovered_from(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    open_and_be_killed(fake)
    fake.reboot()
    (said,) = fake.repository().recover()
    assert said.startswith("discarded an interrupted one")
    assert fake.repository().read(INDEX) == b"1"


def test_a_power_cut_between_transactions_is_recovered_from(fake: FakeCvmfs) -> None:
    announce(fake.repository())
    fake.reboot()
    assert fake.repository().recover() == [f"mounted {FQRN} after a reboot"]
    assert fake.repository().recover() == []
    announce(fake.repository(), b"2")
    assert fake.repository().read(INDEX) == b"2"


def test_a_transaction_whose_record_does_not_fit_on_the_disk_is_not_used(fake: FakeCvmfs) -> None:
    with pytest.raises(SpaceError, match="no space for the record"):
        publish_after(fake, lambda: (fake.spool / "image-publisher/opened.new").symlink_to("/dev/full"))
    assert not fake.flag.exists()
    assert fake.commands() == ["transaction", "abort"]


def test_a_transaction_with_an_empty_record_is_for_the_operator(fake: FakeCvmfs) -> None:
    open_and_be_killed(fake)
    os.truncate(fake.spool / "image-publisher/opened", 0)
    with pytest.raises(RepositoryError, match="it is unknown whether it is ours"):
        fake.repository().recover()
    fake.run("abort", "-f", FQRN)
    assert fake.repository().recover() == []
    assert fake.claimed() == []


def test_somebody_elses_publish_is_waited_for_and_what_a_dead_one_left_is_not(fake: FakeCvmfs) -> None:
    """The file is there after a kill, too: it is the lock on it that counts."""
    with (fake.spool / "is_publishing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RepositoryError, match="somebody else's transaction is open"):
            announce(fake.repository())
        assert fake.commands() == []
    announce(fake.repository())
    assert fake.repository().read(INDEX) == b"1"


# what it costs


def test_what_a_publish_costs_does_not_grow_with_the_images_of_a_repository(fake: FakeCvmfs) -> None:
    """By the measured model: what is new, and the catalogs from the root to it, whatever else there is."""
    parents = [f".images/{number:02x}" for number in range(256)]

    def add(first: int, count: int, files: int) -> dict[str, int]:
        with fake.repository(parents=parents).transaction() as transaction:
            for number in range(first, first + count):
                path = f".images/{number % 256:02x}/{number:08x}"
                fill(transaction.tree(path), files)
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
