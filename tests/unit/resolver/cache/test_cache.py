from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.contract import files
from publisher.resolver.cache.cache import Cache
from publisher.resolver.errors import CacheError, FetchError
from publisher.resolver.system import negative_cache
from publisher.resolver.transfer import fetch
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import Source
from tests.support.ep.execution_point import ExecutionPoint, sif_content, sif_of
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.osdf.file_server import FileServer

CONTENT = sif_content("image", 3_000_000)
HALF = len(CONTENT) // 2


def sif_files(ep: ExecutionPoint) -> list[str]:
    return sorted(path.name for path in (ep.cache / "sif").rglob("*") if path.is_file())


def get(ep: ExecutionPoint, *places: str, content: bytes = CONTENT) -> tuple[Path, str]:
    path, place = Cache(str(ep.cache)).ensure(sif_of(content), [open_source(place) for place in places or (str(ep.origin),)])
    return Path(path), place


def start_download(ep: ExecutionPoint, content: bytes) -> Path:
    """What a killed download left."""
    sif = sif_of(CONTENT)
    part = ep.cache / f"sif/{sif.sha256[:2]}/{sif.sha256}.part"
    part.parent.mkdir(parents=True, mode=0o700)
    ep.cache.chmod(0o700)
    part.write_bytes(content)
    return part


def wait_for_a_tick(path: Path) -> None:
    """Until the file system's clock, which is coarse, is past the last change of a file."""
    probe = path.with_suffix(".tick")
    while not probe.exists() or probe.stat().st_ctime_ns <= path.stat().st_ctime_ns:
        probe.write_bytes(b"")
    probe.unlink()


def test_a_sif_is_copied_from_a_directory_and_then_there(ep: ExecutionPoint) -> None:
    sif = ep.store(CONTENT)
    path, place = get(ep)
    assert path == ep.cache / f"sif/{sif.sha256[:2]}/{sif.sha256}.sif"
    assert place == str(ep.origin)
    assert path.read_bytes() == CONTENT
    assert sif_files(ep) == [f"{sif.sha256}.seen", f"{sif.sha256}.sif"]
    (ep.origin / sif.path).unlink()
    assert get(ep) == (path, "")


def test_a_sif_comes_over_http_with_one_request(ep: ExecutionPoint, web: FileServer) -> None:
    ep.store(CONTENT)
    path, place = get(ep, web.url)
    assert place == web.url
    assert path.read_bytes() == CONTENT
    assert get(ep, web.url)[1] == ""
    assert web.downloads() == 1


@pytest.mark.parametrize("fault", ["cut", "wrong", "long", "error", "to-file", "moved"])
def test_one_bad_answer_is_outlived(ep: ExecutionPoint, web: FileServer, fault: str) -> None:
    ep.store(CONTENT)
    web.faults = [fault]
    path, _ = get(ep, web.url)
    assert path.read_bytes() == CONTENT


def test_the_next_place_continues_what_the_first_one_broke_off(ep: ExecutionPoint, web: FileServer) -> None:
    ep.store(CONTENT)
    web.faults = ["cut"]
    assert get(ep, web.url, f"{web.url}/?directread")[1] == f"{web.url}/", "the query is said nowhere"
    (_, everything), (path, rest) = web.requests
    assert everything == ""
    assert path.endswith(".sif?directread")
    assert rest == f"bytes={HALF}-{len(CONTENT) - 1}", "both ends: open ranges get nothing from XRootD 5.5"


@pytest.mark.parametrize("fault", ["whole", "shifted", "wrong"])
def test_a_download_continues_whatever_the_server_makes_of_ranges(ep: ExecutionPoint, web: FileServer, fault: str) -> None:
    ep.store(CONTENT)
    start_download(ep, CONTENT[:HALF])
    web.faults = [fault]
    path, _ = get(ep, web.url)
    assert path.read_bytes() == CONTENT
    assert web.downloads() == (1 if fault == "whole" else 2)


