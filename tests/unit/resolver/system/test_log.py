"""Messages on standard error: free until they are switched on, on one line each, and without secrets."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.errors import DeadlineError, FetchError, ResolverUsageError
from publisher.resolver.system import log
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.transfer import http
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import NetworkOptions
from tests.support.checkout import ROOT
from tests.support.osdf.faulty_cache import FaultyServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN = "s3cret-t0ken-value"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    yield
    log.reset()


def soon() -> float:
    return time.monotonic() + 60


def speak(write: Callable[[str], None], line: str) -> bytes:
    write(line)
    return b"answer"


def test_before_it_is_configured_only_warnings_and_errors_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    log.debug("x")
    log.info("x %s", 1)
    log.warning("100 % full")
    log.error("no image")
    assert capsys.readouterr() == ("", "image-resolver: 100 % full\nimage-resolver: no image\n")


@pytest.mark.parametrize(
    ("verbosity", "levels"),
    [(-1, ["error"]), (0, ["warning", "error"]), (1, ["info", "warning", "error"]), (2, ["debug", "info", "warning", "error"])],
)
def test_the_verbosity_decides_what_is_written(verbosity: int, levels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(verbosity, log.JSON)
    log.debug("a %s", 1)
    log.info("b")
    log.warning("100 % full")
    log.error("d")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == levels
    assert all(set(line) == {"time", "level", "pid", "message"} for line in lines)


def test_text_lines_have_the_time_and_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(2, log.TEXT)
    log.debug("of %d\nlines", 2)
    log.warning("as ever")
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"image-resolver: \d\d:\d\d:\d\d\.\d{3} \[\d+\] of 2 lines", first)
    assert second == "image-resolver: as ever"


def test_lines_of_a_child_process_reach_the_parents_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(2, log.TEXT)

    def work() -> bytes:
        log.info("in the child")
        log.info("long: %s", "x" * 200_000)
        return ForkedCall(lambda: speak(log.info, "in its child")).result(soon())

    assert ForkedCall(work).result(soon()) == b"answer"
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("] ")[2][:12] for line in lines] == ["in the child", "long: xxxxxx", "in its child"]


def test_lines_of_a_child_process_that_fails_or_hangs_are_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(2, log.TEXT)

    def fail() -> bytes:
        log.info("before the failure")
        raise FetchError("no")

    def hang() -> bytes:
        log.info("before the hang")
        time.sleep(1000)
        return b""

    with pytest.raises(FetchError, match="no"):
        ForkedCall(fail).result(soon())
    with pytest.raises(DeadlineError):
        ForkedCall(hang).result(time.monotonic() + 1)
    err = capsys.readouterr().err
    assert "before the failure" in err
    assert "before the hang" in err


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://host/a?authz={TOKEN}&b=c: status 403",
        f"GET https://host/a?{TOKEN}",
        f"https://user:{TOKEN}@host/a",
        f"Authorization: Bearer {TOKEN}",
        f"proxy: Basic {TOKEN}",
        f"'https://host/a?authz=Bearer%20{TOKEN}'",
        f"authz%3D{TOKEN} and more",
        f"the server says {JWT}",
    ],
)
@pytest.mark.parametrize("form", log.FORMATS)
def test_secrets_are_masked_in_every_line(text: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(2, form)
    for write in (log.debug, log.info, log.warning, log.error):
        write(text)
    err = capsys.readouterr().err
    assert err.count("\n") == 4
    assert TOKEN not in err
    assert JWT not in err


def test_what_is_no_secret_stays(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(2, log.TEXT)
    text = "GET https://cache.example.org:8443/images/sif/ab/cd.sif: status 200 OK; is it there?"
    log.error(text)
    assert capsys.readouterr().err == f"image-resolver: {text}\n"


@pytest.mark.parametrize("always", ["", "500", "403", "garbage", "moved"])
def test_a_token_of_a_request_is_in_no_line(always: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither of the URL nor of the header, whether the request succeeds or not."""
    log.configure(2, log.TEXT)
    with FaultyServer({"/a": b"x"}) as server:
        server.always, server.elsewhere = always, f"{server.url}/other?authz={TOKEN}"
        source = open_source(f"{server.url}?authz={TOKEN}", NetworkOptions())
        try:
            source.read("a", 100)
        except FetchError as error:
            log.error(str(error))
        try:
            with http.get(f"{server.url}/a?x={TOKEN}", NetworkOptions(), headers={"Authorization": f"Bearer {TOKEN}"}):
                pass
        except FetchError as error:
            log.error(str(error))
    err = capsys.readouterr().err
    assert server.url.removeprefix("http://") in err
    assert TOKEN not in err


@pytest.mark.parametrize(
    ("flags", "verbosity", "form"),
    [
        ([], 0, "text"),
        (["-v"], 1, "text"),
        (["-vv"], 2, "text"),
        (["-v", "--verbose", "-v"], 2, "text"),
        (["-q"], -1, "text"),
        (["--quiet", "-v"], -1, "text"),
        (["--log-format", "json"], 0, "json"),
        (["--log-format=text", "-vv"], 2, "text"),
    ],
)
def test_the_command_line_sets_verbosity_and_form(
    flags: list[str], verbosity: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = CommandLine(["resolve", *flags, "a"])
    assert (line.words, line.verbosity, line.log_format) == (["resolve", "a"], verbosity, form)
    configured: list[tuple[int, str]] = []
    monkeypatch.setattr(log, "configure", lambda *words: configured.append(words))
    line.configure_log()
    assert configured == ([(verbosity, form)] if flags else [])


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ResolverUsageError, match="--log-format 'xml' must be one of text, json"):
        CommandLine(["resolve", "--log-format", "xml"])


def test_nothing_is_imported_until_it_is_configured() -> None:
    statements = ("import sys", "sys.path.insert(0, sys.argv[1])", "from publisher.resolver.system import log", "log.debug('x')")
    program = "; ".join((*statements, "print(*sys.modules)"))
    command = [sys.executable, "-I", "-S", "-c", program, str(ROOT)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert not {"logging", "json", "re"} & set(run.stdout.split())


def test_a_warning_of_a_child_process_is_written_without_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert ForkedCall(lambda: speak(log.warning, "in the child")).result(soon()) == b"answer"
    assert capsys.readouterr() == ("", "image-resolver: in the child\n")


def test_a_closed_standard_error_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    log.error("nobody reads this")
    log.configure(2)
    log.debug("nor this")
