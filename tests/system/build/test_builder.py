"""The local builder with the real programs, from layers to a SIF that runs."""

from __future__ import annotations

import filecmp
import gzip
import hashlib
import io
import json
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from spython.main import Client

from publisher import __version__, oci
from publisher.build.local import LocalBuilder
from publisher.build.sif import DATA_OFFSET
from publisher.build.squash.find import find_squasher
from publisher.build.squash.linked import library_path, library_version
from publisher.build.squash.programs import Mksquashfs, Tar2sqfs
from publisher.build.testrun import TestOutcome, TestRunner
from publisher.chunks.cutter import cut_file
from publisher.contract.chunk_table import parse_chunk_table
from publisher.contract.records import NO_SHELL
from publisher.errors import BuildError, CommandError, LayerError, SpaceError, TestRunError
from publisher.fileindex.format import read_file_index
from publisher.layers.limits import LayerLimits
from publisher.system import command
from tests.support.images import raw_tar
from tests.support.images.built_layers import request
from tests.support.images.layers import Entry, directory, file, hardlink, symlink, tar
from tests.support.images.runnable import runnable
from tests.support.images.tar_stream import NOW
from tests.support.machine import child_process
from tests.support.machine.small_disk import small_disk
from tests.support.publisher.local_builder import ACCOUNT, build, builder, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from publisher.build.squash.programs import Squasher
    from publisher.state.built import BuiltImage

pytestmark = pytest.mark.system

LABELS = {"maintainer": 'a "quote", a \\ and\na line', "org.example.empty": ""}
CONFIG = {
    "Env": ["PATH=/bin", "GREETING=two  words, a 'quote' and more", "LINES=one\ntwo", "EMPTY="],
    "Entrypoint": ["/bin/sh", "-c", 'printf "%s|" "$GREETING" "$LINES" "$@"', "it is"],
    "Cmd": ["a word", 'a "quote"', "$HOME", "a\nline"],
    "Labels": LABELS,
}