@pytest.mark.parametrize("left", [b"", CONTENT[:1], CONTENT, CONTENT[:-1], b"x" * HALF, b"x" * len(CONTENT), CONTENT + b"x"])
def test_whatever_a_killed_download_left_the_bytes_are_right(ep: ExecutionPoint, left: bytes) -> None:
    ep.store(CONTENT)
    start_download(ep, left)
    path, place = get(ep)
    assert path.read_bytes() == CONTENT
    assert bool(place) == (left != CONTENT)
    assert len(sif_files(ep)) == 2


def test_wrong_bytes_never_get_the_name(ep: ExecutionPoint, web: FileServer) -> None:
    ep.store(CONTENT)
    web.faults = ["wrong"] * 9
    with pytest.raises(FetchError, match="does not match its sha256 in the manifest") as failure:
        get(ep, web.url)
    assert failure.value.exit_code == 4
    assert sif_files(ep) == []
    assert web.downloads() == 2


def test_a_download_that_broke_off_is_kept_to_be_continued(ep: ExecutionPoint, web: FileServer) -> None:
    sif = ep.store(CONTENT)
    web.faults = ["cut", "error"]
    with pytest.raises(FetchError, match=rf"ended after {HALF} of {len(CONTENT)} bytes.*status 500|Internal"):
        get(ep, web.url)
    assert sif_files(ep) == [f"{sif.sha256}.part"]
    negative_cache.clear(str(ep.cache), sif.sha256)
    get(ep, web.url)
    assert web.requests[-1][1] == f"bytes={HALF}-{len(CONTENT) - 1}"


def test_every_place_is_named_where_none_has_it(ep: ExecutionPoint, web: FileServer) -> None:
    with pytest.raises(FetchError) as failure:
        get(ep, str(ep.origin), web.url, "http://127.0.0.1:1")
    for part in (f"{ep.origin}: ", "No such file", f"{web.url}: ", "Not Found", "http://127.0.0.1:1: ", "refused"):
        assert part in str(failure.value)
    assert sif_files(ep) == []
    with pytest.raises(FetchError, match="no source is configured"):
        Cache(str(ep.cache)).ensure(sif_of(sif_content("other")), [])


def test_the_right_bytes_that_are_no_sif_are_refused(ep: ExecutionPoint) -> None:
    content = b"no image" * 100
    ep.store(content)
    with pytest.raises(FetchError):
        get(ep, content=content)
    assert sif_files(ep) == []


def test_a_touched_sif_is_hashed_again_and_stays(ep: ExecutionPoint, web: FileServer) -> None:
    ep.store(CONTENT)
    path, _ = get(ep, web.url)
    wait_for_a_tick(path)
    os.utime(path, (1, 1))
    assert get(ep, web.url) == (path, "")
    path.with_suffix(".seen").unlink()
    assert get(ep, web.url) == (path, "")
    assert web.downloads() == 1


@pytest.mark.parametrize("damage", ["byte", "disguised", "cut", "replaced", "link"])
def test_a_damaged_sif_is_fetched_again(ep: ExecutionPoint, web: FileServer, damage: str) -> None:
    ep.store(CONTENT)
    path, _ = get(ep, web.url)
    wait_for_a_tick(path)
    path.chmod(0o644)
    before = path.stat()
    if damage in ("byte", "disguised"):
        path.write_bytes(CONTENT[:HALF] + b"!" + CONTENT[HALF + 1 :])
        if damage == "disguised":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif damage == "cut":
        os.truncate(path, HALF)
    else:
        path.rename(path.with_suffix(".other"))
        path.symlink_to("/etc/passwd") if damage == "link" else path.write_bytes(b"!" * len(CONTENT))
    assert get(ep, web.url)[1] == web.url
    assert path.read_bytes() == CONTENT
    assert web.downloads() == 2


