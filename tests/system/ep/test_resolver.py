"""The one-file form as an execution point has it: nothing installed, run from anywhere, in any environment."""

from __future__ import annotations

import ast
import json
import marshal
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.hook import statuses
from tests.support.checkout import ROOT, SHIPPED
from tests.support.ep.execution_point import REPOSITORY, ExecutionPoint, record, sif_content, version
from tests.support.ep.hook import Reply, job_ad, reply
from tests.support.ep.release import release
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.system

NAME = "htc/rocky:9"
CONTENT = sif_content(NAME, 3_000_000)
COMPILED = f"{sys.implementation.cache_tag}.modules"
"""The archive's member with all modules compiled by the Python that runs these tests."""


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    point = ExecutionPoint(tmp_path)
    point.publish(record(NAME, amd64=[version(NAME, sif=point.store(CONTENT))]), now=int(time.time()))
    return point


def flags(ep: ExecutionPoint, origin: str) -> list[str]:
    return [
        *("--repository-name", REPOSITORY, "--repository", str(ep.repository), "--origin", origin, "--cache", str(ep.cache)),
        *("--public-key", str(ep.keys / "current.pem"), "--arch", "amd64"),
    ]


def run(*command: str | Path, **more: object) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, **more)  # type: ignore[call-overload]  # cwd, env
    assert done.stderr == ""
    return str(done.stdout)


def test_the_file_is_the_same_whoever_builds_it_and_when(program: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        again = release(tmp_path / "again.pyz")
    finally:
        os.umask(before)
    assert again.read_bytes() == program.read_bytes()
    with zipfile.ZipFile(program) as archive:
        names = archive.namelist()
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    sources = {str(path.relative_to(ROOT)) for path in SHIPPED}
    assert set(names) == {"__main__.py", COMPILED} | sources


def test_it_answers_in_both_forms_over_the_network_and_without(program: Path, ep: ExecutionPoint) -> None:
    with FileServer(ep.origin) as web:
        sandbox = run(program, "resolve", f"/cvmfs/{REPOSITORY}/{NAME}", *flags(ep, web.url))
        assert sandbox == f"{ep.repository}/{version(NAME).sandbox}\n"
        ep.repository.rename(ep.root / "away")
        answer = json.loads(run(program, "resolve", NAME, "--json", *flags(ep, web.url)))
        assert (answer["form"], answer["manifest_source"], answer["sif_source"]) == ("sif", "the cached copy", web.url)
        assert [path for path, _ in web.requests].count("/manifest/index.json") == 1, "it is not time to ask again"
    assert Path(answer["path"]).read_bytes() == CONTENT
    assert run(program, "resolve", NAME, *flags(ep, web.url)) == f"{answer['path']}\n", "from the cache alone"


def test_twenty_jobs_that_start_at_once_make_one_download(program: Path, ep: ExecutionPoint) -> None:
    with FileServer(ep.origin) as web:
        command = [str(program), "resolve", NAME, "--form", "sif", *flags(ep, web.url)]
        jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(20)]
        answers = {job.communicate()[0] for job in jobs}
        assert [job.returncode for job in jobs] == [0] * 20
        assert web.downloads() == 1
    (path,) = answers
    assert Path(path.strip()).read_bytes() == CONTENT


def test_a_jobs_environment_and_directory_change_nothing(program: Path, ep: ExecutionPoint) -> None:
    work = ep.root / "job"
    (work / "publisher").mkdir(parents=True)
    for name in ("json.py", "os.py", "select.py", "sitecustomize.py", "publisher/__init__.py"):
        (work / name).write_text("raise SystemExit('the job was asked')")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(work),
        "PYTHONSTARTUP": str(work / "json.py"),
        "PYTHONHOME": str(work),
    }
    answer = run(program, "resolve", NAME, *flags(ep, str(ep.origin)), cwd=work, env=environment)
    assert answer.endswith(f"{version(NAME).sandbox}\n")


def test_a_python_it_was_not_compiled_for_takes_the_sources(program: Path, ep: ExecutionPoint, tmp_path: Path) -> None:
    sources = tmp_path / "sources.pyz"
    with zipfile.ZipFile(program) as archive, zipfile.ZipFile(sources, "w") as copy:
        for name in archive.namelist():
            if name != COMPILED:
                copy.writestr(name, archive.read(name))
    assert run(sys.executable, "-IS", sources, "resolve", NAME, *flags(ep, str(ep.origin))).endswith(f"{version(NAME).sandbox}\n")


def prepare_job(*command: str | Path) -> tuple[Reply, str]:
    """What HTCondor reads of a hook that ends with 0, and its standard error."""
    done = subprocess.run([*command, "prepare-job"], input=job_ad(ContainerImage=NAME), capture_output=True, check=True)
    return reply(done.stdout), done.stderr.decode()


