"""The options for logging: levels, JSON lines, a clean standard output, no credentials, failures reported once."""

from __future__ import annotations

import base64
import errno
import http.server
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, ClassVar

import pytest
from click.testing import CliRunner

from publisher.cli.console import LogDisplay, console
from publisher.cli.main import main, publisher
from publisher.system import logs
from publisher.system.progress import LineDisplay
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.lists import listed
from tests.support.publisher.prepublished import NAME, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

ROCKY = "htc/rocky:9"
DAY = 86400


@pytest.fixture(autouse=True)
def restored_console(restored_logging: None) -> Iterator[None]:
    """Restore the console, which belongs to the whole process, before the log is restored."""
    del restored_logging
    yield
    console.configure(0, logs.TEXT)


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """The flags of a host with one published image, superseded builds of which may go."""
    place = Place(tmp_path)
    place.now = 1_600_000_000
    publication = place.publication()
    for text in ("one", "two"):
        place.publish(publication, (entry(ROCKY), answer(text)))
    paths = {"repository": "cvmfs", "origin": "osdf", "key": "key", "state": "state"}
    return [f"--repository-name={NAME}", *(f"--{name}={tmp_path / path}" for name, path in paths.items())]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(publisher, arguments)


def levels(result: Result) -> set[str]:
    return {line.split()[1] for line in result.stderr.splitlines() if line[:2] == "20"}


@pytest.mark.parametrize(
    ("options", "shown"), [((), set()), (("-q",), set()), (("-v",), {"INFO"}), (("-vv",), {"INFO", "DEBUG"})]
)
def test_verbosity_chooses_the_levels_that_are_logged(flags: list[str], options: tuple[str, ...], shown: set[str]) -> None:
    result = run("gc", "--dry-run", *flags, *options)
    assert result.exit_code == 0
    assert levels(result) == shown
    assert ROCKY in result.stdout
    assert "20" not in {line[:2] for line in result.stdout.splitlines()}, "no log line on standard output"


def test_a_decision_is_logged_with_its_reason(flags: list[str]) -> None:
    lines = run("gc", "--dry-run", *flags, "-vv").stderr.splitlines()
    assert any("selected for removal from the repository: .images/" in line for line in lines)


@pytest.mark.parametrize(
    "arguments", [("-vv", "status"), ("-v", "status", "-v"), ("status", "-vv"), ("--verbose", "--verbose", "status")]
)
def test_the_options_stand_before_or_after_the_command_and_add_up(flags: list[str], arguments: tuple[str, ...]) -> None:
    assert run(*arguments, ROCKY, *flags).exit_code == 0
    assert logging.getLogger("publisher").level == logging.DEBUG


def test_the_form_after_the_command_overrides_the_one_before_it(flags: list[str]) -> None:
    result = run("--log-format=json", "gc", "--dry-run", *flags, "--log-format=text", "-v")
    assert levels(result) == {"INFO"}


def test_quiet_and_verbose_exclude_each_other(flags: list[str]) -> None:
    result = run("-q", "status", ROCKY, "-v", *flags)
    assert result.exit_code == 2
    assert "-q and -v exclude each other" in result.stderr


def test_every_json_line_parses_and_the_result_stays_on_standard_output(flags: list[str]) -> None:
    result = run("gc", "--dry-run", *flags, "-vv", "--log-format=json")
    records = [json.loads(line) for line in result.stderr.splitlines()]
    assert {record["level"] for record in records} == {"INFO", "DEBUG"}
    assert all(record["logger"].startswith("publisher.") and record["message"] for record in records)
    assert json.loads(run("status", ROCKY, "--json", *flags, "-vv").stdout)[0]["name"] == ROCKY


