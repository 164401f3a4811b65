"""Sandboxes made from SIFs: both forms have the same tree and run; failures leave nothing."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.build.local import LocalBuilder
from publisher.build.sandbox.unpack import unpack
from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.build.squash.find import find_squasher
from publisher.build.squash.programs import Mksquashfs
from publisher.build.testrun import TestRunner
from publisher.errors import RepositoryError, SpaceError
from publisher.layers.survey import StreamSurvey
from publisher.state.paths import CATALOG_MARK
from publisher.system import command
from publisher.system.durable import delete
from tests.support.images.built_layers import request
from tests.support.images.layers import Entry, directory, file, hardlink, symlink, tar, tree_on_disk
from tests.support.images.runnable import runnable
from tests.support.images.tar_stream import NOW, squashed
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

_CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # cap_net_raw+ep
ENTRIES = [
    *runnable(),
    *(directory("closed", 0o500), directory("closed/below", 0o555), file("closed/below/file", b"1", mode=0o400)),
    *(file("set-user-id", mode=0o4755), directory("sticky", 0o1777), Entry("fifo", "pipe"), symlink("up", "../../../etc/shadow")),
    *(file("etc/a", b"12", uid=7, gid=8), hardlink("etc/b", "etc/a"), file("caf\udce9\n"), symlink("dangling", "/no/where")),
    file("sparse", bytes(300_000) + b"end"),
]
CONFIG = {"Env": ["PATH=/bin", "A=1 2"], "Entrypoint": ["/bin/sh", "-c", 'echo "$A" "$0"'], "Cmd": ["word"]}


def as_user(function: Callable[[], object]) -> None:
    """Run a function in a child process as an ordinary user."""

    def child() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        function()

    assert child_process.end(child_process.start(child)) == 0


@pytest.fixture(scope="module")
def sif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("sif")
    (where / "scratch").mkdir()
    builder = LocalBuilder(where / "builds", find_squasher(), TestRunner("nobody", where / "scratch"), now=lambda: NOW)
    return builder.build(request([tar(ENTRIES)], where / "blobs", CONFIG), lambda *_: None).sif


@pytest.fixture
def open_sif(sif: Path, shared_path: Path) -> Path:
    """The SIF, readable by everybody, in a directory where everybody can write."""
    shared_path.chmod(0o777)
    place = shared_path / "image.sif"
    place.write_bytes(sif.read_bytes())
    return place


def listing(*arguments: str, account: command.UnixAccount | None = None, home: Path) -> dict[str, str]:
    """Return path -> the output of ``find`` in a container, without Apptainer's mounts."""
    env = {"HOME": str(home), "APPTAINER_CONFIGDIR": f"{home}/config", "APPTAINER_NO_PRIVS": "1"}
    argv = ["apptainer", "--silent", "exec", "--containall", "--no-home", "--pwd", "/", *arguments]
    argv += ["find", "/", "-xdev", "-printf", r"%p\t%y %m %s %n %T@ %l\0"]
    said = command.run(argv, deadline=60, env=env, cwd=home, account=account).stdout.decode(errors="surrogateescape")
    found = dict(line.split("\t", 1) for line in said.split("\0") if line)
    mounted = ["/", *(f"/{name}" for name in ["dev", "etc", "proc", "root", "sys", "tmp", "var/tmp", "var", "home"])]
    return {path: text for path, text in found.items() if path not in mounted and not path.startswith(("/etc/", "/dev/"))}


def test_a_sif_and_its_sandbox_show_the_same_tree_to_an_ordinary_user(open_sif: Path, shared_path: Path) -> None:
    sandbox = shared_path / "sandbox"
    unpack(open_sif, sandbox, deadline=60)
    account = command.UnixAccount(65534, 65534) if os.geteuid() == 0 else None
    trees = [listing(str(image), account=account, home=shared_path) for image in (open_sif, sandbox)]
    if os.geteuid() != 0:  # an ordinary user's unsquashfs gives no setuid bits
        trees[1]["/set-user-id"] = trees[1]["/set-user-id"].replace("f 755", "f 4755")
    assert trees[1].pop(f"/{CATALOG_MARK}").startswith("f 644 0 1 ")
    # what squashfuse says of a directory's size and links is its own
    comparable = [{path: text if text[0] != "d" else text.split()[:2] for path, text in tree.items()} for tree in trees]
    assert comparable[0] == comparable[1]
    assert {"/closed/below/file", "/caf\udce9\n", "/up", "/pipe"} <= trees[0].keys()