def ordinary() -> command.UnixAccount | None:
    """Return the account that images are tested as; None if this user is an ordinary user."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(ACCOUNT)
    return command.UnixAccount(entry.pw_uid, entry.pw_gid)


def become_ordinary() -> None:
    account = ordinary()
    if account is not None:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)


def give(place: Path) -> None:
    """Give a path to the ordinary user."""
    account = ordinary()
    if account is not None:
        os.chown(place, account.uid, account.gid)


def layers(*more: Entry) -> list[bytes]:
    lower = [*runnable(), directory("etc"), file("etc/gone"), file("etc/kept", b"1", uid=7, mtime=1_700_000_000)]
    upper = [
        file("etc/.wh.gone", b""),
        hardlink("etc/also", "etc/kept"),
        file("closed", b"2", mode=0o600),
        symlink("up", "../../x"),
    ]
    return [tar(lower), tar([*upper, *more])]


def apptainer(*arguments: str, home: Path) -> str:
    """Run Apptainer as an ordinary user and return what it prints."""
    env = {"HOME": str(home), "APPTAINER_CONFIGDIR": f"{home}/config", "APPTAINER_CACHEDIR": f"{home}/cache"}
    done = command.run(["apptainer", "--silent", *arguments], deadline=120, env=env, cwd=home, account=ordinary())
    return done.stdout.decode()


@pytest.fixture
def home(shared_path: Path) -> Path:
    """The home of an ordinary user."""
    place = shared_path / "home"
    place.mkdir()
    give(place)
    return place


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    where = tmp_path_factory.mktemp("built")
    return build(request(layers(), where / "blobs", CONFIG), where)


@pytest.fixture
def sif(built: BuiltImage, shared_path: Path) -> Path:
    """The SIF, in a place where an ordinary user can read it."""
    place = shared_path / "image.sif"
    place.write_bytes(built.sif.read_bytes())
    return place


def test_a_build_returns_the_values_of_its_sif(built: BuiltImage) -> None:
    assert built.size == built.sif.stat().st_size
    assert built.test == "ran"
    assert built.tools.keys() == {"apptainer", "publisher", "zstd", "compression"}
    assert built.tools["publisher"] == __version__
    assert built.tools["apptainer"] in command.run(["apptainer", "--version"], deadline=60).stdout.decode().split()
    assert built.tools["zstd"] == library_version(library_path("mksquashfs", "libzstd"))
    listed = list(read_file_index(io.BytesIO(built.file_index.read_bytes())))
    assert len(listed) == built.files
    assert sum(line.size for line in listed if line.kind == "f") == built.unpacked_size
    assert {b"etc/kept", b"etc/also", b".singularity.d/runscript", b"cvmfs", b"srv"} <= {line.path for line in listed}
    assert b"etc/gone" not in {line.path for line in listed}


def test_a_build_has_the_chunk_table_of_its_sif(built: BuiltImage) -> None:
    assert built.chunk_table is not None
    content = built.chunk_table.read_bytes()
    assert built.chunks == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    table = parse_chunk_table(content)
    assert (table.sif_sha256, table.sif_size) == (built.sha256, built.size)
    assert cut_file(built.sif) == (built.sha256, content)


def test_an_ordinary_user_runs_the_images_own_entrypoint_in_its_environment(sif: Path, home: Path) -> None:
    said = apptainer("run", str(sif), home=home)  # a line's end in ENV becomes \\n, as in Apptainer's own builds
    assert said == "two  words, a 'quote' and more|one\\ntwo|a word|a \"quote\"|$HOME|a\nline|"
    assert apptainer("run", str(sif), "own", home=home).endswith("|own|")


def test_labels_are_the_images_own_and_those_about_it(sif: Path, home: Path, built: BuiltImage) -> None:
    labels = json.loads(apptainer("inspect", "--json", "--labels", str(sif), home=home))["data"]["attributes"]["labels"]
    assert labels.items() >= LABELS.items()
    assert labels["org.label-schema.build-arch"] == "amd64"
    assert labels["org.label-schema.build-date"] == "2020-02-02T02:02:02Z"
    assert labels["org.label-schema.usage.singularity.deffile.from"].removeprefix("sha256:") == built.sif.parent.name


def test_spython_reads_the_labels_back(sif: Path, home: Path) -> None:
    """spython starts the image in the caller's environment and without a deadline, so it runs as an ordinary user."""

    def read() -> None:
        os.environ["HOME"] = str(home)
        become_ordinary()
        os.chdir(home)
        found = Client.inspect(str(sif), quiet=True)
        assert found["attributes"]["labels"].items() >= LABELS.items()

    assert child_process.end(child_process.start(read)) == 0
    assert Client.version().endswith(command.run(["apptainer", "--version"], deadline=60).stdout.decode().split()[-1])


def test_apptainer_lists_the_squashfs_as_the_systems_partition(sif: Path, home: Path) -> None:
    assert "FS (Squashfs/*System/amd64)" in apptainer("sif", "list", str(sif), home=home)
    assert "Created At:" in apptainer("sif", "header", str(sif), home=home)
    info = apptainer("sif", "info", "1", str(sif), home=home)
    assert re.search(r"Filesystem type:\s+Squashfs", info, re.IGNORECASE), info
    assert re.search(r"Partition type:\s+\*System", info, re.IGNORECASE), info
    assert apptainer("exec", str(sif), "/bin/cat", "/etc/kept", home=home) == "1"


def test_a_sif_can_be_signed_and_verified(sif: Path, home: Path) -> None:
    """Apptainer adds a signature to the existing tables, and checks the hashes of all objects."""
    place = home / "signed.sif"
    place.write_bytes(sif.read_bytes())
    os.chown(place, home.stat().st_uid, home.stat().st_gid)
    key = command.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"], deadline=60).stdout
    (home / "key.pem").write_bytes(key)
    (home / "key.pem").chmod(0o644)
    command.run(["openssl", "ec", "-in", f"{home}/key.pem", "-pubout", "-out", f"{home}/public.pem"], deadline=60)
    apptainer("sign", "--key", str(home / "key.pem"), str(place), home=home)
    apptainer("verify", "--key", str(home / "public.pem"), str(place), home=home)
    with place.open("r+b") as file_:
        file_.seek(DATA_OFFSET + 200)
        file_.write(b"spoilt")
    with pytest.raises(CommandError):
        apptainer("verify", "--key", str(home / "public.pem"), str(place), home=home)


