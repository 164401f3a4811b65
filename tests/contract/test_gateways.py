"""The contract of a repository behind a gateway, which publishers on several hosts publish to: the stand-in's and a real one."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from publisher.errors import AnotherRunError, SpaceError
from tests.support.cvmfs.contract_changes import INDEX, ROCKY, announce, fail_after, make, publish_rocky
from tests.support.cvmfs.gateway import FakeGateway, GatewayHosts, RealGateway
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from publisher.targets.repositories.base import Transaction
    from publisher.targets.repositories.cvmfs.repository import CvmfsRepository

ONE, OTHER = 0, 1


@pytest.fixture(params=["stand-in", "real"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GatewayHosts]:
    if request.param == "real":
        yield RealGateway()
        return
    fake = FakeGateway(tmp_path)
    yield fake
    fake.close()


def shows(index: bytes | None) -> Callable[[CvmfsRepository], None]:
    """Return work that checks which index a host shows once it has recovered."""

    def check(repository: CvmfsRepository) -> None:
        repository.recover()
        assert repository.read(INDEX) == index

    return check


def publishes(gateway: GatewayHosts, host: int, index: bytes) -> None:
    gateway.on(host, lambda repository: announce(repository, index))


def finds_it_busy(gateway: GatewayHosts, host: int) -> None:
    def refused(repository: CvmfsRepository) -> None:
        with pytest.raises(AnotherRunError, match=r"another publisher host has the gateway's lease: .*Time remaining = [0-9]"):
            announce(repository, b"busy")
        assert not gateway.token(host).exists()

    gateway.on(host, refused)


def test_one_host_has_the_lease_and_the_other_is_told_how_long(gateway: GatewayHosts) -> None:
    def at_work(repository: CvmfsRepository) -> None:
        repository.recover()
        with repository.transaction() as transaction:
            transaction.write(INDEX, b"1")
            make(transaction.tree(ROCKY))
            finds_it_busy(gateway, OTHER)
        assert repository.read(f"{ROCKY}/bin/sh") == b"#!"

    gateway.on(ONE, at_work)
    gateway.on(OTHER, shows(b"1"))
    publishes(gateway, OTHER, b"2")
    gateway.on(ONE, shows(b"2"))


def test_a_transaction_reads_what_another_host_has_published_last(gateway: GatewayHosts) -> None:
    publishes(gateway, ONE, b"1")
    gateway.on(OTHER, shows(b"1"))
    publishes(gateway, ONE, b"2")

    def late(repository: CvmfsRepository) -> None:
        assert repository.read(INDEX) == b"1", "a mount that nobody has mounted again shows the old revision"
        with repository.transaction() as transaction:
            assert repository.read(INDEX) == b"2"
            transaction.write("late", b"")

    gateway.on(OTHER, late)
    gateway.on(ONE, shows(b"2"))


def test_nobody_else_publishes_while_a_host_works_exclusively(gateway: GatewayHosts) -> None:
    publishes(gateway, ONE, b"1")

    def alone(repository: CvmfsRepository) -> None:
        assert repository.is_shared
        with repository.exclusively():
            assert repository.read(INDEX) == b"1"
            finds_it_busy(gateway, OTHER)
        assert not gateway.token(ONE).exists()

    gateway.on(ONE, alone)
    publishes(gateway, OTHER, b"2")


def test_what_a_killed_host_has_leased_it_gives_back_when_it_runs_again(gateway: GatewayHosts) -> None:
    publishes(gateway, ONE, b"1")

    def die(repository: CvmfsRepository) -> None:
        with repository.transaction() as transaction:
            transaction.write(INDEX, b"killed")
            os.kill(os.getpid(), signal.SIGKILL)

    def be_killed(repository: CvmfsRepository) -> None:
        assert child_process.end(child_process.start(lambda: die(repository))) == -signal.SIGKILL

    gateway.on(ONE, be_killed)
    finds_it_busy(gateway, OTHER)

    def recover(repository: CvmfsRepository) -> None:
        (line,) = repository.recover()
        assert line.startswith("closed an interrupted transaction")
        assert not gateway.token(ONE).exists()

    gateway.on(ONE, recover)
    publishes(gateway, OTHER, b"2")


def test_a_lease_that_ends_too_early_publishes_nothing_and_says_what_to_raise(gateway: GatewayHosts) -> None:
    publishes(gateway, ONE, b"1")

    def outlast_the_lease(_change: Transaction) -> None:
        gateway.expire(ONE)
        publishes(gateway, OTHER, b"2")

    def too_slow(repository: CvmfsRepository) -> None:
        with pytest.raises(SpaceError, match="the gateway's lease was over") as raised:
            announce(repository, b"slow", lambda change: make(change.tree(ROCKY)), outlast_the_lease)
        assert "max_lease_time" in str(raised.value.hint)
        repository.recover()
        assert repository.read(INDEX) == b"2"
        assert not repository.exists(ROCKY)
        announce(repository, b"3", lambda change: make(change.tree(ROCKY)))

    gateway.on(ONE, too_slow)
    gateway.on(OTHER, shows(b"3"))


def test_a_token_that_is_no_lease_any_more_is_not_taken_for_one(gateway: GatewayHosts) -> None:
    """As after a kill between the end of a transaction and the removal of the token: the tool would go on with it."""

    def work(repository: CvmfsRepository) -> None:
        with repository.transaction() as transaction:
            transaction.write(INDEX, b"1")
            old = gateway.token(ONE).read_bytes()
        gateway.token(ONE).write_bytes(old)
        assert repository.recover() == []
        assert not gateway.token(ONE).exists()
        gateway.token(ONE).write_bytes(old)
        announce(repository, b"2")

    gateway.on(ONE, work)
    gateway.on(OTHER, shows(b"2"))


def test_a_transaction_that_fails_gives_the_lease_back(gateway: GatewayHosts) -> None:
    def fail(repository: CvmfsRepository) -> None:
        fail_after(repository, lambda change: change.write(INDEX, b"failed"))
        assert not gateway.token(ONE).exists()

    gateway.on(ONE, fail)
    publishes(gateway, OTHER, b"1")


def test_trees_are_not_cloned_there(gateway: GatewayHosts) -> None:
    """The tool publishes a clone by itself, and keeps the lease if it refuses it."""

    def clone(repository: CvmfsRepository) -> None:
        publish_rocky(repository)
        assert not repository.can_clone
        with repository.transaction() as transaction:
            assert transaction.clone(ROCKY, ".images/0a/next") is None
            make(transaction.tree(".images/0a/next"))
        assert repository.exists(".images/0a/next/bin/sh")

    gateway.on(ONE, clone)


def test_what_is_written_outside_of_a_lease_is_dropped_without_a_word(gateway: GatewayHosts) -> None:
    """This is why a lease of the whole repository is taken: the manifest would be dropped."""
    publishes(gateway, ONE, b"1")

    def below(repository: CvmfsRepository) -> None:
        mount = gateway.mount(ONE)
        assert gateway.run(ONE, "transaction", f"{gateway.fqrn}/htc") == 0
        (mount / "htc").mkdir()
        (mount / "htc/inside").write_text("")
        (mount / INDEX).write_text("2")
        assert gateway.run(ONE, "publish", "-f", gateway.fqrn) == 0
        repository.recover()
        assert repository.exists("htc/inside")
        assert repository.read(INDEX) == b"1"

    gateway.on(ONE, below)
