"""Uploads of build jobs into a real origin (XRootD with SciTokens): what a job's token allows, and what becomes of an upload."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.builders.orders import StepOptions
from publisher.builders.upload import upload
from publisher.errors import OriginError
from publisher.targets.pelican.upload import INCOMING
from tests.support.osdf import origin
from tests.support.publisher.built_values import built

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.state.built import BuiltImage
    from publisher.targets.origins.job_uploads import JobUploads, UploadGrant
    from publisher.targets.origins.pelican import PelicanOrigin

CONTENT = random.Random(19).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"sif/{SHA256[:2]}/{SHA256}.sif"
OPTIONS = StepOptions(networks=("127.0.0.0/8", "::1/128"))
JOB, OTHER = "job-1", "job-2"


class Place:
    """An origin with a prefix of its own, and the incoming area of its jobs.

    Attributes:
        target: the publisher's origin.
        uploads: the jobs' uploads.
        build: what a job has built.
    """

    def __init__(self, where: Path) -> None:
        self.target: PelicanOrigin = origin.directed(where)
        self.uploads: JobUploads = self.target.job_uploads(origin.minted(origin.running()))
        self._top = origin.running().servers.data / origin.prefix(where).lstrip("/")
        sif = where / "image.sif"
        sif.write_bytes(CONTENT)
        self.build: BuiltImage = replace(built("sha256:1"), sif=sif, sha256=SHA256, size=len(CONTENT))

    def upload(self, grant: UploadGrant, **more: str) -> str | None:
        return upload(replace(grant, **more), self.build, OPTIONS)

    def files(self) -> dict[str, Path]:
        return {str(path.relative_to(self._top)): path for path in sorted(self._top.rglob("*")) if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_a_job_has_uploaded_is_read_once_and_then_moved_to_its_name(place: Place, tmp_path: Path) -> None:
    assert place.upload(place.uploads.grant(JOB)) is None
    (there,) = place.files().values()
    inode = there.stat().st_ino
    assert place.uploads.copy(JOB, len(CONTENT), tmp_path / "copy") == SHA256
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert place.target.put(NAME, tmp_path / "copy", sha256=SHA256, size=len(CONTENT))
    (moved,) = (path for name, path in place.files().items() if name == NAME)
    assert (moved.stat().st_ino, moved.read_bytes()) == (inode, CONTENT), "nothing was sent a second time"
    place.uploads.discard(JOB)
    assert list(place.files()) == [NAME]
    assert not (moved.parents[2] / INCOMING / JOB).exists()


def test_an_upload_that_is_gone_before_it_gets_its_name_is_sent_by_the_publisher(place: Place, tmp_path: Path) -> None:
    assert place.upload(place.uploads.grant(JOB)) is None
    place.uploads.copy(JOB, len(CONTENT), tmp_path / "copy")
    place.uploads.discard(JOB)
    assert place.uploads.sha256(JOB, len(CONTENT)) is None
    assert place.target.put(NAME, tmp_path / "copy", sha256=SHA256, size=len(CONTENT))
    assert {name: path.read_bytes() for name, path in place.files().items()} == {NAME: CONTENT}


@pytest.mark.parametrize(
    "name",
    [
        *(NAME, "manifest/index.json", f"{INCOMING}/{OTHER}/image.sif"),
        *(f"{INCOMING}/{JOB}/../{OTHER}/image.sif", f"{INCOMING}/image.sif"),
    ],
)
def test_a_jobs_token_writes_nowhere_else(place: Place, name: str) -> None:
    reason = place.upload(place.uploads.grant(JOB), name=name)
    assert reason is not None
    assert place.files() == {}


def test_a_jobs_token_replaces_nothing_not_even_its_own_upload(place: Place, tmp_path: Path) -> None:
    grant = place.uploads.grant(JOB)
    assert place.upload(grant) is None
    place.build = replace(place.build, sif=tmp_path / "other", sha256=hashlib.sha256(b"other").hexdigest(), size=5)
    place.build.sif.write_bytes(b"other")
    assert place.upload(grant) is not None
    assert place.uploads.sha256(JOB, len(CONTENT)) == SHA256


def test_a_token_of_another_issuer_or_one_that_is_over_uploads_nothing(place: Place) -> None:
    grant, issuer = place.uploads.grant(JOB), origin.running().servers.issuer
    scope = f"storage.create:{grant.prefix.removeprefix('/images')}/{INCOMING}/{JOB}"
    assert place.upload(grant, token=issuer.token(scope, iss="https://other.invalid")) is not None
    assert place.upload(grant, token=issuer.token(scope, life=-60)) is not None
    assert place.files() == {}
    assert place.upload(grant, token=issuer.token(scope)) is None, "the scope was not what was wrong"


def test_an_upload_that_is_still_being_written_is_not_read(place: Place, tmp_path: Path) -> None:
    """Else a job could go on writing to it under its published name."""
    grant = place.uploads.grant(JOB)
    host, _, port = grant.host.partition(":")
    context = ssl.create_default_context(cadata=grant.authority)
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as pending:
        head = f"PUT {grant.prefix}/{grant.name} HTTP/1.1\r\nHost: {grant.host}\r\nAuthorization: Bearer {grant.token}\r\n"
        pending.sendall(f"{head}Content-Length: {2 * len(CONTENT)}\r\n\r\n".encode() + CONTENT)
        while not (written := [size for path in place.files().values() if (size := path.stat().st_size)]):
            pass
        with pytest.raises(OriginError):
            place.uploads.copy(JOB, written[0], tmp_path / "copy")


def test_uploads_that_nobody_has_taken_are_swept_after_a_week(place: Place) -> None:
    assert place.upload(place.uploads.grant(JOB)) is None
    assert place.target.recover() == []
    (there,) = place.files().values()
    os.utime(there.parent, (0, 0))
    (line,) = place.target.recover()
    assert JOB in line
    assert place.files() == {}
    assert not there.parent.exists()
