from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from publisher.errors import CommandError
from publisher.system.command import UnixAccount, environment, feed, run
from tests.support.machine import child_process

if TYPE_CHECKING:
    from pathlib import Path


def shell(script: str, *, deadline: float = 60, **more: object) -> str:
    return run(["sh", "-c", script], deadline=deadline, **more).stdout.decode()  # type: ignore[arg-type]  # run's own


def ended(process: int) -> bool:
    """Wait for a process that need not be our child; False where it still runs after a minute."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 60)[0])
    finally:
        os.close(descriptor)


def pour(argv: list[str], deadline: float) -> None:
    """Give a program more than it will take."""
    with feed(argv, deadline=deadline) as stdin:
        for _ in range(1000):
            stdin.write(bytes(1 << 16))


def test_what_a_program_prints_is_returned() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2"], deadline=60)
    assert (done.status, done.stdout, done.stderr) == (0, b"out\n", "err\n")


def test_a_failure_repeats_the_last_line_of_standard_error() -> None:
    with pytest.raises(CommandError, match=r"^sh failed with status 3: the reason$") as caught:
        shell("echo first >&2; echo '  the reason ' >&2; echo >&2; exit 3")
    assert (caught.value.status, caught.value.stderr) == (3, "first\n  the reason \n\n")


def test_a_silent_failure_says_so() -> None:
    with pytest.raises(CommandError, match="it wrote nothing to its standard error"):
        shell("exit 1")


def test_a_program_reads_its_standard_input_which_is_empty_by_default() -> None:
    assert shell("cat", stdin=b"some words") == "some words"
    assert shell("cat") == ""
    assert shell("true", stdin=bytes(1 << 20)) == ""


def test_other_statuses_can_be_accepted() -> None:
    assert run(["sh", "-c", "exit 2"], deadline=60, accept=(0, 2)).status == 2


def test_a_signal_is_distinguished_from_a_status() -> None:
    with pytest.raises(CommandError, match="sh was ended by signal 15") as caught:
        shell("kill -TERM $$")
    assert caught.value.status == -signal.SIGTERM


def test_a_missing_program_is_reported() -> None:
    with pytest.raises(CommandError, match="/no/such/program cannot be started: No such file") as caught:
        run(["/no/such/program"], deadline=60)
    assert caught.value.status is None
    assert "ci/install-system" in str(caught.value)


def test_the_deadline_kills_all_that_the_program_started(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"sh did not end within 0\.5 s and was killed"):
        shell("sleep 1000 & echo $! > started; wait", deadline=0.5, cwd=tmp_path)
    assert ended(int((tmp_path / "started").read_text()))


def test_the_deadline_kills_what_has_a_process_group_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="was killed"):
        shell("set -m; sleep 1000 & echo $! > started; wait", deadline=0.5, cwd=tmp_path)
    assert ended(int((tmp_path / "started").read_text()))


def test_only_the_end_of_standard_error_is_kept() -> None:
    done = run([sys.executable, "-c", "import sys; sys.stderr.write('x' * (1 << 20) + 'end')"], deadline=60)
    assert len(done.stderr) == 64 * 1024
    assert done.stderr.endswith("xend")


def test_standard_input_is_closed_unless_given() -> None:
    assert shell("cat; echo end") == "end\n"


def test_children_inherit_a_short_list_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REGISTRY_PASSWORD", "APPTAINER_DOCKER_PASSWORD", "https_proxy", "HOME", "LD_PRELOAD"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PATH", "/bin")
    said = dict(line.split("=", 1) for line in shell("env", env={"ASKED": "1"}).splitlines())
    assert said["PATH"] == "/bin:/usr/sbin:/sbin"
    assert said["ASKED"] == "1"
    assert set(said) <= {"PATH", "LC_ALL", "LANG", "TZ", "ASKED", "PWD", "OLDPWD", "SHLVL", "_"}


def test_without_a_path_there_is_a_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    assert {"/usr/bin", "/usr/sbin"} <= set(environment()["PATH"].split(":"))


def test_umask_and_directory_are_the_childs_own(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        shell("touch made", cwd=tmp_path, umask=0o077)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600


def test_another_account_loses_roots_groups() -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: running as another account; only root may")
    assert shell("id -u; id -g; id -G", account=UnixAccount(65534, 65533)).split() == ["65534", "65533", "65533"]


def test_a_program_that_reads_a_stream_gets_it(tmp_path: Path) -> None:
    with feed(["sh", "-c", "cat > got"], deadline=60, cwd=tmp_path) as stdin:
        for number in range(3):
            stdin.write(b"%d" % number)
    assert (tmp_path / "got").read_bytes() == b"012"


def test_a_reader_that_gives_up_is_reported_with_its_reason() -> None:
    with pytest.raises(CommandError, match="sh failed with status 1: cannot go on"):
        pour(["sh", "-c", "head -c 1 > /dev/null; echo cannot go on >&2; exit 1"], 60)


def test_a_reader_that_ends_well_too_early_has_failed() -> None:
    with pytest.raises(CommandError, match="ended before it had read everything"):
        pour(["true"], 60)


def test_a_reader_has_a_deadline() -> None:
    with pytest.raises(CommandError, match=r"sleep did not end within 0\.5 s"):
        pour(["sleep", "1000"], 0.5)


def test_a_reader_dies_with_the_body_that_fails(tmp_path: Path) -> None:
    script = "sleep 1000 & echo $! $$ > pids; echo > ready; cat"
    os.mkfifo(tmp_path / "ready")

    def fail() -> None:
        with feed(["sh", "-c", script], deadline=60, cwd=tmp_path):
            (tmp_path / "ready").read_bytes()  # waits until the child has written
            raise ValueError("body")

    with pytest.raises(ValueError, match="body"):
        fail()
    assert all(ended(int(process)) for process in (tmp_path / "pids").read_text().split())


@pytest.mark.parametrize("mode", ["", "set -m;"], ids=["its group", "another group"])
def test_what_a_killed_process_had_started_dies_with_it(mode: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ready")

    def publisher() -> None:
        script = f"{mode} read go; sleep 1000 & echo $$ $! > ready; wait"
        with feed(["sh", "-c", script], deadline=600, cwd=tmp_path) as stdin:
            stdin.write(b"go\n")
            signal.pause()

    child = child_process.start(publisher)
    started = (tmp_path / "ready").read_text().split()  # waits until they have been started
    os.kill(child, signal.SIGKILL)
    assert child_process.end(child) == -signal.SIGKILL
    assert all(ended(int(process)) for process in started)


def test_a_program_without_a_guard_goes_on_to_its_end_whatever_it_says_meanwhile(tmp_path: Path) -> None:
    """Nobody reads it any more."""
    os.mkfifo(tmp_path / "go")
    script = f"echo $$ >{tmp_path}/pid; read x <{tmp_path}/go; echo said; echo said >&2; echo done >{tmp_path}/done"
    child = child_process.start(lambda: shell(script, guarded=False))
    go = os.open(tmp_path / "go", os.O_WRONLY)  # waits for the program
    os.kill(child, signal.SIGKILL)
    assert child_process.end(child) == -signal.SIGKILL
    process = int((tmp_path / "pid").read_text())
    os.write(go, b"on\n")
    os.close(go)
    assert ended(process)
    assert (tmp_path / "done").read_text() == "done\n"


def test_who_watches_a_program_without_a_guard_sees_what_it_said_last(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "end")
    said = []

    def watch(seconds: float, last_line: str) -> None:
        assert seconds > 0
        said.append(last_line)
        if last_line == "second":
            with contextlib.suppress(OSError):  # it does not read yet
                os.close(os.open(tmp_path / "end", os.O_WRONLY | os.O_NONBLOCK))

    script = f"echo first; echo second; read x <{tmp_path}/end; echo done"
    assert shell(script, guarded=False, watch=watch, watch_interval=0.01).endswith("second\ndone\n")
    assert said[-1] == "second"


def test_a_program_without_a_guard_is_waited_for_by_an_interrupt(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    out, said = os.pipe()

    def interrupt(_signal: int, _frame: object) -> None:
        os.write(said, b".")
        raise KeyboardInterrupt

    def publisher() -> None:
        signal.signal(signal.SIGINT, interrupt)
        script = f"read x <{tmp_path}/go; echo done >{tmp_path}/done"
        shell(script, guarded=False, on_start=lambda _kill: os.write(said, b"!"))

    child = child_process.start(publisher)
    os.close(said)
    go = os.open(tmp_path / "go", os.O_WRONLY)  # waits for the program
    assert os.read(out, 1) == b"!"
    for _ in range(2):
        os.kill(child, signal.SIGINT)
        assert os.read(out, 1) == b"."
    watched = os.pidfd_open(child)
    assert select.select([watched], [], [], 1)[0] == [], "it went without the program"
    os.close(watched)
    os.write(go, b"on\n")
    os.close(go)
    os.close(out)
    assert child_process.end(child) == 1, "it was interrupted all the same"
    assert (tmp_path / "done").exists()


def test_an_interrupted_program_without_a_guard_keeps_its_deadline(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ready")
    out, said = os.pipe()
    script = f"echo $$ >{tmp_path}/ready; exec sleep 1000"
    child = child_process.start(lambda: shell(script, guarded=False, deadline=2, on_start=lambda _kill: os.write(said, b"!")))
    process = int((tmp_path / "ready").read_text())
    assert os.read(out, 1) == b"!"
    os.close(out)
    os.close(said)
    os.kill(child, signal.SIGINT)
    assert child_process.end(child) == 1
    assert ended(process)


def test_a_reader_is_no_zombie_afterwards() -> None:
    def child() -> None:
        with feed(["cat"], deadline=60) as stdin:
            stdin.write(b"1")
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)  # the guard alone is left, and lives

    assert child_process.end(child_process.start(child)) == 0


def test_every_program_is_logged_with_its_secrets_redacted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "publisher.system.command")
    shell("exit 3", accept=(3,))
    run(["true", "--token", "word", "https://me:word@example.org/a?sig=word"], deadline=60)
    with pytest.raises(CommandError):
        pour(["false"], 60)
    first, second, third = caplog.records
    assert first.getMessage().startswith("sh -c 'exit 3' ended with status 3 after 0.")
    assert "word" not in second.getMessage()
    assert "true --token [redacted] 'https://[redacted]@example.org/a?[redacted]" in second.getMessage()
    assert vars(third)["status"] == 1