def test_any_two_builds_of_an_image_are_the_same_bytes(built: BuiltImage, shared_path: Path) -> None:
    """The second build has another time, umask, directory, environment and (as root) user."""
    asked = request(layers(), shared_path / "blobs", CONFIG)
    where = shared_path / "their own"
    where.mkdir()
    give(where)

    def again() -> None:
        os.umask(0o077)
        os.environ.update(TZ="Asia/Tokyo", LC_ALL="C", HOME=str(where), SOURCE_DATE_EPOCH="5", APPTAINER_DEBUG="1")
        become_ordinary()
        builder(where, now=lambda: NOW + 86_400).build(asked, lambda *_: None)

    assert child_process.end(child_process.start(again)) == 0
    (other,) = where.glob("builds/*/image.sif")
    assert other.stat().st_uid == where.stat().st_uid
    assert filecmp.cmp(built.sif, other, shallow=False)
    assert filecmp.cmp(built.file_index, other.with_name("files.zst"), shallow=False)


def test_another_config_makes_another_sif(built: BuiltImage, tmp_path: Path) -> None:
    other = build(request(layers(), tmp_path / "blobs", CONFIG | {"Cmd": ["other"]}), tmp_path)
    assert other.sha256 != built.sha256


def test_an_image_without_layers_whose_config_is_malformed_where_nobody_reads_has_only_apptainers_files(tmp_path: Path) -> None:
    asked = request([], tmp_path / "blobs", CONFIG)
    odd = json.loads(asked.image.config.raw) | {"history": "none", "rootfs": {"type": 7, "diff_ids": None}}
    image = oci.join(asked.image.manifest, oci.parse_config(json.dumps(odd).encode()))
    made = build(replace(asked, image=image), tmp_path)
    assert (made.test, made.notes) == ("structure", {"test": NO_SHELL})
    with made.file_index.open("rb") as index:
        names = {line.path.split(b"/")[0] for line in read_file_index(index)}
    assert b".singularity.d" in names
    assert not names & {b"bin", b"usr", b"lib"}


def test_a_finished_build_is_reused_unless_its_sif_has_changed(tmp_path: Path) -> None:
    asked = request(layers(), tmp_path / "blobs", CONFIG)
    steps: list[str] = []
    first = builder(tmp_path).build(asked, lambda step, *_: steps.append(step))
    assert {"plan", "squash", "test"} <= set(steps)
    steps.clear()
    assert builder(tmp_path).build(asked, lambda step, *_: steps.append(step)) == first
    assert steps == []
    with first.sif.open("r+b") as file_:
        file_.write(b"spoilt")
    assert builder(tmp_path).build(asked, lambda step, *_: steps.append(step)) == first
    assert "squash" in steps
    builder(tmp_path).discard(asked)
    assert list((tmp_path / "builds").iterdir()) == []


def test_a_finished_build_is_that_of_its_own_config(tmp_path: Path) -> None:
    """Whatever directory it lies in, and with the file index that it was built with."""
    one, other = (request(layers(), tmp_path / "blobs", CONFIG | {"Cmd": [word]}) for word in ("one", "other"))
    first = build(one, tmp_path)
    shutil.copytree(first.sif.parent, tmp_path / "builds" / other.image.content.removeprefix("sha256:"))
    assert build(other, tmp_path).sha256 != first.sha256
    first.file_index.write_bytes(build(other, tmp_path).file_index.read_bytes() + b"more")
    steps: list[str] = []
    assert builder(tmp_path).build(one, lambda step, *_: steps.append(step)) == first
    assert "squash" in steps


@pytest.mark.parametrize("name", [".", "image.sif", "image.chunks", "files.zst", "built.json"])
def test_a_finished_build_that_others_may_write_to_is_made_again(name: str, tmp_path: Path) -> None:
    asked = request([tar(runnable())], tmp_path / "blobs", CONFIG)
    first = build(asked, tmp_path)
    (first.sif.parent / name).chmod(0o666 if name != "." else 0o777)
    steps: list[str] = []
    assert builder(tmp_path).build(asked, lambda step, *_: steps.append(step)) == first
    assert "squash" in steps


