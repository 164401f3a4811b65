"""Waiting for the lease of a gateway, and giving one back."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from publisher.targets.repositories.cvmfs.errors import LeaseBusyError
from publisher.targets.repositories.cvmfs.host import CvmfsHost, HostPaths
from publisher.targets.repositories.cvmfs.lease import Lease

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.targets.repositories.cvmfs.server import CvmfsServer

FQRN = "images.example.org"


class Server:
    fqrn = FQRN

    def __init__(self) -> None:
        self.given_back = 0

    def give_back_lease(self) -> None:
        self.given_back += 1


def make(where: Path, patience: float) -> tuple[Lease, Server, CvmfsHost]:
    server, host = Server(), CvmfsHost(FQRN, HostPaths(where, where, where))
    host.spool.mkdir()
    return Lease(cast("CvmfsServer", server), host, patience), server, host


def test_a_lease_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    lease, _, _ = make(tmp_path, 600)
    monkeypatch.setattr("time.sleep", lambda _: None)
    answers = iter([LeaseBusyError(FQRN, "Time remaining = 5s"), None, "opened"])

    def attempt() -> str | None:
        answer = next(answers)
        if isinstance(answer, LeaseBusyError):
            raise answer
        return answer

    assert lease.wait(attempt) == "opened"
    (said,) = caplog.messages
    assert "Time remaining = 5s" in said


def test_patience_ends(tmp_path: Path) -> None:
    lease, _, _ = make(tmp_path, 0)
    with pytest.raises(LeaseBusyError, match="publishes again and again"):
        lease.wait(lambda: None)


def test_a_token_without_a_transaction_is_given_back(tmp_path: Path) -> None:
    lease, server, host = make(tmp_path, 0)
    lease.give_back()
    host.lease_token.touch()
    host.flag.touch()
    lease.give_back()
    assert server.given_back == 0, "there is no token, and then it belongs to a transaction"
    host.flag.unlink()
    lease.give_back()
    assert server.given_back == 1
    assert not host.lease_token.exists()
