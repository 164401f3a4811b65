"""``publisher doctor``: a healthy host, and one line with the next step for each part that is wrong."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest
from click.testing import CliRunner

from publisher.cli.main import publisher
from publisher.cli.setup import checks
from publisher.errors import DeniedError, NotFoundError, UnavailableError
from publisher.net.retry import RetryPolicy
from publisher.system import accounts
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.publisher.built_values import answer

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.errors import PublisherError
    from publisher.net.server_dates import ServerDates
    from publisher.plan.model import ResolvedReference


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Registries:
    """The registries of the list: what they answer, what they say of the time, and warnings about credentials."""

    def __init__(self) -> None:
        self.answers: dict[str, ResolvedReference | PublisherError] = {"library/debian:12": answer("debian")}
        self.ahead = 0.0
        self.said: list[str] = []

    def open(self, _settings: object, _display: object, *, dates: ServerDates) -> Registries:
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + self.ahead))
        dates.record("docker.io", {"Date": date})
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def resolve(self, _entries: object, _records: object) -> dict[str, ResolvedReference | PublisherError]:
        return self.answers

    def warnings(self) -> list[str]:
        return self.said


@pytest.fixture
def registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registries:
    """A prepared directory on a host with all tools."""
    made = Registries()
    monkeypatch.chdir(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, says in {
        "apptainer": "apptainer version 1.4.5",
        "mksquashfs": "mksquashfs version 4.5.1 (2022/03/17)",
        "unsquashfs": "",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(checks, "make_intake", made.open)
    monkeypatch.setattr(accounts, "find_account", lambda *_: None)
    monkeypatch.setattr(checks, "build_account", lambda _: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 10**12))
    assert CliRunner().invoke(publisher, ["init"], catch_exceptions=False).exit_code == 0
    return made


def doctor(*flags: str) -> tuple[int, dict[str, list[str]]]:
    """Return the exit status, and part -> what was found, with verdicts."""
    done = CliRunner().invoke(publisher, ["doctor", "--json", *flags], catch_exceptions=False)
    found: dict[str, list[str]] = {}
    for one in json.loads(done.stdout):
        found.setdefault(one["part"], []).append(f"{one['verdict']}: {one['text']}")
    return done.exit_code, found


@pytest.mark.usefixtures("registries")
def test_a_healthy_host_has_one_screen_of_good_news() -> None:
    done = CliRunner().invoke(publisher, ["doctor"], catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) < 24
    assert {line.split()[0] for line in lines[:-1]} == {"ok"}
    assert lines[-1] == "nothing is wrong"
    for words in (
        "apptainer 1.4.5, mksquashfs 4.5.1, zstd",
        "1 key(s) can sign",
        "nothing is published yet",
        "docker.io answers",
        "clock is right",
    ):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UnavailableError("docker.io does not answer"), "wrong: docker.io: docker.io does not answer"),
        (DeniedError("it is private", hint="log in"), "warning: docker.io: it is private (log in)"),
        (NotFoundError("no such tag"), "ok: docker.io answers"),
    ],
)
def test_a_registry_that_fails_is_told_from_an_image_that_is_missing(
    registries: Registries, error: PublisherError, says: str
) -> None:
    registries.answers = {"library/debian:12": error}
    status, found = doctor()
    assert found["registries"][0] == says
    assert status == (1 if says.startswith("wrong") else 0)


def test_a_clock_that_differs_from_registries_is_wrong_and_credentials_that_expire_are_reported(registries: Registries) -> None:
    registries.ahead, registries.said = 86400, ["the token for quay.io expires in 2 days"]
    status, found = doctor()
    assert status == 1
    assert "warning: the token for quay.io expires in 2 days" in found["registries"]
    assert "wrong: this host's clock differs from those of docker.io: run an NTP client" in found["registries"]


@pytest.mark.usefixtures("registries")
def test_each_part_that_is_wrong_is_reported_and_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "images.yaml").write_text("version: 1\nimages:\n  - No Reference\n")
    (tmp_path / "keys/signing.pem").unlink()
    (tmp_path / "bin/apptainer").write_text("#!/bin/sh\nexit 3\n")
    status, found = doctor()
    assert status == 1
    assert "wrong: 1 problem(s) in the image list, the first: " in found["image list"][0]
    assert "publisher keys new" in found["keys"][0]
    assert found["tools"][0].startswith("wrong: ")
    assert found["space"][0].startswith("ok: ")


@pytest.mark.usefixtures("registries")
def test_little_space_is_a_warning_and_none_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, verdict in ((5 * 10**9, "warning"), (10**8, "wrong")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(10**12, 0, free))
        assert doctor()[1]["space"][0].startswith(f"{verdict}: state: ")


def jwt(**claims: Any) -> str:
    return "e30." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".c2ln"


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    ("token", "says"),
    [
        (jwt(exp=1, scope="storage.create:/"), "wrong: the token expired on 1970-01-01 00:00 UTC; renew it"),
        (jwt(exp=1 << 33, scope="storage.read:/"), "wrong: the token may not store anything: its scopes are storage.read:/"),
        ("opaque", "ok: the token is not a JWT with an expiry"),
    ],
)
def test_the_token_of_the_origin_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, says: str) -> None:
    monkeypatch.setattr(RetryPolicy, "_delay", lambda *_: 0)
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(0o600)
    _, found = doctor(f"--token-file={tmp_path}/token", "--origin=pelican://127.0.0.1:1/images")
    assert says in found["origin"]


@pytest.mark.usefixtures("registries")
def test_a_program_of_another_version_than_the_accepted_one_is_wrong() -> None:
    status, found = doctor("--accepted-tools=mksquashfs 4.5.1,apptainer 1.5.0")
    assert status == 1
    (problem,) = [line for line in found["tools"] if line.startswith("wrong")]
    assert "this host has apptainer 1.4.5, and accepted_tools names apptainer 1.5.0" in problem


@pytest.mark.usefixtures("registries")
def test_the_gateway_of_a_repository_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DirectoryRepository, "shared_through", "http://gateway.example.org:4929/api/v1")
    _, found = doctor()
    assert any("is published through http://gateway.example.org:4929/api/v1: other hosts" in line for line in found["repository"])