def test_the_sha256_of_a_sif_is_that_of_before_its_test_run(tmp_path: Path) -> None:
    """The image's code may have changed the file."""

    class Changing(TestRunner):
        def test(self, sif: Path, *, architecture: str, has_shell: bool) -> TestOutcome:
            with sif.open("ab") as file_:
                file_.write(b"planted")
            return super().test(sif, architecture=architecture, has_shell=has_shell)

    (tmp_path / "scratch").mkdir()
    made = LocalBuilder(tmp_path / "builds", find_squasher(), Changing(ACCOUNT, tmp_path / "scratch"), now=lambda: NOW)
    with pytest.raises(TestRunError, match="the test run changed the finished SIF"):
        made.build(request([tar(runnable())], tmp_path / "blobs"), lambda *_: None)
    assert list((tmp_path / "builds").iterdir()) == []


def test_unwanted_builds_are_swept(tmp_path: Path) -> None:
    kept = "sha256:" + "a" * 64
    for name in ("a" * 64, "b" * 64):
        (tmp_path / "builds" / name).mkdir(parents=True)
    builder(tmp_path).sweep([kept])
    assert [path.name for path in (tmp_path / "builds").iterdir()] == ["a" * 64]
    builder(tmp_path / "new").sweep([])


def test_layers_that_differ_from_the_config_are_refused(tmp_path: Path) -> None:
    honest = request(layers(), tmp_path / "honest")
    lying = request(layers(file("more")), tmp_path / "lying")
    asked = type(honest)(honest.name, honest.image, lying.layers, lying.indexes)
    refused(asked, tmp_path, LayerError, "layer 2 unpacks to sha256:[0-9a-f]{64}, its config says sha256:")
    asked = type(honest)(honest.name, honest.image, honest.layers[:1], honest.indexes[:1])
    refused(asked, tmp_path, LayerError, "1 layers, its config describes 2")


def test_an_image_beyond_a_limit_is_refused(tmp_path: Path) -> None:
    refused(request(layers(), tmp_path / "blobs"), tmp_path, LayerError, "more than 10 entries", limits=LayerLimits(entries=10))


def test_a_layer_without_an_index_is_reported(tmp_path: Path) -> None:
    asked = request(layers(), tmp_path / "blobs")
    asked.indexes[1].unlink()
    refused(asked, tmp_path, BuildError, "layer 2 has no header index")


def test_a_config_that_apptainer_does_not_accept_is_refused(tmp_path: Path) -> None:
    refused(
        request(layers(), tmp_path / "blobs", {"Env": "PATH=/bin"}), tmp_path, BuildError, "does not accept the image's config"
    )


def test_planning_and_squashing_have_one_deadline(tmp_path: Path) -> None:
    asked = request([*layers(), tar([file("big", os.urandom(8 << 20))])], tmp_path / "blobs")
    late = iter([0.0, 0.0, 7.0])
    refused(asked, tmp_path, BuildError, "planning the image did not end within 7 s", deadline=7, clock=lambda: next(late))
    squashing = iter([0.0] * 4 + [7.0])  # begun, a look for each of three layers
    refused(asked, tmp_path, BuildError, "squashing did not end within 0 s", deadline=7, clock=lambda: next(squashing))


def test_an_image_without_a_shell_passes_by_its_structure(tmp_path: Path) -> None:
    result = build(request([tar([file("data", b"1")])], tmp_path / "blobs"), tmp_path)
    assert (result.test, result.notes["test"]) == ("structure", "the image has no /bin/sh")


def test_an_image_for_another_architecture_passes_by_its_structure(tmp_path: Path) -> None:
    result = build(request(layers(), tmp_path / "blobs", architecture="s390x"), tmp_path)
    assert result.test == "structure"
    assert "s390x" in str(result.notes["test"])
    said = subprocess.run(["apptainer", "sif", "list", result.sif], capture_output=True, check=True, text=True, timeout=60)
    assert "*System/s390x" in said.stdout


def test_an_architecture_that_the_format_does_not_know_is_refused(tmp_path: Path) -> None:
    refused(request(layers(), tmp_path / "blobs", architecture="loong64"), tmp_path, BuildError, "no code for the architecture")