def test_messages_are_lines_or_records(flags: list[str], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cvmfs/.images")
    assert run("verify", ROCKY, *flags).stderr == "publisher: 2 problem(s)\n"
    record = json.loads(run("verify", ROCKY, *flags, "-v", "--log-format=json").stderr.splitlines()[-1])
    assert (record["level"], record["message"]) == ("INFO", "2 problem(s)")
    assert run("verify", ROCKY, *flags, "-q").stderr == ""


def test_progress_is_hidden_with_quiet_and_logged_in_the_json_form() -> None:
    console.configure(0, logs.TEXT)
    assert isinstance(console.open_display(), LineDisplay)
    for verbosity, form in ((-1, logs.TEXT), (0, logs.JSON)):
        console.configure(verbosity, form)
        assert isinstance(console.open_display(), LogDisplay)


def test_quiet_progress_writes_nothing_and_json_progress_writes_records(capsys: pytest.CaptureFixture[str]) -> None:
    for verbosity, form, count in ((-1, logs.TEXT, 0), (1, logs.JSON, 3)):
        console.configure(verbosity, form)
        with console.open_display() as display:
            display.begin("building", 1)
            display.step(ROCKY, "fetch", 1, 2)
            display.advance()
            display.finish(ROCKY, "published")
            display.say("a note")
        captured = capsys.readouterr()
        assert captured.out == ""
        assert [json.loads(line)["level"] for line in captured.err.splitlines()] == ["INFO", "INFO", "WARNING"][:count]


@pytest.mark.parametrize("options", [(), ("-q",), ("-vv",), ("--log-format=json",), ("--log-format=json", "-vv")])
def test_an_expected_failure_is_reported_once(
    flags: list[str], options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["publisher", "diff", "htc/nobody:1", *flags, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (2, "")
    assert captured.err.count("nothing is published under the name htc/nobody:1") == 1
    assert "Traceback" not in captured.err
    if "--log-format=json" in options:
        assert json.loads(captured.err.splitlines()[-1])["level"] == "ERROR"
    else:
        assert "publisher: nothing is published" in captured.err


@pytest.mark.parametrize("options", [("-q",), ("--log-format=json",)])
def test_a_bug_keeps_its_traceback(
    flags: list[str], options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("publisher.cli.commands.publish.make_publication", lambda *_: 1 // 0)
    monkeypatch.setattr(sys, "argv", ["publisher", "sync", *flags, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    text = capsys.readouterr().err
    assert "ZeroDivisionError" in (json.loads(text)["exception"] if "--log-format=json" in options else text)


def test_a_disk_that_fails_is_no_bug(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "/var/lib/x")

    monkeypatch.setattr("publisher.cli.commands.publish.make_publication", fail)
    monkeypatch.setattr(sys, "argv", ["publisher", "sync", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    text = capsys.readouterr().err
    assert ended.value.code == 4
    assert "Traceback" not in text
    assert "/var/lib/x: Input/output error (look at the disks" in text


class Denying(http.server.BaseHTTPRequestHandler):
    """A registry that asks for credentials and then denies access."""

    seen: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        given = self.headers.get("Authorization")
        if given:
            self.seen.append(given)
        self.send_response(403 if given else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="test"')
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture
def registry() -> Iterator[str]:
    """The address of a registry that is :class:`Denying`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Denying) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("form", [logs.TEXT, logs.JSON])
def test_no_credential_reaches_the_log(flags: list[str], tmp_path: Path, registry: str, form: str) -> None:
    """A registry denies an image although it got the credentials for it; all that is known about this is logged."""
    (tmp_path / "docker").mkdir()
    auths = {"auths": {registry: {"auth": base64.b64encode(b"somebody:s3cret-w0rd").decode()}}}
    (tmp_path / "docker/config.json").write_text(json.dumps(auths))
    (tmp_path / "docker/config.json").chmod(0o600)
    (tmp_path / "images.yaml").write_text(listed(f"{registry}/a/b:1"))
    environ = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker"), "BEARER_TOKEN": "s3cret-t0ken"}
    command = [sys.executable, "-m", "publisher", "-vv", f"--log-format={form}", "plan", *flags]
    command += [f"--images={tmp_path / 'images.yaml'}", f"--insecure-registry={registry}"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert "failed: a/b:1" in done.stdout, done.stderr
    credentials = base64.b64encode(b"somebody:s3cret-w0rd").decode()
    assert Denying.seen[-1] == f"Basic {credentials}"
    assert " DEBUG " in done.stderr or '"DEBUG"' in done.stderr
    for secret in ("s3cret-w0rd", "s3cret-t0ken", credentials):
        assert secret not in done.stdout + done.stderr