def with_damage(program: Path, copy: Path, module: str, damage: Callable[[bytes], bytes]) -> None:
    """Copy the one file with one module damaged in both of its forms; ``""`` damages the member with all compiled modules."""
    with zipfile.ZipFile(program) as archive, zipfile.ZipFile(copy, "w") as damaged:
        for name in archive.namelist():
            content = archive.read(name)
            if name == f"publisher/{module}.py" or (name == COMPILED and not module):
                content = damage(content)
            elif name == COMPILED:
                content = with_damaged_code(content, f"publisher.{module}".replace("/", "."), damage)
            damaged.writestr(name, content)


def with_damaged_code(content: bytes, name: str, damage: Callable[[bytes], bytes]) -> bytes:
    """The member of compiled modules with the code of one damaged; its place in the table stays."""
    _, _, start, size = marshal.loads(content)[name]  # noqa: S302 - made by ci/pyz
    start += len(content)
    return content[:start] + damage(content[start : start + size])[:size].ljust(size, b"\0") + content[start + size :]


@pytest.mark.parametrize("module", ["resolver/cli", "resolver/hook/main", "resolver/hook/statuses", ""])
@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda _: b"\0\xff" * 100], ids=["cut", "other"]
)
def test_a_damaged_file_holds_no_job(program: Path, tmp_path: Path, module: str, damage: Callable[[bytes], bytes]) -> None:
    damaged = tmp_path / "damaged.pyz"
    with_damage(program, damaged, module, damage)
    answer, talk = prepare_job(sys.executable, "-IS", damaged)
    assert (answer.code, answer.updates) == (statuses.NO_START, {})
    assert answer.message.startswith("the hook cannot start: ")
    assert answer.message.endswith(f"[{statuses.short_name(statuses.NO_START)}]")
    assert talk.startswith("Traceback")


def damaged_copy(program: Path, copy: Path, start: int, size: int) -> Path:
    """A copy of the one file in which some bytes are zeros."""
    content = bytearray(program.read_bytes())
    content[start : start + size] = bytes(size)
    copy.write_bytes(content)
    copy.chmod(0o755)
    return copy


def test_the_first_lines_need_no_archive(program: Path, ep: ExecutionPoint, tmp_path: Path) -> None:
    end = program.stat().st_size
    copy = damaged_copy(program, tmp_path / "copy.pyz", end - 22, 22)  # where an archive's directory begins
    assert not zipfile.is_zipfile(copy)
    assert run(copy, "resolve", NAME, *flags(ep, str(ep.origin))).endswith(f"{version(NAME).sandbox}\n")


@pytest.mark.parametrize("size", [1, 100_000], ids=["the table", "the code"])
def test_compiled_modules_that_are_damaged_hold_no_job(program: Path, tmp_path: Path, size: int) -> None:
    with zipfile.ZipFile(program) as archive:
        place = program.read_bytes().index(archive.read(COMPILED))
    answer, _ = prepare_job(damaged_copy(program, tmp_path / "copy.pyz", place, size))
    assert answer.code == statuses.NO_START


def test_a_python_that_is_too_old_holds_no_job(program: Path) -> None:
    with zipfile.ZipFile(program) as archive:
        ast.parse(archive.read("__main__.py"), feature_version=(3, 6))
    old = "import runpy, sys; sys.version_info = (3, 6, 8); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], {}, '__main__')"
    answer, _ = prepare_job(sys.executable, "-IS", "-c", old, program)
    assert answer.code == statuses.NO_START
    assert "needs Python 3.9 or newer, this is 3.6" in answer.message
    other = subprocess.run([sys.executable, "-IS", "-c", old, program, "resolve"], capture_output=True, text=True, check=False)
    assert (other.returncode, other.stderr) == (1, "image-resolver: needs Python 3.9 or newer, this is 3.6\n")


def test_who_can_neither_start_nor_answer_dies_by_a_signal(program: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pyz"
    with zipfile.ZipFile(program) as archive, zipfile.ZipFile(damaged, "w") as copy:
        copy.writestr("__main__.py", archive.read("__main__.py"))
    closed: list[str | Path] = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-IS", damaged, "prepare-job"]
    assert subprocess.run(closed, check=False, capture_output=True).returncode == -signal.SIGKILL


def test_the_compiled_modules_are_those_that_run(program: Path, ep: ExecutionPoint) -> None:
    command = [sys.executable, "-IS", "-v", str(program), "resolve", NAME, *flags(ep, str(ep.origin))]
    talk = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    loaded = [line for line in talk.splitlines() if line.startswith("import 'publisher.resolver.")]
    assert loaded
    assert all(COMPILED in line for line in loaded)