def test_a_sandbox_runs_as_its_sif_runs(open_sif: Path, shared_path: Path) -> None:
    sandbox = shared_path / "sandbox"
    unpack(open_sif, sandbox, deadline=60)
    said = []
    for image in (open_sif, sandbox):
        env = {"HOME": str(shared_path), "APPTAINER_CONFIGDIR": f"{shared_path}/config"}
        account = command.UnixAccount(65534, 65534) if os.geteuid() == 0 else None
        argv = ["apptainer", "--silent", "run", "--containall", str(image)]
        said.append(command.run(argv, deadline=60, env=env, cwd=shared_path, account=account).stdout)
    assert said == [b"1 2 word\n"] * 2


def test_an_ordinary_user_gets_the_same_tree_as_his_own_whatever_his_umask(open_sif: Path, shared_path: Path) -> None:
    sandboxes = [shared_path / "ours", shared_path / "theirs"]
    unpack(open_sif, sandboxes[0], deadline=60)

    def theirs() -> None:
        os.umask(0o077)
        unpack(open_sif, sandboxes[1], deadline=60)

    as_user(theirs)
    special = 0o6000  # an ordinary user's unsquashfs gives no setuid bits
    trees = [
        {path: (kind, mode & ~special, *rest) for path, (kind, mode, _, _, *rest) in tree_on_disk(sandbox).items()}
        for sandbox in sandboxes
    ]
    assert trees[0] == trees[1]
    owners = {sandboxes[1].joinpath(os.fsdecode(path)).lstat().st_uid for path in trees[1]}
    assert owners == {65534 if os.geteuid() == 0 else os.geteuid()}
    as_user(lambda: delete(sandboxes[1]))
    assert not sandboxes[1].exists()


def test_owners_and_setuid_bits_are_kept_by_root(sif: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: what root keeps")
    unpack(sif, tmp_path / "sandbox", deadline=60)
    assert (tmp_path / "sandbox/etc/a").stat().st_uid == 7
    assert stat.S_IMODE((tmp_path / "sandbox/set-user-id").stat().st_mode) == 0o4755


def test_the_root_directory_keeps_its_mode_and_time(tmp_path: Path) -> None:
    layer = tar([directory("./", 0o555), file("a", mtime=1_500_000_000)])
    unpack(squashed([layer], tmp_path), tmp_path / "sandbox", deadline=60)
    status = (tmp_path / "sandbox").stat()
    assert (stat.S_IMODE(status.st_mode), int(status.st_mtime)) == (0o555, 1_500_000_000)
    marker = (tmp_path / "sandbox" / CATALOG_MARK).stat()
    assert (stat.S_IMODE(marker.st_mode), marker.st_size, int(marker.st_mtime)) == (0o644, 0, 1_500_000_000)


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if name != "security.selinux"}


def test_attributes_are_kept_as_far_as_the_user_may(shared_path: Path) -> None:
    shared_path.chmod(0o777)
    try:
        os.setxattr(shared_path, "user.probe", b"1")
        os.removexattr(shared_path, "user.probe")
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            pytest.skip("NOT TESTED: attributes; the temporary directory's file system has none")
        raise
    pax = {"SCHILY.xattr.user.a": "1\n2", "SCHILY.xattr.security.capability": _CAPABILITY.decode("utf-8", "surrogateescape")}
    image = squashed([tar([file("a", pax=pax, mode=0o755)])], shared_path)
    unpack(image, shared_path / "ours", deadline=60)
    as_user(lambda: unpack(image, shared_path / "theirs", deadline=60))
    assert attributes(shared_path / "theirs/a") == {"user.a": b"1\n2"}
    privileged = {"security.capability": _CAPABILITY} if os.geteuid() == 0 else {}
    assert attributes(shared_path / "ours/a") == {"user.a": b"1\n2"} | privileged


def mount(place: Path, options: list[str]) -> Iterator[Path]:
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", *options, place], check=False).returncode != 0:
        pytest.skip("NOT TESTED: file systems of another kind or a small size; it takes root, and the right to mount")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mount(tmp_path / "disk", ["-t", "tmpfs", "-o", "size=2m,nr_inodes=200", "tmpfs"])