def test_twenty_processes_make_one_download(ep: ExecutionPoint, web: FileServer) -> None:
    ep.store(CONTENT)
    begin, begun = os.pipe()

    def one() -> None:
        os.close(begun)
        os.read(begin, 1)  # until all are there
        path, _ = get(ep, web.url)
        assert path.read_bytes() == CONTENT

    started = [child_process.start(one) for _ in range(20)]
    os.close(begun)
    assert [child_process.end(child) for child in started] == [0] * 20
    assert web.downloads() == 1
    os.close(begin)


def test_who_waits_for_another_one_has_a_deadline(ep: ExecutionPoint) -> None:
    sif = ep.store(CONTENT)
    (ep.cache / "locks").mkdir(parents=True, mode=0o700)
    ep.cache.chmod(0o700)
    with (
        files.locked(str(ep.cache / "locks" / sif.sha256), 0),
        pytest.raises(CacheError, match="another process has been downloading"),
    ):
        Cache(str(ep.cache)).ensure(sif, [open_source(str(ep.origin))], timeout=0)


def test_a_place_that_is_too_slow_is_left_for_the_next_one(ep: ExecutionPoint) -> None:
    sif = ep.store(CONTENT)
    now = [0.0]

    class Slow(Source):
        def stream(self, name: str, start: int, size: int | None, _: object = None, __: object = None) -> Iterator[bytes]:
            assert (name, start, size) == (sif.path, 0, len(CONTENT))
            yield CONTENT[:HALF]
            now[0] = 32 + len(CONTENT) / 1_000_000  # half a minute to begin, then 1 MB a second
            yield CONTENT[HALF : HALF + 1]
            pytest.fail("waited for more")

    part = ep.root / "part"
    assert fetch.fetch([Slow("slow"), open_source(str(ep.origin))], sif, str(part), clock=lambda: now[0]) == str(ep.origin)
    assert part.read_bytes() == CONTENT


def test_a_download_has_an_end_though_every_byte_comes_in_time(ep: ExecutionPoint) -> None:
    sif = sif_of(CONTENT)
    now = [0.0]

    class Later(Source):
        def stream(self, name: str, start: int, size: int | None, _: object = None, __: object = None) -> Iterator[bytes]:
            assert name
            assert size
            now[0] += 25
            yield CONTENT[start : start + 1]

    with pytest.raises(FetchError, match=r"ended after 1 of.*only 3 B of 3.0 MB received in time"):
        fetch.fetch([Later(str(number)) for number in range(4)], sif, str(ep.root / "part"), clock=lambda: now[0])
    assert (ep.root / "part").read_bytes() == CONTENT[:3]


def test_a_kill_at_any_point_costs_only_a_repetition(ep: ExecutionPoint) -> None:
    content = sif_content("small", 5000)
    ep.store(content)
    point = 0
    while child_process.killed(point, lambda: get(ep, content=content)):
        path, _ = get(ep, content=content)
        assert path.read_bytes() == content
        assert not [name for name in sif_files(ep) if name.endswith(".part")]
        shutil.rmtree(ep.cache)
        point += 1
    assert point > 8
    assert sif_files(ep)


def test_a_killed_download_is_continued_by_the_next_process(ep: ExecutionPoint, web: FileServer) -> None:
    ep.store(CONTENT)
    web.faults = ["stall"]
    child = child_process.start(lambda: get(ep, web.url))
    web.stalled.wait()
    os.kill(child, signal.SIGKILL)
    assert child_process.end(child) == -signal.SIGKILL
    web.released.set()
    path, _ = get(ep, web.url)
    assert path.read_bytes() == CONTENT
    assert web.downloads() == 2


