from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.resolver.host import probes, programs
from publisher.resolver.system import path_probe

if TYPE_CHECKING:
    import pytest

PLENTY = 60


def apptainer(where: Path, script: str) -> str:
    """A program in Apptainer's place, which is called as it is."""
    path = where / "apptainer"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def is_running(mark: Path) -> bool:
    return Path(f"/proc/{mark.read_text().strip()}/exe").exists()


def test_a_program_is_given_up_with_its_children_when_its_time_is_over(tmp_path: Path) -> None:
    mark = tmp_path / "child"
    script = apptainer(tmp_path, f"sleep 600 & echo $! > {mark}.new; mv {mark}.new {mark}; wait")
    status, said = programs.run([script], 0.5)
    assert (status, said) == (None, f"{script} did not end within 0.5 s")
    end = time.monotonic() + PLENTY
    while is_running(mark):
        assert time.monotonic() < end


def test_a_program_sees_none_of_the_callers_container_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APPTAINER_BIND", "SINGULARITY_BIND", "APPTAINERENV_X", "LD_PRELOAD_X"):
        monkeypatch.setenv(name, "/evil")
    monkeypatch.setenv("HOME", "/somewhere")
    status, said = programs.run(["/usr/bin/env"], PLENTY)
    assert status == 0
    assert "/evil" not in said
    assert "HOME=/somewhere" in said


def test_a_program_that_is_not_there() -> None:
    assert programs.run(["/no/such/program"], PLENTY) == (None, "cannot run /no/such/program: No such file or directory")


def test_an_image_that_starts_and_one_that_does_not(tmp_path: Path) -> None:
    assert probes.probe_start(apptainer(tmp_path, "exit 0"), "x.sif", PLENTY).works is True
    found = probes.probe_start(
        apptainer(tmp_path, "echo INFO: one >&2; echo FATAL: no squashfuse >&2; exit 255"), "x.sif", PLENTY
    )
    assert (found.works, found.why) == (False, "FATAL: no squashfuse")


def test_a_sif_that_is_unpacked_first_is_of_no_use_though_it_starts(tmp_path: Path) -> None:
    found = probes.probe_start(apptainer(tmp_path, "echo 'INFO: Converting SIF file to temporary sandbox...'"), "x.sif", PLENTY)
    assert found.works is False
    assert "unpacked before each start" in found.why


def test_an_apptainer_that_hangs_is_no_apptainer(tmp_path: Path) -> None:
    found = probes.probe_start(apptainer(tmp_path, "exec sleep 600"), "x.sif", 0.3)
    assert found.works is False
    assert "did not end within 0.3 s" in found.why


def test_binding_is_tried_at_a_place_that_no_image_has_and_looked_at_inside(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    assert probes.probe_binds(apptainer(tmp_path, f'echo "$@" > {asked}'), "/image", PLENTY).works
    words = asked.read_text().split()
    target = words[words.index("--bind") + 1].split(":")[1]
    assert not os.path.lexists(target)
    assert f"[ -d {target} ]" in asked.read_text()


def test_a_status_alone_is_a_reason_too(tmp_path: Path) -> None:
    assert probes.probe_start(apptainer(tmp_path, "exit 3"), "x.sif", PLENTY).why == "status 3"


def test_a_reason_is_the_last_line_that_says_something(tmp_path: Path) -> None:
    found = probes.probe_start(apptainer(tmp_path, "printf '\\033[31mFATAL: no FUSE\\n\\033[0m'; exit 255"), "x.sif", PLENTY)
    assert found.why == "FATAL: no FUSE"


def test_a_repository_whose_manifest_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".publisher" / "index.json").mkdir(parents=True)
    found = probes.probe_repository(str(tmp_path), PLENTY)
    assert (found.works, "Is a directory" in found.why) == (False, True)


def test_directories_that_open_and_that_do_not(tmp_path: Path) -> None:
    assert probes.probe_repository(str(tmp_path), PLENTY).works
    found = probes.probe_repository(str(tmp_path / "away"), PLENTY)
    assert found.works is False
    assert "away" in found.why


def test_paths_that_exist_stay_in_their_order(tmp_path: Path) -> None:
    assert path_probe.existing_paths([str(tmp_path), "/no/such/path", "/etc"], PLENTY) == [str(tmp_path), "/etc"]


def test_a_program_is_the_paths_first_and_never_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory in ("cwd", "early", "late"):
        (tmp_path / directory).mkdir()
        apptainer(tmp_path / directory, "exit 0")
    (tmp_path / "early" / "sh").write_text("not to be run")
    (tmp_path / "early" / "singularity").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("PATH", f":.:{tmp_path}/early:/usr/bin:{tmp_path}/late")
    assert path_probe.find_program(["singularity", "apptainer"], PLENTY) == f"{tmp_path}/early/apptainer"
    assert path_probe.find_program(["sh"], PLENTY) == "/usr/bin/sh"
    assert path_probe.find_program(["no-such-program"], PLENTY) is None
    monkeypatch.delenv("PATH")
    assert path_probe.find_program(["env"], PLENTY) == "/usr/bin/env"


def test_user_namespaces_are_tried_by_making_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unshare").write_text('#!/bin/sh\necho "$@" > "$0.asked"\necho not permitted\nexit 1\n')
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = probes.probe_user_namespaces(PLENTY)
    assert (found.works, found.why) == (False, "not permitted")
    assert {"--user", "--mount"} <= set((tmp_path / "unshare.asked").read_text().split())