@pytest.mark.parametrize(
    "entries",
    [
        [file("a", os.urandom(3 << 20))],
        [file(f"d{number}/a", b"1") for number in range(300)],
        [symlink(f"l{number}", "x") for number in range(300)],
        [directory(f"d{number}") for number in range(300)],
    ],
    ids=["bytes", "files", "links", "directories"],
)
def test_a_full_disk_is_reported_and_nothing_is_left(entries: list[Entry], small_disk: Path, tmp_path: Path) -> None:
    image = squashed([tar(entries)], tmp_path)
    with pytest.raises(SpaceError, match="No space left on device"):
        unpack(image, small_disk / "sandbox", deadline=60)
    assert list(small_disk.iterdir()) == []


def test_nothing_is_unpacked_without_enough_free_space(small_disk: Path, sif: Path) -> None:
    """The disk has two megabytes; sixteen must stay free."""
    with pytest.raises(SpaceError, match=r"no space for a sandbox of 1 B: [\d.]+ [kMGT]?B are free \(free space there"):
        unpack(sif, small_disk / "sandbox", deadline=60, size=1)
    assert list(small_disk.iterdir()) == []


def test_errors_of_an_older_unsquashfs_that_exits_with_0_are_detected(
    sif: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unsquashfs 4.4 exits with status 0 after write errors."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/unsquashfs"
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for said, kind in (("create_inode: failed to create x", RepositoryError), ("write: No space left on device", SpaceError)):
        program.write_text(f"#!/bin/sh\nmkdir {tmp_path}/sandbox\necho '{said}' >&2\n")
        program.chmod(0o755)
        with pytest.raises(kind):
            unpack(sif, tmp_path / "sandbox", deadline=60)
        assert not (tmp_path / "sandbox").exists()


@pytest.fixture
def plain_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without extended attributes."""
    yield from mount(tmp_path / "disk", ["-t", "ramfs", "ramfs"])


def test_a_file_system_without_attributes_gets_everything_else(plain_disk: Path, tmp_path: Path) -> None:
    image = squashed([tar([file("a", b"1", pax={"SCHILY.xattr.user.a": "1"}), file("b", b"2")])], tmp_path)
    unpack(image, plain_disk / "sandbox", deadline=60)
    assert {path.name for path in (plain_disk / "sandbox").iterdir()} == {"a", "b", CATALOG_MARK}


@pytest.mark.parametrize("spoil", ["cut", "no squashfs", "empty"])
def test_a_sif_that_cannot_be_read_leaves_nothing(spoil: str, sif: Path, tmp_path: Path) -> None:
    content = bytearray(sif.read_bytes())
    if spoil == "cut":
        del content[len(content) // 2 :]
    if spoil == "no squashfs":
        content[DATA_OFFSET : DATA_OFFSET + 4] = b"sqsh"
    if spoil == "empty":
        content.clear()
    image = tmp_path / "image.sif"
    image.write_bytes(content)
    with pytest.raises(RepositoryError, match="cannot be unpacked from its SIF"):
        unpack(image, tmp_path / "sandbox", deadline=60)
    assert not (tmp_path / "sandbox").exists()


def test_an_incomplete_tree_is_refused(shared_path: Path) -> None:
    """The SIF has a device node, unlike those of the publisher: for an ordinary user unsquashfs warns and continues."""
    shared_path.chmod(0o777)
    image = shared_path / "image"
    with Mksquashfs().stream(image, StreamSurvey(1, 0, (0o755, 0, 0)), offset=DATA_OFFSET, deadline=60) as squashing:
        squashing.write(tar([Entry("char", "null"), file("a")]))
    write_sif_header(image, architecture="amd64", identity=bytes(16), epoch=1)

    def refused() -> None:
        with pytest.raises(RepositoryError, match="could not create character device"):
            unpack(image, shared_path / "sandbox", deadline=60)

    as_user(refused)
    assert not (shared_path / "sandbox").exists()


def test_the_deadline_holds(sif: Path, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="did not end within 0 s"):
        unpack(sif, tmp_path / "sandbox", deadline=0)
    assert not (tmp_path / "sandbox").exists()


def test_an_existing_target_is_not_changed(sif: Path, tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox/own").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("sandbox", "link"):
        with pytest.raises(RepositoryError, match="File exists"):
            unpack(sif, tmp_path / name, deadline=60)
    assert (tmp_path / "sandbox/own").exists()
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "nowhere").exists()


def test_without_a_parent_there_is_no_sandbox(sif: Path, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError):
        unpack(sif, tmp_path / "no" / "where", deadline=60)
    assert not (tmp_path / "no").exists()