def test_tens_of_thousands_of_files_of_one_size_are_squashed_without_comparing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("mksquashfs", path=os.environ["PATH"] + ":/usr/sbin")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mksquashfs").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\nexec {real} "$@"\n')
    (tmp_path / "bin/mksquashfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    # mksquashfs looks for each name of a tar stream among all names of its directory, so most are in small ones
    places = [b"d/%d" % number for number in range(8_000)] + [b"e%d/%d" % divmod(number, 500) for number in range(32_000)]
    files = b"".join(raw_tar.file(place, b"%099d\n" % number) for number, place in enumerate(places))
    (tmp_path / "scratch").mkdir()
    local = LocalBuilder(tmp_path / "builds", Mksquashfs(), TestRunner(ACCOUNT, tmp_path / "scratch"), now=lambda: NOW)
    result = local.build(request([files + raw_tar.END], tmp_path / "blobs"), lambda *_: None)
    assert result.files > 40_000
    assert result.tools["mksquashfs"] == Mksquashfs().version
    assert "-no-duplicates" in (tmp_path / "called").read_text().split()


def test_an_image_that_was_squashed_by_the_other_program_runs_and_its_record_says_so(tmp_path: Path, home: Path) -> None:
    (tmp_path / "scratch").mkdir()
    tester = TestRunner(ACCOUNT, tmp_path / "scratch")
    result = LocalBuilder(tmp_path / "builds", Tar2sqfs(), tester, now=lambda: NOW).build(
        request(layers(), tmp_path / "blobs", CONFIG), lambda *_: None
    )
    assert (result.test, set(result.tools)) == ("ran", {"apptainer", "tar2sqfs", "publisher", "zstd", "compression"})
    image = home.with_name("image.sif")
    image.write_bytes(result.sif.read_bytes())
    assert apptainer("run", str(image), home=home).startswith("two  words, a 'quote' and more|")


def test_names_that_the_policy_dropped_are_in_the_notes(tmp_path: Path) -> None:
    result = build(request([tar([*runnable(), Entry("char", "dev/null"), file(".cvmfscatalog")])], tmp_path / "blobs"), tmp_path)
    assert result.notes == {"device nodes": 1, "names that CVMFS reserves": 1}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes."""
    with small_disk(tmp_path / "disk", "size=3m", "what happens on a full disk") as place:
        yield place


@pytest.mark.parametrize("left", [0, 1 << 16, 1 << 17, 1 << 20])
def test_a_full_disk_is_reported(left: int, disk: Path, tmp_path: Path) -> None:
    asked = request([*layers(), tar([file("big", os.urandom(4 << 20))])], tmp_path / "blobs")
    (disk / "scratch").mkdir()
    with (disk / "filler").open("wb") as filler:
        filler.write(bytes((3 << 20) - left))
    refused(asked, disk, SpaceError, "(?i)no space left", free=lambda _: 1 << 40)


@pytest.mark.parametrize(("squasher", "copies"), [(Mksquashfs, 1), (Tar2sqfs, 2)])
def test_nothing_is_squashed_without_enough_free_space(squasher: Callable[[], Squasher], copies: int, tmp_path: Path) -> None:
    """The estimate is at most the size of the files, and at most one and a half times that of the compressed layers."""
    plain, packed = tar([file("a", os.urandom(1 << 20))]), gzip.compress(tar([file("b", bytes(1 << 24))]))
    for number, (content, most) in enumerate([([plain], 1 << 20), ([packed], len(packed) * 3 // 2)]):
        where = tmp_path / str(number)
        asked = request(content, where / "blobs")
        needed = copies * (most + 128) + (64 << 20)
        (where / "scratch").mkdir()
        tester = TestRunner(ACCOUNT, where / "scratch")
        free = iter([needed - 1, needed])
        made_by = LocalBuilder(where / "builds", squasher(), tester, now=lambda: NOW, free=lambda _, free=free: next(free))  # type: ignore[misc]  # bound per round
        with pytest.raises(
            SpaceError, match=r"no space for the SIF: .* free, and may need .* for it and a reserve of 67\.1 MB"
        ) as caught:
            made_by.build(asked, lambda *_: None)
        assert (caught.value.image, list((where / "builds").iterdir())) == (asked.name, [])
        made_by.build(asked, lambda *_: None)
