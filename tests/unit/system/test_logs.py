from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from publisher.system import logs

LOG = logging.getLogger("publisher.some.module")
OTHER = logging.getLogger("somebody.else")
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"


def logged(verbosity: int, form: str = logs.TEXT) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(verbosity, form, stream)
    return stream


@pytest.mark.parametrize(
    ("verbosity", "levels"),
    [
        (-1, ["ERROR"]),
        (0, ["WARNING", "ERROR"]),
        (1, ["INFO", "WARNING", "ERROR"]),
        (2, ["DEBUG", "INFO", "WARNING", "ERROR"]),
        (7, ["DEBUG", "INFO", "WARNING", "ERROR"]),
    ],
)
def test_the_verbosity_sets_the_level(verbosity: int, levels: list[str]) -> None:
    stream = logged(verbosity)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        LOG.log(level, "something")
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == levels


def test_other_packages_log_warnings_at_the_most() -> None:
    stream = logged(2)
    OTHER.info("chatter")
    OTHER.warning("worth a line")
    assert [line.split(": ")[1] for line in stream.getvalue().splitlines()] == ["worth a line"]


def test_a_line_of_text_has_time_level_logger_and_message() -> None:
    stream = logged(0)
    LOG.handle(
        logging.makeLogRecord(
            {
                "name": LOG.name,
                "levelname": "WARNING",
                "levelno": logging.WARNING,
                "msg": "%d of %d",
                "args": (1, 2),
                "created": 0.25,
                "msecs": 250.0,
            }
        )
    )
    assert stream.getvalue() == "1970-01-01T00:00:00.250Z WARNING publisher.some.module: 1 of 2\n"


def test_a_message_stays_on_its_line() -> None:
    stream = logged(0)
    LOG.warning("first\nsecond\x1b[2J")
    assert stream.getvalue().endswith(": first\\x0asecond\\x1b[2J\n")


def test_a_json_object_has_the_extra_fields_too() -> None:
    stream = logged(0, logs.JSON)
    LOG.warning(
        "failed\nagain", extra={"attempt": 2, "image": "htc/rocky:9", "delay": 0.5, "hosts": ("a", None), "of": {"x": True}}
    )
    (line,) = stream.getvalue().splitlines()
    value = json.loads(line)
    assert value.pop("time").endswith("Z")
    assert value == {
        "level": "WARNING",
        "logger": "publisher.some.module",
        "message": "failed\nagain",
        "attempt": 2,
        "image": "htc/rocky:9",
        "delay": 0.5,
        "hosts": ["a", None],
        "of": {"x": True},
    }


@pytest.mark.parametrize("form", [logs.TEXT, logs.JSON])
def test_a_traceback_comes_with_its_record(form: str) -> None:
    stream = logged(0, form)
    try:
        int("https://me:word@example.org/")
    except ValueError:
        LOG.exception("a bug")
    text = stream.getvalue()
    assert "Traceback" in text
    assert "https://[redacted]@example.org/" in text
    assert "word" not in text
    assert form == logs.TEXT or json.loads(text)["exception"].startswith("Traceback")


def test_a_second_configuration_replaces_the_first() -> None:
    first = logged(0)
    second = logged(0)
    LOG.warning("once")
    assert (first.getvalue(), second.getvalue().count("once")) == ("", 1)


def test_the_log_follows_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress bars put another stream in its place, which writes above them."""
    logs.configure(0, logs.TEXT)
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stderr", replaced)
    LOG.warning("above the bars")
    assert "above the bars" in replaced.getvalue()


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: [redacted]"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': [redacted]'}"),
        ("proxy-authorization=Zm9v", "proxy-authorization=[redacted]"),
        ("sent Bearer 0123456789abcdef to it", "sent Bearer [redacted] to it"),
        ("sent basic dXNlcjpwYXNzd29yZA== to it", "sent basic [redacted] to it"),
        (f"the token {JWT} expired", "the token [redacted] expired"),
        ("https://user:pass@example.org:5000/v2/", "https://[redacted]@example.org:5000/v2/"),
        ("https://user:p@ss@example.org/", "https://[redacted]@example.org/"),
        ("pelican://example.org/a?authz=abc&x=1 failed", "pelican://example.org/a?[redacted] failed"),
        ("GET /v2/a/blobs?sig=abc failed", "GET /v2/a/blobs?[redacted] failed"),
        ("tool --password word --token=word2 file", "tool --password [redacted] --token=[redacted] file"),
        ("password=word&user=me", "password=[redacted]&user=me"),
    ],
)
@pytest.mark.parametrize("form", [logs.TEXT, logs.JSON])
def test_credentials_are_redacted(text: str, redacted: str, form: str) -> None:
    stream = logged(0, form)
    LOG.warning("%s", text, extra={"field": {"inner": [text]}})
    if form == logs.TEXT:
        assert stream.getvalue().endswith(f": {redacted}\n")
    else:
        value = json.loads(stream.getvalue())
        assert (value["message"], value["field"]) == (redacted, {"inner": [redacted]})


@pytest.mark.parametrize(
    "text",
    [
        "basic authentication is required",
        "the bearer token expired",
        "hub.example.org/htc/rocky:9@sha256:" + "ab" * 32,
        "is it there? no",
        "1.5 s until the next attempt",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert logs.redact(text) == text