def test_leftovers_of_killed_processes_are_swept_unless_somebody_holds_them(ep: ExecutionPoint) -> None:
    ep.store(CONTENT)
    old = time.time() - 7200
    leftovers = {}
    for name in (
        "sif/aa/" + "a" * 64 + ".part",
        "sif/bb/" + "b" * 64 + ".part",
        "sif/cc/" + "c" * 64 + ".part",
        "manifest/r/.index.json.ab",
        "federation/.f.json.ab",
    ):
        leftovers[name] = ep.cache / name
        leftovers[name].parent.mkdir(parents=True, mode=0o700)
        leftovers[name].write_bytes(b"left")
        if "c" * 64 not in name:
            os.utime(leftovers[name], (old, old))
    (ep.cache / "locks").mkdir()
    ep.cache.chmod(0o700)
    with files.locked(str(ep.cache / "locks" / ("b" * 64)), 0):
        get(ep)
    assert [path.exists() for path in leftovers.values()] == [False, True, True, False, False]


def test_a_full_disk_is_said_and_nothing_is_left(ep: ExecutionPoint) -> None:
    ep.store(CONTENT)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, HALF))
        with pytest.raises(CacheError, match=r"no space for .*, which needs"):
            get(ep)

    assert child_process.end(child_process.start(fill)) == 0
    assert sif_files(ep) == []


def test_what_will_not_fit_is_not_begun(ep: ExecutionPoint, web: FileServer) -> None:
    sif = sif_of(CONTENT)
    sif.size = 1 << 60
    with pytest.raises(CacheError, match="no space in the cache"):
        Cache(str(ep.cache)).ensure(sif, [open_source(web.url)])
    assert web.requests == []
    assert sif_files(ep) == []


def test_the_cache_is_its_owners_alone(ep: ExecutionPoint) -> None:
    ep.store(CONTENT)
    before = os.umask(0)
    try:
        path, _ = get(ep)
    finally:
        os.umask(before)
    assert stat.S_IMODE(ep.cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_cache_that_others_may_write_is_refused(ep: ExecutionPoint, mode: int) -> None:
    ep.store(CONTENT)
    ep.cache.mkdir()
    ep.cache.chmod(mode)
    with pytest.raises(CacheError, match="other users may write"):
        get(ep)
    assert list(ep.cache.iterdir()) == []


def test_somebody_elses_cache_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:  # whose directories are as good as one's own
        os.chown(tmp_path, 12345, 12345)
    with pytest.raises(CacheError, match="belongs to user"):
        Cache(str(tmp_path), user=54321).prepare()


def test_roots_cache_serves_others_what_it_holds(ep: ExecutionPoint) -> None:
    """Filled by root or a daemon, read by jobs: hits need no lock and no writing."""
    ep.store(CONTENT)
    path, _ = get(ep)
    for directory in (ep.cache, ep.cache / "sif", *(ep.cache / "sif").iterdir()):
        directory.chmod(0o555)

    def hit_and_miss() -> None:
        assert get(ep) == (path, "")
        with pytest.raises(CacheError, match="cannot be used"):
            get(ep, content=sif_content("other"))

    try:
        child_process.unprivileged(hit_and_miss)
    finally:
        for directory in (ep.cache, ep.cache / "sif", *(ep.cache / "sif").iterdir()):
            directory.chmod(0o755)


def test_a_cache_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot create the cache"):
        Cache(str(tmp_path / "file/cache")).prepare()


def test_a_part_that_cannot_be_written_is_said(ep: ExecutionPoint) -> None:
    """A link there would let another file be written to."""
    ep.store(CONTENT)
    part = start_download(ep, b"")
    part.unlink()
    part.symlink_to(ep.root / "precious")
    with pytest.raises(CacheError, match=f"cannot write {part}"):
        get(ep)
    assert not (ep.root / "precious").exists()


def test_a_note_that_cannot_be_written_costs_only_a_hash(ep: ExecutionPoint) -> None:
    sif = ep.store(CONTENT)
    start_download(ep, b"")
    (ep.cache / f"sif/{sif.sha256[:2]}/{sif.sha256}.seen").mkdir()
    path, _ = get(ep)
    with contextlib.suppress(FileNotFoundError):
        (ep.origin / sif.path).unlink()
    assert get(ep) == (path, "")
