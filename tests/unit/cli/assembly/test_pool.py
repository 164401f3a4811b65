"""How the settings become a builder for a pool."""

from __future__ import annotations

import importlib.util
import os
import time
import types
from typing import TYPE_CHECKING

import pytest

from publisher.cli.assembly import pool
from publisher.cli.assembly.builder import build_account, open_builder
from publisher.cli.assembly.targets import make_origin
from publisher.cli.state_directory import lock_state
from publisher.errors import OriginError, StateDirectoryError, UsageError
from publisher.settings.sources import load_settings
from publisher.targets.origins.pelican import PelicanOrigin
from publisher.targets.origins.replicated import ReplicatedOrigin
from publisher.targets.pelican.tokens import CREATE, TokenScope
from tests.support.osdf.tokens import Issuer

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.builders.condor import CondorBuilder
    from publisher.settings.settings import PublisherSettings
    from publisher.targets.origins.job_uploads import JobUploads
    from publisher.targets.pelican.tokens import TokenSource


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the build step and the trial have tests of their own."""
    monkeypatch.setattr(pool, "write_bundle", lambda directory, python: directory / f"{python}.pyz")
    monkeypatch.setattr(pool, "trial_digest", lambda *_, **__: "ab" * 32)


def settings(where: Path, **more: object) -> PublisherSettings:
    given = {"state": where / "state", "repository": where / "cvmfs", "origin": where / "osdf", "test_account": "nobody"}
    return load_settings({**{name: str(value) for name, value in given.items()}, "builder": "condor", **more}, {}, cwd=where)


def assembled(given: PublisherSettings) -> CondorBuilder:
    intake = types.SimpleNamespace(with_layers=None)  # nothing is fetched
    with lock_state(given.state), open_builder(given) as here:
        return pool.make_pool_builder(given, here.local, intake, make_origin(given), build_account(given))  # type: ignore[arg-type]  # the part of an intake that is used


class UploadingOrigin(PelicanOrigin):
    """An origin that records the sources of the tokens of jobs."""

    def __init__(self) -> None:
        self.sources: list[TokenSource] = []

    def job_uploads(self, tokens: TokenSource) -> JobUploads:
        self.sources.append(tokens)
        return None  # type: ignore[return-value]  # not used


SCOPES = [TokenScope(CREATE, "/images/.incoming/job")]


def test_jobs_upload_with_tokens_that_live_as_long_as_they_may(tmp_path: Path) -> None:
    issuer, target = Issuer(), UploadingOrigin()
    more = {"token_key": str(issuer.save(tmp_path / "key.pem")), "token_issuer": issuer.url, "token_key_id": issuer.keyid}
    given = settings(tmp_path, **more, origin="https://origin.example.org/images", condor_wait="1h", build_deadline="2h")
    pool.job_uploads(given, ReplicatedOrigin(target, {}))
    token = target.sources[0].bearer(SCOPES, "/images")
    assert token is not None
    _, claims = issuer.read(token)
    assert claims["scope"] == "storage.create:/.incoming/job"
    assert float(str(claims["exp"])) - time.time() == pytest.approx(3 * 3600 + 600, abs=60)


def test_a_program_of_the_operators_issues_the_tokens_of_jobs(tmp_path: Path) -> None:
    program, target = tmp_path / "issue", UploadingOrigin()
    program.write_text('#!/bin/sh\necho "$1" "$2" > "$0".asked\necho a.b.c\n')
    program.chmod(0o755)
    given = settings(tmp_path, condor_token_command=str(program), condor_wait="1h", build_deadline="2h")
    pool.job_uploads(given, target)
    assert target.sources[0].bearer(SCOPES, "/images") == "a.b.c"
    assert (tmp_path / "issue.asked").read_text() == f"storage.create:/.incoming/job {3 * 3600 + 600}\n"
    program.write_text("#!/bin/sh\necho no account >&2\nexit 1\n")
    with pytest.raises(OriginError, match=r"there is no token: .*no account"):
        target.sources[0].bearer(SCOPES, "/images")


def test_without_an_issuer_or_with_a_directory_as_origin_sifs_come_back_by_file_transfer(tmp_path: Path) -> None:
    given = settings(tmp_path)
    assert pool.job_uploads(given, UploadingOrigin()) is None
    assert pool.job_uploads(given.model_copy(update={"condor_token_command": "issue"}), make_origin(given)) is None


def test_the_settings_reach_the_builder(shared_path: Path) -> None:
    more = {"condor_jobs": "7", "condor_directory": str(shared_path / "jobs"), "condor_python": "python3.11"}
    builder = assembled(settings(shared_path, **more, insecure_registry="localhost:5000", allowed_networks="10.1.0.0/16"))
    assert builder.parallel == 7
    assert builder.options.program == shared_path / "jobs" / "python3.11.pyz"
    assert (builder.options.step.insecure, builder.options.step.networks) == (("localhost:5000",), ("10.1.0.0/16",))
    assert (shared_path / "state" / "sample-secret").exists()


def test_two_publishers_do_not_take_each_others_jobs(shared_path: Path) -> None:
    one, other = (assembled(settings(shared_path, origin=str(shared_path / name))) for name in ("a", "b"))
    assert one.options.deployment != other.options.deployment


def test_nothing_begins_without_the_bindings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "htcondor2" else found(name, *more))
    with pytest.raises(UsageError, match="htcondor2"):
        assembled(settings(tmp_path))


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirectoryError, match="cannot be made"):
        assembled(settings(tmp_path, condor_directory=str(tmp_path / "file" / "jobs")))


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: accounts of jobs; only root has others")
def test_an_account_that_cannot_enter_the_jobs_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    given = settings(tmp_path, condor_directory=str(tmp_path / "closed" / "jobs"), condor_account="nobody")
    with pytest.raises(UsageError, match=r"cannot enter .*jobs \(set condor_directory to a directory that it can enter\)"):
        assembled(given)
