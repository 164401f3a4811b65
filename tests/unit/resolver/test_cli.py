from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from publisher import __version__
from publisher.contract.manifest import CLOCK_ERROR, LIFETIME
from publisher.resolver.cache.cache import Cache
from publisher.resolver.cache.pins import Starter
from publisher.resolver.cli import COMMANDS, HOOKS, main
from publisher.resolver.config import settings
from publisher.resolver.config.machine import go_name
from publisher.resolver.transfer.open_source import open_source
from tests.support.ep.execution_point import ExecutionPoint, record, sif_content, version

pytestmark = pytest.mark.usefixtures("own_reads")

NAME = "htc/rocky:9"
ARCH = go_name(os.uname().machine)


class Shell:
    """The command as it is run: arguments in; status, standard output and standard error out."""

    def __init__(self, ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.flags = ["--repository", str(ep.repository), "--public-key", str(ep.keys)]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["image-resolver", *arguments])
        status = main()
        return (status, *self._capsys.readouterr())


@pytest.fixture
def shell(ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    for name in settings.SETTINGS:
        monkeypatch.delenv(f"IMAGE_RESOLVER_{name.upper().replace('-', '_')}", raising=False)
    monkeypatch.delenv("IMAGE_RESOLVER_CONFIG", raising=False)
    return Shell(ep, monkeypatch, capsys)


def test_standard_output_has_the_answer_alone(ep: ExecutionPoint, shell: Shell) -> None:
    ep.publish(record(NAME, **{ARCH: [version("x")]}), now=int(time.time()) - LIFETIME - CLOCK_ERROR - 86400)
    status, out, err = shell.run("resolve", NAME, *shell.flags, "--lone-expired=accept")
    assert (status, out) == (0, f"{ep.repository}/{version('x').sandbox}\n")
    assert re.fullmatch(r"image-resolver: the manifest .* expired on .*\n", err)
    status, out, err = shell.run("resolve", NAME, *shell.flags)
    assert (status, out, "lone-expired = accept allows it" in err) == (4, "", True)


def test_json_is_one_object_with_the_notes(ep: ExecutionPoint, shell: Shell) -> None:
    ep.publish(record(NAME, **{ARCH: [version("x")]}), now=int(time.time()))
    status, out, err = shell.run("--json", "resolve", *shell.flags, f"--origin={ep.root}/absent", "--", NAME)
    assert (status, err) == (0, "")
    value = json.loads(out)
    assert value["path"] == f"{ep.repository}/{version('x').sandbox}"
    assert value["notes"][0].startswith(f"{ep.root}/absent/manifest: ")


def test_variables_and_a_file_say_the_same_as_flags(ep: ExecutionPoint, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    ep.publish(record(NAME, riscv64=[version("x")]), now=int(time.time()))
    (ep.root / "resolver.ini").write_text(f"[resolver]\nrepository = {ep.repository.name}\narch = s390x\n")
    monkeypatch.setenv("IMAGE_RESOLVER_PUBLIC_KEY", str(ep.keys))
    answers = [
        shell.run("resolve", NAME, "--config", f"{ep.root}/resolver.ini", "--arch", "riscv64"),
        shell.run("resolve", NAME, "--repository", str(ep.repository), "--arch=riscv64"),
    ]
    assert [status for status, _, _ in answers] == [0, 0]
    status, out, err = shell.run("resolve", NAME, f"--config={ep.root}/resolver.ini")
    assert (status, out) == (1, "")
    assert err == "image-resolver: htc/rocky:9 is not published for s390x (it is published for riscv64)\n"


def test_the_status_says_whose_fault_it_is(ep: ExecutionPoint, shell: Shell) -> None:
    ep.publish(record(NAME), now=int(time.time()))
    assert shell.run("resolve", "unknown:1", *shell.flags)[0] == 1
    assert shell.run("resolve", "No Reference!", *shell.flags)[0] == 1
    assert shell.run("resolve", NAME, "--repository", str(ep.repository))[0] == 2
    assert shell.run("resolve", NAME, *shell.flags, "--manifest", str(ep.root / "absent"))[0] == 4


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], " [flags] (image-resolver --help)"),
        (["resolve"], "usage: image-resolver resolve NAME"),
        (["resolve", "a", "b"], "usage: image-resolver resolve NAME"),
        (["find", "a"], "there is no command 'find' (the commands are resolve, cache"),
        (["resolve", "a", "--froom", "sif"], "unknown flag --froom"),
        (["resolve", "a", "-form", "sif"], "unknown flag -form"),
        (["resolve", "a", "--form"], "--form needs a value"),
        (["resolve", "a", "--form", "sif", "--form", "auto", "--repository", "/x"], "form has 2 values"),
        (["resolve", "a"], "no valid repository name is set"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(shell: Shell, arguments: list[str], why: str) -> None:
    status, out, err = shell.run(*arguments)
    assert (status, out) == (2, "")
    assert why in err
    assert err.count("\n") == 1


def test_the_package_is_a_program_too() -> None:
    run = subprocess.run([sys.executable, "-m", "publisher.resolver", "resolve"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("image-resolver: usage: ")


def test_help_names_every_setting(shell: Shell) -> None:
    for arguments in (["--help"], ["-h"]):
        status, out, err = shell.run(*arguments)
        assert (status, err) == (0, "")
        assert [name for name in (*settings.SETTINGS, "config", "json") if f"  --{name} " not in out] == []


def test_help_names_every_command(shell: Shell) -> None:
    _, out, _ = shell.run("--help")
    described = {line.split()[0] for line in out.partition("--")[0].splitlines()[2:] if line[:2] == "  " and line[2] != " "}
    assert described == {*COMMANDS, *HOOKS}


def test_a_bug_has_its_traceback_and_status_3(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "uname")  # as on no system that there is
    status, out, err = shell.run("resolve", NAME, *shell.flags)
    assert (status, out) == (3, "")
    assert err.startswith("Traceback")
    assert "uname" in err


def test_warnings_are_said_with_a_failure_too(ep: ExecutionPoint, shell: Shell) -> None:
    ep.publish(now=1)
    status, _, err = shell.run("resolve", NAME, *shell.flags)
    assert status == 4
    first, second = err.splitlines()
    assert "expired on 1970-01-15" in first
    assert "too old" in second


def test_the_cache_is_cleared_of_what_jobs_need_by_force_alone(ep: ExecutionPoint, shell: Shell) -> None:
    sif = ep.store(sif_content("x"))
    path, _ = Cache(str(ep.cache)).ensure(sif, [open_source(str(ep.origin))], starter=Starter(os.getpid()))
    flags = [*shell.flags, "--cache", str(ep.cache)]
    assert shell.run("cache", "clear", *flags)[:2] == (0, 'bytes = 0\nin use = 1\nremoved = 0\nimages = ""\n')
    assert Path(path).exists()
    assert shell.run("cache", "clear", "--force", *flags)[0] == 0
    assert not Path(path).exists()
    assert shell.run("cache", "list", "--force", *flags)[0] == 2


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    assert shell.run("--version") == (0, f"image-resolver {__version__}\n", "")


@pytest.mark.parametrize("name", [*COMMANDS, *HOOKS])
def test_the_help_of_a_command_is_about_it_alone(shell: Shell, name: str) -> None:
    status, out, err = shell.run(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: image-resolver {name}")
    assert "--public-key" not in out
    assert len(out.splitlines()) < 24
    assert ("--force" in out) == (name == "cache")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["resolve", NAME, "--pubic-key=x"], "unknown flag --pubic-key (did you mean --public-key?)"),
        (["resolve", NAME, "--jsn"], "unknown flag --jsn (did you mean --json?)"),
        (["resovle", NAME], "there is no command 'resovle' (did you mean resolve?)"),
        (["resovle", "--help"], "there is no command 'resovle' (did you mean resolve?)"),
        (["x"], "there is no command 'x' (the commands are resolve, "),
    ],
)
def test_a_misspelt_word_is_answered_with_what_was_meant(shell: Shell, arguments: list[str], says: str) -> None:
    status, out, err = shell.run(*arguments)
    assert (status, out) == (2, "")
    assert says in err


def test_a_misspelt_setting_in_the_file_is_answered_with_what_was_meant(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "resolver.ini"
    path.write_text("[resolver]\nchache = /var/tmp\n")
    status, _, err = shell.run("resolve", NAME, f"--config={path}")
    assert status == 2
    assert f"{path}, line 2: unknown setting 'chache' (did you mean cache?)" in err


def test_json_says_since_when_the_image_is_there(ep: ExecutionPoint, shell: Shell) -> None:
    now = int(time.time())
    ep.publish(record(NAME, **{ARCH: [version("x")]}), now=now)
    _, out, _ = shell.run("--json", "resolve", NAME, *shell.flags)
    said = json.loads(out)
    assert (said["published"], said["since"], said["until"]) == (version("x").published, version("x").since, None)
