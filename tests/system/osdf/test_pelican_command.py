"""Uploads that the ``pelican`` command carries: a stand-in of it, since the real one is in no package and was not tried."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from publisher.errors import OriginError
from publisher.targets.origins.pelican import PelicanOrigin, UploadOptions
from publisher.targets.pelican.federation.address import OriginAddress
from tests.support.checkout import ROOT
from tests.support.loopback import LOOPBACK
from tests.support.osdf import origin as pelican

pytestmark = pytest.mark.system
CONTENT = b"a SIF\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIF = f"sif/{SHA256[:2]}/{SHA256}.sif"
_FAKE = ROOT / "tests/fakes/pelican_put"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def origin(tmp_path: Path, log: Path) -> PelicanOrigin:
    program = tmp_path / "pelican"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {_FAKE} {log} "$@"\n')
    program.chmod(0o755)
    there = pelican.running()
    options = UploadOptions(
        networks=LOOPBACK,
        tokens=pelican.minted(there),
        ca_file=there.servers.authority,
        retries=pelican.RETRIES,
        pelican_program=str(program),
    )
    return PelicanOrigin(OriginAddress(there.director, pelican.prefix(tmp_path), direct=False), options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "built.sif"
    path.write_bytes(CONTENT)
    return path


def put(origin: PelicanOrigin, source: Path) -> bool:
    return origin.put(SIF, source, sha256=SHA256, size=len(CONTENT))


def calls(log: Path) -> list[list[str]]:
    return [json.loads(line)["arguments"] for line in log.read_text().splitlines()] if log.exists() else []


def test_the_command_brings_the_file_into_the_incoming_area_and_the_rest_is_as_ever(
    origin: PelicanOrigin, source: Path, log: Path
) -> None:
    assert put(origin, source)
    assert origin.read(SIF) == CONTENT
    assert list(origin.names()) == [SIF]
    (call,) = calls(log)
    assert call[:3] == ["object", "put", "--token"]
    assert call[4] == str(source)
    assert call[5].startswith(f"{origin.address}/.incoming/")
    assert not Path(call[3]).exists()
    assert not put(origin, source)
    origin.put_bytes("manifest/shards/x.json", b"{}")
    assert len(calls(log)) == 1


def test_the_command_gets_no_token_in_its_environment_and_a_home_that_is_nobodys(
    origin: PelicanOrigin, source: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEARER_TOKEN", "secret")
    put(origin, source)
    environment = json.loads(log.read_text())["environment"]
    assert set(environment) - {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PWD"} == {"HOME", "SSL_CERT_FILE"}


def test_what_may_be_gone_the_next_time_is_tried_again(origin: PelicanOrigin, source: Path, log: Path) -> None:
    Path(f"{log}.fault").touch()
    assert put(origin, source)
    assert len(calls(log)) == 2


def test_a_failure_of_the_command_has_its_words_and_no_token(tmp_path: Path, source: Path) -> None:
    program = tmp_path / "pelican"
    program.write_text('#!/bin/sh\necho "Error code 4000: Bearer $(cat "$4") is refused" >&2\nexit 1\n')
    program.chmod(0o755)
    there = pelican.running()
    options = UploadOptions(
        networks=LOOPBACK, tokens=pelican.minted(there), ca_file=there.servers.authority, pelican_program=str(program)
    )
    origin = PelicanOrigin(OriginAddress(there.director, pelican.prefix(tmp_path), direct=False), options)
    with pytest.raises(OriginError, match=r"pelican failed with status 1: Error code 4000: Bearer TOKEN"):
        put(origin, source)
    assert list(origin.names()) == []


def test_a_source_that_is_not_what_it_should_be_never_reaches_the_command(origin: PelicanOrigin, source: Path, log: Path) -> None:
    with pytest.raises(OriginError, match="has the sha256"):
        origin.put(SIF, source, sha256="0" * 64, size=len(CONTENT))
    assert calls(log) == []


def test_a_command_that_is_missing_is_an_error(tmp_path: Path, source: Path) -> None:
    there = pelican.running()
    options = UploadOptions(
        networks=LOOPBACK,
        tokens=pelican.minted(there),
        ca_file=there.servers.authority,
        pelican_program=str(tmp_path / "nothing"),
    )
    origin = PelicanOrigin(OriginAddress(there.director, pelican.prefix(tmp_path), direct=False), options)
    with pytest.raises(OriginError, match="cannot be started"):
        put(origin, source)


@pytest.mark.parametrize("damage", [b"A" + CONTENT[1:], CONTENT[:-1], CONTENT + b"!", b""])
def test_an_upload_that_arrives_damaged_never_gets_its_name(
    origin: PelicanOrigin, source: Path, log: Path, damage: bytes
) -> None:
    Path(f"{log}.damage").write_bytes(damage)
    with pytest.raises(OriginError, match=r"is not what it should be: sha256 .*, after 3 attempts"):
        put(origin, source)
    assert list(origin.names()) == []
    assert origin.recover() == []
    Path(f"{log}.damage").unlink()
    assert put(origin, source)
